//! Errors of the parts, as operators read them.

use crate::admin::{ApiError, Code};
use crate::cache::purge::{PatternError, Patterns};
use crate::store::PurgeError;

pub(super) fn bad(message: impl Into<String>, help: impl Into<String>) -> ApiError {
    ApiError::bad(message, help)
}

pub(super) fn pattern(error: PatternError) -> ApiError {
    let message = error.to_string();
    ApiError::bad(format!("the pattern {message}"), error.help)
}

/// Compiles patterns, of which there has to be one.
pub(super) fn patterns(texts: &[String]) -> Result<Patterns, ApiError> {
    if texts.is_empty() {
        return Err(bad("nothing is named", "name paths or patterns, such as /Software/Current/**"));
    }
    Patterns::parse(texts).map_err(pattern)
}

pub(super) fn purge(error: &PurgeError) -> ApiError {
    match error {
        PurgeError::TooMany => ApiError::new(
            Code::Busy,
            error.to_string(),
            "wait some seconds, or purge with fewer, wider patterns",
        ),
        PurgeError::Disk(_) => ApiError::new(
            Code::Failed,
            error.to_string(),
            "look at the disk of the cache; nothing was purged",
        ),
    }
}
