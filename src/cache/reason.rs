//! The words of a verdict: what is done with a request, and the closed list of reasons why.

use http::StatusCode;

/// Why. A closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Stored and fresh.
    Hit,
    /// Stored, and never changes under its name.
    HitImmutable,
    /// A catalogue file of the generation that is shown.
    Generation,
    /// The same, and upstream has not confirmed it for a while.
    GenerationUnconfirmed,
    /// There is no catalogue that may be offered.
    NotOffered,
    /// Stored that there is none.
    NegativeHit,
    /// Stale for a short time; revalidated behind.
    StaleWhileRevalidate,
    /// Stale, and upstream just failed.
    StaleIfError,
    /// Stale, and upstream is known to be down.
    StaleUpstreamDown,
    /// Stale: ask whether it is still right.
    RevalidateExpired,
    /// Fresh, but the client insists, and nobody has asked for some seconds.
    RevalidateRequested,
    /// Soft-purged, or stored under a clock that was wrong: ask.
    RevalidatePurged,
    /// Nothing stored.
    Miss,
    /// Stored and stale, and without anything to ask with.
    MissExpired,
    /// What was stored said that there is none, and that was a while ago.
    MissNegativeExpired,
    /// The client wants nothing but what is stored, and that is not to be had.
    OnlyIfCached,
    /// Nothing usable is stored, and upstream is down.
    UpstreamDown,
    /// Stored and stale, its origin forbids to use it so, and upstream cannot be asked.
    MustRevalidate,
}

impl Reason {
    /// Its word, for people and for dashboards.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HitImmutable => "hit-immutable",
            Self::Generation => "generation",
            Self::GenerationUnconfirmed => "generation-unconfirmed",
            Self::NotOffered => "not-offered",
            Self::NegativeHit => "negative-hit",
            Self::StaleWhileRevalidate => "stale-while-revalidate",
            Self::StaleIfError => "stale-if-error",
            Self::StaleUpstreamDown => "stale-upstream-down",
            Self::RevalidateExpired => "revalidate-expired",
            Self::RevalidateRequested => "revalidate-requested",
            Self::RevalidatePurged => "revalidate-purged",
            Self::Miss => "miss",
            Self::MissExpired => "miss-expired",
            Self::MissNegativeExpired => "miss-negative-expired",
            Self::OnlyIfCached => "only-if-cached",
            Self::UpstreamDown => "upstream-down",
            Self::MustRevalidate => "must-revalidate",
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer from the entry.
    Serve(Reason),
    /// Answer from the entry although it is stale.
    ServeStale {
        /// Why that is allowed.
        reason: Reason,
        /// Whether to revalidate behind, by the key's single flight.
        refresh: bool,
    },
    /// Ask upstream with the entry's validators, by the key's single flight; then decide again.
    Revalidate(Reason),
    /// Fetch it, or follow who does.
    Fetch(Reason),
    /// Answer with an error, and `Retry-After` where trying again makes sense.
    Refuse {
        /// 503 or 504.
        status: StatusCode,
        /// Why.
        reason: Reason,
    },
}

impl Verdict {
    /// Its reason.
    pub const fn reason(&self) -> Reason {
        match *self {
            Self::Serve(reason) | Self::Revalidate(reason) | Self::Fetch(reason) => reason,
            Self::ServeStale { reason, .. } | Self::Refuse { reason, .. } => reason,
        }
    }
}
