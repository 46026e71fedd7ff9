//! Who the agent shows itself as and whom it trusts, read again: files of certificates and tokens are replaced while
//! the agent runs, long before the old ones end.

use std::fmt;
use std::sync::Arc;

use super::core::Agent;
use super::link::{Identity, Link};

/// Where certificates and token are read from. It blocks on a few small files.
#[derive(Clone)]
pub struct Papers(Arc<dyn Fn() -> Result<Identity, String> + Send + Sync>);

impl Papers {
    /// Asks `read` before each check-in and each verification of the list.
    pub fn new(read: impl Fn() -> Result<Identity, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for Papers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Papers")
    }
}

impl Agent {
    /// Takes over what has changed. What cannot be read or used changes nothing: an administrator is in the middle of
    /// replacing it, or made a mistake, and what was good until now may still be.
    pub(super) fn renew(&mut self) {
        let Some(Papers(read)) = &self.options.papers else { return };
        let identity = match read() {
            Ok(identity) if identity == self.options.identity => return,
            Ok(identity) => identity,
            Err(error) => {
                tracing::warn!(%error, "certificates and token are used as they were");
                return;
            }
        };
        match Link::new(&identity, self.options.patience) {
            Ok(link) => {
                tracing::info!("certificates or token have changed");
                self.link = link;
                if let Some(updater) = &mut self.updater {
                    updater.use_link(self.link.another());
                }
                self.options.identity = identity;
            }
            Err(error) => tracing::warn!(%error, "certificates and token are used as they were"),
        }
    }
}
