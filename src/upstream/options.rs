//! What an upstream is configured with, and what can be wrong about that.

use std::time::Duration;

/// One source of a repository. Start from [`Options::new`] and change what differs.
#[derive(Clone)]
pub struct Options {
    /// `http://` or `https://host[:port]/base/`; a missing slash at the end is added.
    pub url: String,
    /// Lower comes first; equal ones share by health and throughput.
    pub priority: u32,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Client certificate chain and key, both PEM. Shown to the upstream's own host only, never to a redirect's.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// For name resolution, each address's TCP connect, and the TLS handshake, each. Default 3 s.
    pub connect_timeout: Duration,
    /// From the request sent to the final reply head received, all 1xx before it included. Default 10 s.
    pub first_byte_timeout: Duration,
    /// The longest wait for the next byte of a body. Default 20 s.
    pub stall_timeout: Duration,
    /// Bytes a second below which a body is given up, over a window of `rate_window`; 0 is off. Only time spent
    /// waiting for the upstream counts. Default 1,024.
    pub min_rate: u64,
    /// The window of `min_rate`. Default 30 s: a WAN may be busy with a check-in for some seconds.
    pub rate_window: Duration,
    /// Fetches at a time. Default 16.
    pub concurrent: usize,
    /// Hosts (`host`, or `host:port` where the port is not the scheme's own) besides the upstream's own that a
    /// redirect may lead to.
    pub redirect_hosts: Vec<String>,
    /// Our name in `Via`.
    pub node: String,
}

impl Options {
    /// The defaults for `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            priority: 0,
            trust: Trust::System,
            identity: None,
            connect_timeout: Duration::from_secs(3),
            first_byte_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(20),
            min_rate: 1 << 10,
            rate_window: Duration::from_secs(30),
            concurrent: 16,
            redirect_hosts: Vec::new(),
            node: "waypost".to_owned(),
        }
    }
}

impl std::fmt::Debug for Options {
    /// Without the identity, which holds a private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// The machine's own roots.
    #[default]
    System,
    /// Exactly the certificates in this PEM text, nothing else.
    Exactly(Vec<u8>),
}

/// Why an upstream cannot be made. All of these are configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// Not an absolute http or https URL without user info, query and fragment.
    #[error("`{url}` is not a usable upstream: {problem}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// No trust anchors for https.
    #[error("no certificate to trust for `{url}`: {problem}")]
    Trust {
        /// As configured.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The client certificate or key cannot be used.
    #[error("the client certificate for `{url}` cannot be used: {problem}")]
    Identity {
        /// As configured.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The node name cannot stand in a header.
    #[error("the node name `{0}` cannot stand in a Via header")]
    Node(String),
}
