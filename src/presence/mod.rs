//! Agents: who is there, in which state, since when and why; their check-ins, channels and wake-ups.
//!
//! One lock holds the table ([`registry`](self), pure), the wake-ups (pure) and the ways to the agents; it is never
//! held over a wait. What has to survive goes to the ledger: a check-in waits for it, everything else is written
//! behind, together. One task turns the hands of all clocks ([`Presence::run`]); an agent has no task but its
//! connection.

mod agent;
mod api;
mod behind;
mod boots;
mod channel;
mod hands;
mod ledger;
mod outbox;
mod outside;
mod passive;
mod plane;
mod probe;
mod registry;
mod report;
mod select;
mod state;
mod wake;
mod wakeups;

pub use crate::fleet::AgentId;
pub use agent::Agent;
pub use api::{Answer, Asker, is_call};
pub use behind::Behind;
pub use ledger::OpenError;
pub use outside::{Alone, Outside, Wanted};
pub use plane::{Options, Presence};
pub use report::{Forgotten, REPORT_BYTES, Report, Reported};
pub use select::{Selector, SelectorError};
pub use state::{Cause, Rules, Standing, State};
pub use wake::{WakeOrder, Woken};
pub use wakeups::{Relayed, WakeAsk, WakeTold};
