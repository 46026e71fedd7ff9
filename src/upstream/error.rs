//! What can go wrong with a fetch: before the reply, and in its body.

use std::io;

use crate::protocol::reply::Lie;

/// Why a fetch gave no reply. Every one of these is the upstream's side or the path to it, but `Overloaded`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The host's name gave no address in time.
    #[error("the name {host} cannot be resolved: {problem}")]
    Resolve {
        /// Host asked for.
        host: String,
        /// What the resolver said.
        problem: String,
    },
    /// No address of the host took a connection.
    #[error("no connection to {host}: {problem}")]
    Connect {
        /// Host and port.
        host: String,
        /// The last address's problem.
        problem: String,
    },
    /// Connected, but no TLS session that we may trust. There is no fall back to plaintext.
    #[error("no TLS session with {host}: {problem}")]
    Tls {
        /// Host and port.
        host: String,
        /// What exactly.
        problem: TlsProblem,
    },
    /// The request is out, no reply head came in time.
    #[error("no reply head within {0:?}")]
    FirstByteTimeout(std::time::Duration),
    /// The reply contradicts itself or the request.
    #[error("the upstream's reply is refused: {0}")]
    Lie(#[from] Lie),
    /// A redirect that is not followed.
    #[error("redirect to `{to}` not followed: {problem}")]
    Redirect {
        /// The `Location`, cut to 200 bytes.
        to: String,
        /// Which rule forbids it.
        problem: RedirectProblem,
    },
    /// Our own limit on fetches at a time from this upstream is used up. Only [`super::Upstream::try_acquire`] says this.
    #[error("too many fetches from this upstream at once")]
    Overloaded,
    /// The connection broke before the reply head was complete.
    #[error("the connection broke before the reply: {0}")]
    Io(String),
    /// The path or query asked for is not a request target. Ours.
    #[error("not a request target")]
    Target,
}

impl FetchError {
    /// Whether asking the same upstream again soon can help. Another upstream is always worth asking, unless it is
    /// `Target`.
    pub const fn retriable(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::FirstByteTimeout(_)
            | Self::Io(_)
            | Self::Overloaded => true,
            Self::Tls { problem, .. } => matches!(problem, TlsProblem::Timeout | TlsProblem::Broken(_)),
            Self::Lie(_) | Self::Redirect { .. } | Self::Target => false,
        }
    }

    /// One word for logs and metric labels: what is to blame.
    pub const fn blame(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Connect { .. } => "connect",
            Self::Tls { problem, .. } => problem.as_str(),
            Self::FirstByteTimeout(_) => "first-byte-timeout",
            Self::Lie(lie) => lie.as_str(),
            Self::Redirect { .. } => "redirect",
            Self::Overloaded => "overloaded",
            Self::Io(_) => "broken",
            Self::Target => "target",
        }
    }
}

/// Why there is no TLS session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// The certificate chain ends at nobody we trust.
    #[error("its certificate is signed by nobody we trust")]
    UnknownIssuer,
    /// The certificate's time is over.
    #[error("its certificate has expired")]
    Expired,
    /// The certificate's time has not begun, or our clock is wrong.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// The certificate is for another name.
    #[error("its certificate is for another name")]
    WrongName,
    /// Another fault of the certificate.
    #[error("its certificate is refused: {0}")]
    Certificate(String),
    /// The other side refused us with an alert, as for a missing client certificate.
    #[error("it refused us: {0}")]
    Refused(String),
    /// No common version or cipher suite, or not TLS at all.
    #[error("it does not speak our TLS: {0}")]
    Protocol(String),
    /// The handshake took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// The connection broke during the handshake.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl TlsProblem {
    /// One word for logs and metric labels.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => "tls-unknown-issuer",
            Self::Expired => "tls-expired",
            Self::NotYetValid => "tls-not-yet-valid",
            Self::WrongName => "tls-wrong-name",
            Self::Certificate(_) => "tls-certificate",
            Self::Refused(_) => "tls-refused",
            Self::Protocol(_) => "tls-protocol",
            Self::Timeout => "tls-timeout",
            Self::Broken(_) => "tls-broken",
        }
    }
}

/// The rule that forbids a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectProblem {
    /// Not a URL, or one with user info, or of another scheme than http and https.
    #[error("not a usable location")]
    Unusable,
    /// Neither the upstream's own host nor one of `redirect_hosts`.
    #[error("not one of the configured hosts")]
    Host,
    /// From https to http.
    #[error("from https to http")]
    Plaintext,
    /// More than `limits::REDIRECTS`.
    #[error("too many redirects")]
    TooMany,
}

/// How a body broke off. What came before is right as far as it goes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// No byte for the stall timeout.
    #[error("no byte for {0:?}")]
    Stalled(std::time::Duration),
    /// Slower than the minimum rate over a whole window.
    #[error("only {rate} B/s, minimum {minimum}")]
    TooSlow {
        /// Measured bytes a second.
        rate: u64,
        /// Configured bytes a second.
        minimum: u64,
    },
    /// The connection was reset.
    #[error("connection reset: {0}")]
    Reset(String),
    /// The connection ended before the announced end of the body.
    #[error("the body ended short")]
    Short,
    /// The chunk framing is broken.
    #[error("broken framing: {0}")]
    Framing(String),
    /// The body contradicts the head.
    #[error("refused: {0}")]
    Lie(#[from] Lie),
}

impl BodyError {
    /// Whether resuming from the last byte at the same upstream makes sense. Another one is always worth asking.
    pub const fn retriable(&self) -> bool {
        !matches!(self, Self::Lie(_))
    }

    /// One word for logs and metric labels.
    pub const fn blame(&self) -> &'static str {
        match self {
            Self::Stalled(_) => "stalled",
            Self::TooSlow { .. } => "too-slow",
            Self::Reset(_) => "reset",
            Self::Short => "short",
            Self::Framing(_) => "framing",
            Self::Lie(lie) => lie.as_str(),
        }
    }
}

/// Looks through an error's sources for a kind.
pub(super) fn source_of<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An io::Error made from another error shows that one's source, not itself.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = inner.downcast_ref::<E>()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}
