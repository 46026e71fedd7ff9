//! The operator's way in: HTTP and JSON on a Unix socket, where the kernel says who asks, and on TLS with a token or
//! a client certificate. Never on TCP without either.
//!
//! `serve` is the life of a question: the host, who asks, the deadline, then the table of `routes`. What is done for
//! it the application says ([`Operator`]); this module decides nothing about the node.

mod access;
pub mod agents_api;
pub mod api;
pub mod documents;
mod error;
mod extract;
mod names;
mod openapi;
mod operator;
mod routes;
mod serve;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;

pub use access::{Access, Holder, Role, Token, Who};
pub use error::{ApiError, Code, ErrorBody, ErrorFields};
pub use operator::{Operator, Soon};
pub use socket::{AdminError, AdminSocket};
pub use tls::{AdminTls, AdminTlsError, Identity};

/// The admin API, ready to be served on its listeners. Clones are the same.
#[derive(Clone)]
pub struct Admin(Arc<Parts>);

struct Parts {
    router: Router,
    access: ArcSwap<Access>,
}

impl Admin {
    /// An API that `node` answers, for those whom `access` lets in.
    pub fn new(node: Arc<dyn Operator>, access: Access) -> Self {
        Self(Arc::new(Parts { router: routes::router(node), access: ArcSwap::from_pointee(access) }))
    }

    /// Lets in whom `access` says from the next question on.
    pub fn admit(&self, access: Access) {
        self.0.access.store(Arc::new(access));
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

/// Marks an answer that goes on for as long as somebody reads it.
#[derive(Clone, Copy, Debug)]
struct LongAnswer;
