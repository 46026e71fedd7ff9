//! One upstream: asks, follows its own redirects, judges, and reports to its health.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Ask, FetchError, Health, Options, Reply, UpstreamError};
use crate::base::clock::Clock;

/// The right to one fetch of an upstream at a time; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// One source of a repository.
#[derive(Debug)]
pub struct Upstream {
    name: String,
    options: Options,
    clock: Clock,
    health: Health,
    places: Arc<Semaphore>,
}

impl Upstream {
    /// Checks the options and loads the trust; opens no connection.
    ///
    /// # Errors
    /// All of them are configuration: the URL, missing roots, a bad client certificate.
    pub fn new(options: Options, clock: Clock) -> Result<Self, UpstreamError> {
        let places = Arc::new(Semaphore::new(options.concurrent));
        Ok(Self { name: options.url.clone(), options, clock, health: Health::default(), places })
    }

    /// Its URL with the slash at the end: what logs, metrics and [`Reply::source`] call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lower comes first.
    pub fn priority(&self) -> u32 {
        self.options.priority
    }

    /// Whether it is worth asking. [`Upstream::fetch`] and [`Reply::frame`] report what they see themselves; report
    /// only what they cannot see (a wrong digest, a mirror with other bytes).
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Waits for one of its `concurrent` places, in order of arrival. `fetch` itself takes none: a fill holds its place
    /// over its whole life, resumes included.
    pub async fn acquire(&self) -> Permit {
        todo!()
    }

    /// A place, if one is free.
    ///
    /// # Errors
    /// `Overloaded`.
    pub fn try_acquire(&self) -> Result<Permit, FetchError> {
        todo!()
    }

    /// Asks, and gives the reply once its head is here and found truthful. Redirects within the configured hosts
    /// are followed; a connection from the pool that turns out dead is replaced once.
    ///
    /// # Errors
    /// See [`FetchError`]; each is already reported to the health.
    pub async fn fetch(&self, _ask: &Ask) -> Result<Reply, FetchError> {
        let _ = self.clock.now();
        Err(FetchError::Target)
    }
}
