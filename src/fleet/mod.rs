//! The fleet's control documents, purely: handlers, groups, assignment rules, the system tree and policies are
//! compiled once ([`compile()`]) and answer then, for any agent, which handlers it is to talk to in which order
//! ([`Fleet::sitelist`]), which policies it has ([`Fleet::policies`]), and why ([`Fleet::explain`]).

mod address;
mod balance;
mod compile;
mod compiled;
mod criteria;
mod documents;
mod explain;
mod explain_text;
mod fleet_file;
mod handler_file;
pub mod import;
mod lint;
mod model;
mod names;
mod order;
mod policies;
mod policy;
mod problem;
mod read;
mod reasons;
mod rules;
mod rules_file;
pub mod sitelist;
mod write;
pub mod xml;

pub use compile::{Compiled, compile};
pub use compiled::{Fleet, Known};
pub use documents::{DocumentError, Documents, FLEET, POLICIES, RULES, STATES};
pub use explain::{Explanation, GroupReason, HandlerReason, LeftOut, PolicyReason, RuleReason};
pub use model::{Enrolment, Facts, Group, Handler, Order, Repository, State};
pub use names::{AgentId, NameError, TreePath, check_name};
pub use policy::{Manifest, ManifestEntry, Policy};
pub use problem::Problem;
