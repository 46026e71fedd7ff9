//! Why a fill could not give its readers what they came for.

use crate::base::clock::Timestamp;

/// The end of a fill that is not a body. Each has one word for logs, metrics and `Cache-Status`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Too many fills run and wait already. Ours; try again later.
    #[error("too many fetches are waiting")]
    Overloaded,
    /// Every upstream is in back-off; nothing was tried.
    #[error("no upstream can be reached at the moment")]
    UpstreamDown {
        /// When the next try is due.
        until: Timestamp,
    },
    /// Upstream was tried and could not be reached, or did not answer in time.
    #[error("upstream did not answer: {0}")]
    Unreachable(String),
    /// Upstream answered, but with nothing that may be passed on (403, 429, 5xx, …).
    #[error("upstream answered with status {0}")]
    Refused(u16),
    /// A catalogue lists the file, and no upstream that can be asked has it. It is on its way, or was taken back.
    #[error("upstream does not have a file that is listed")]
    NotThere,
    /// Upstream's answer contradicts itself, the question or the catalogue.
    #[error("upstream's answer was refused: {0}")]
    Lied(&'static str),
    /// The same, found out a moment ago: nobody was asked again.
    #[error("no upstream had the file as it is listed a moment ago")]
    Spoiled {
        /// When somebody is asked again.
        until: Timestamp,
    },
    /// The body broke off and could not be resumed.
    #[error("the body broke off and could not be resumed: {0}")]
    Broken(String),
    /// Upstream has another file there now than the one we had begun to send.
    #[error("upstream's file changed while it was fetched")]
    Changed,
    /// All readers left and the rest was not worth fetching.
    #[error("nobody wanted it any more")]
    Abandoned,
    /// The lead died: a defect of ours.
    #[error("internal error")]
    Internal,
}

impl Cause {
    /// The word for logs, metrics and the `detail` of `Cache-Status`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::UpstreamDown { .. } => "upstream-down",
            Self::Unreachable(_) => "upstream-unreachable",
            Self::Refused(_) => "upstream-refused",
            Self::NotThere => "upstream-lacks-it",
            Self::Lied(_) | Self::Spoiled { .. } => "upstream-lied",
            Self::Broken(_) => "upstream-broke",
            Self::Changed => "upstream-changed",
            Self::Abandoned => "abandoned",
            Self::Internal => "internal",
        }
    }
}
