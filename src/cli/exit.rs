//! Exit codes: a contract from the first release.

use std::process::ExitCode;

use crate::admin::Code;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// The configuration is invalid.
    ConfigInvalid = 3,
    /// The node cannot be reached.
    Unreachable = 4,
    /// Not known there, or not allowed to.
    NotAllowed = 5,
    /// Some of many failed.
    Partly = 6,
    /// It is not there.
    NotFound = 7,
    /// Checked, and unhealthy or damaged.
    Unhealthy = 8,
    /// It took too long.
    TimedOut = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: with its exit code, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What is wrong.
    pub message: String,
    /// What to do next; empty where the message says it.
    pub help: String,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: help.into() }
    }

    /// The node's own words.
    pub(super) fn of_api(code: Code, message: String, help: String) -> Self {
        let exit = match code {
            Code::BadRequest => Exit::Usage,
            Code::ConfigInvalid => Exit::ConfigInvalid,
            Code::NotAuthenticated | Code::NotAllowed => Exit::NotAllowed,
            Code::NotFound => Exit::NotFound,
            Code::TimedOut => Exit::TimedOut,
            Code::Method | Code::Host | Code::MediaType | Code::TooLarge | Code::Busy | Code::Failed => {
                Exit::Failed
            }
        };
        Self { exit, message, help }
    }
}
