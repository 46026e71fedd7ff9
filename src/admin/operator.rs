//! What the node can do for an operator. The application implements it; this module only carries it over HTTP.

use std::future::Future;
use std::pin::Pin;

use serde_json::Value;
use tokio::sync::mpsc;

use super::agents_api::{AgentRow, Agents, AgentsAsk, AgentsReached, ForgetAsk, WakeAsk, WakeTold};
use super::api::{
    Done, Entries, EntriesAsk, Explanation, Job, PinAsk, PurgeAsk, Reached, Reloaded, TailAsk, VerifyAsk,
    WarmAsk,
};
use super::documents::DocumentsOperator;
use super::error::ApiError;
use crate::telemetry::Exposition;

/// An answer that takes a while.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// The node as its operators see it.
pub trait Operator: Send + Sync + 'static {
    /// Whether agents should be sent here; if not, why (`starting`, `draining`, …). Never an upstream's trouble.
    ///
    /// # Errors
    /// The reason, one word or a short sentence.
    fn ready(&self) -> Result<(), String>;

    /// All metrics as text.
    fn metrics(&self, exposition: Exposition) -> String;

    /// What the node is doing.
    fn status(&self) -> Value;

    /// Fetches that run.
    fn fills(&self) -> Value;

    /// Why a URL is answered as it is.
    fn explain<'a>(&'a self, url: &'a str) -> Soon<'a, Explanation>;

    /// Ends a fetch; its readers' transfers break.
    fn cancel_fill<'a>(&'a self, url: &'a str) -> Soon<'a, Done>;

    /// What is stored.
    fn entries(&self, ask: EntriesAsk) -> Soon<'_, Entries>;

    /// Makes stored files go, or stale.
    fn purge(&self, ask: PurgeAsk) -> Soon<'_, Reached>;

    /// Keeps stored files from being evicted, or no longer.
    fn pin(&self, ask: PinAsk) -> Soon<'_, Reached>;

    /// Removes blocks that nothing names.
    fn collect(&self, dry_run: bool) -> Soon<'_, Reached>;

    /// Fetches ahead.
    fn warm(&self, ask: WarmAsk) -> Soon<'_, Job>;

    /// Reads every block and compares it with its name.
    fn verify(&self, ask: VerifyAsk) -> Soon<'_, Job>;

    /// Jobs that run, and the last ones that ended.
    fn jobs(&self) -> Vec<Job>;

    /// One of them.
    fn job(&self, id: u64) -> Option<Job>;

    /// Ends one of them.
    ///
    /// # Errors
    /// There is none of this number.
    fn cancel_job(&self, id: u64) -> Result<Done, ApiError>;

    /// Reads the configuration again.
    fn reload(&self, dry_run: bool) -> Soon<'_, Reloaded>;

    /// Logs more or less.
    ///
    /// # Errors
    /// It is no level or filter.
    fn log_level(&self, level: &str) -> Result<Done, ApiError>;

    /// What it knows of the fleet's documents.
    ///
    /// # Errors
    /// It has nothing to do with them.
    fn documents(&self) -> Result<&dyn DocumentsOperator, ApiError> {
        Err(ApiError::not_found(
            "this node has nothing to do with the fleet's documents",
            "give it [control] with a directory or an upstream",
        ))
    }

    /// Requests as they end, one line of JSON each; ends when the receiver goes.
    ///
    /// # Errors
    /// The pattern is none.
    fn tail(&self, ask: TailAsk) -> Result<mpsc::Receiver<String>, ApiError>;

    /// Some agents.
    ///
    /// # Errors
    /// The node has nothing to do with agents, or the selector is none.
    fn agents(&self, ask: AgentsAsk) -> Result<Agents, ApiError>;

    /// One agent.
    ///
    /// # Errors
    /// It is not known.
    fn agent(&self, id: &str) -> Result<AgentRow, ApiError>;

    /// Asks agents to check in.
    ///
    /// # Errors
    /// Nobody is meant.
    fn wake(&self, ask: WakeAsk) -> Result<WakeTold, ApiError>;

    /// What came of a wake-up so far.
    ///
    /// # Errors
    /// There is none of this number.
    fn wake_told(&self, id: u64) -> Result<WakeTold, ApiError>;

    /// Calls a wake-up off.
    ///
    /// # Errors
    /// There is none of this number.
    fn abort_wake(&self, id: u64) -> Result<Done, ApiError>;

    /// Forgets agents.
    ///
    /// # Errors
    /// The node has nothing to do with agents.
    fn forget(&self, ask: ForgetAsk) -> Result<AgentsReached, ApiError>;
}
