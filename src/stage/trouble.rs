//! Why a generation is not shown, or not yet.

use crate::fill::Cause;
use crate::repository::listing::CatalogueError;

/// What kept a catalogue from becoming a generation. The one that is shown stays.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// Upstream has no such catalogue at all.
    #[error("there is no catalogue")]
    Absent,
    /// A file of the catalogue could not be fetched.
    #[error("{path}: {cause}")]
    Unreachable {
        /// The file.
        path: String,
        /// Why.
        cause: Cause,
    },
    /// The publisher says that it is not to be used at the moment.
    #[error("the publisher does not offer it at the moment")]
    NotOffered,
    /// A catalogue file is not believed.
    #[error("{path}: {error}")]
    Malformed {
        /// The file.
        path: String,
        /// Line and reason.
        error: CatalogueError,
    },
    /// A file that has to be there is not.
    #[error("{path} belongs to the catalogue and is not there")]
    Missing {
        /// The file.
        path: String,
    },
    /// It changed while it was read: a publication is under way.
    #[error("the catalogue changes while it is read")]
    Moving,
    /// Its version moved and nothing it names did: a publication has probably just begun.
    #[error("the catalogue names a new version and the old files")]
    Unsettled,
    /// What agents will want of it cannot be had yet.
    #[error("{path} cannot be had yet: {cause}")]
    NotReady {
        /// The file.
        path: String,
        /// Why.
        cause: Cause,
    },
    /// Older than what is shown: a mirror that lags behind.
    #[error("{source_name} has an older version ({version})")]
    Older {
        /// The upstream.
        source_name: String,
        /// What it calls its version.
        version: String,
    },
}

impl Trouble {
    /// Its word in metrics, status and logs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Unreachable { .. } => "unreachable",
            Self::NotOffered => "not-offered",
            Self::Malformed { .. } => "malformed",
            Self::Missing { .. } => "missing",
            Self::Moving => "moving",
            Self::Unsettled => "unsettled",
            Self::NotReady { .. } => "not-ready",
            Self::Older { .. } => "older",
        }
    }

    /// All words.
    pub const WORDS: [&'static str; 9] = [
        "absent",
        "unreachable",
        "not-offered",
        "malformed",
        "missing",
        "moving",
        "unsettled",
        "not-ready",
        "older",
    ];

    /// Whether it is over by itself soon, so that looking again in a second is worth it.
    pub(super) const fn is_brief(&self) -> bool {
        matches!(self, Self::Moving | Self::Unsettled | Self::NotReady { .. } | Self::Missing { .. })
    }

    /// Whether finding it out again costs a whole file, or several.
    pub(super) const fn is_costly(&self) -> bool {
        matches!(self, Self::Malformed { .. } | Self::NotReady { cause: Cause::Lied(_), .. })
    }

    /// The cause an agent is told when there is nothing to show at all.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Unreachable { cause, .. } | Self::NotReady { cause, .. } => cause.clone(),
            Self::Absent => Cause::Refused(404),
            Self::Malformed { .. } => Cause::Lied("catalogue"),
            _ => Cause::Refused(503),
        }
    }
}
