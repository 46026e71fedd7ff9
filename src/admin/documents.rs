//! The fleet's documents as operators see and change them, and what they have nodes do: types, and who does it.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::{Done, SCHEMA};
use super::error::ApiError;
use super::extract::{AsOperator, Ask, Input};
use super::operator::Soon;
use super::routes::{Node, json};

/// A handler of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerRow {
    /// Its name.
    pub name: String,
    /// `active`, `draining` or `disabled`.
    pub state: String,
    /// `HOST:PORT` inside.
    pub internal: String,
    /// `HOST:PORT` outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// Its share where handlers are balanced.
    pub weight: u32,
    /// The groups that name it.
    pub groups: Vec<String>,
    /// When it last asked this node, in seconds since 1970; none where it does not come here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
    /// Commands that wait for it.
    pub waiting: usize,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handlers {
    /// The shape.
    pub schema: u32,
    /// The version of the documents.
    pub version: u64,
    /// The handlers, in the order of the documents.
    pub handlers: Vec<HandlerRow>,
}

/// An agent, as it is or as it would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentAsk {
    /// Its id.
    pub agent: String,
    /// Where it is in the tree, instead of what is known.
    pub tree: Option<String>,
    /// Its tags, with commas between, instead of what is known.
    pub tags: Option<String>,
    /// Its addresses, with commas between, instead of what is known.
    pub addresses: Option<String>,
}

/// An agent's sitelist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SitelistShown {
    /// The shape.
    pub schema: u32,
    /// Its ETag, without quotes.
    pub tag: String,
    /// The XML as the agent gets it.
    pub text: String,
}

/// A policy without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Its category.
    pub category: String,
    /// Its name.
    pub name: String,
    /// Bytes of its body.
    pub bytes: u64,
    /// SHA-256 of its body.
    pub sha256: String,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// The shape.
    pub schema: u32,
    /// The policies, by category and name.
    pub policies: Vec<PolicyRow>,
}

/// Which policy is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyAsk {
    /// `CATEGORY/NAME`.
    pub name: String,
}

/// A policy with its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyShown {
    /// The shape.
    pub schema: u32,
    /// What it is.
    pub policy: PolicyRow,
    /// Its body, as text.
    pub body: String,
}

/// Changes how handlers are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateAsk {
    /// A handler or a group.
    pub name: String,
    /// `active`, `draining` or `disabled`.
    pub state: String,
}

/// Has nodes do something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderAsk {
    /// `purge` or `warm`.
    pub kind: String,
    /// A handler, a group, or a node.
    pub on: String,
    /// What exactly: the body that `/v1/purge` or `/v1/warm` takes.
    #[serde(default)]
    pub ask: Value,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTold {
    /// The shape.
    pub schema: u32,
    /// What names it.
    pub id: String,
    /// Each node.
    pub nodes: Vec<NodeOutcome>,
}

/// What became of it at one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOutcome {
    /// The node.
    pub node: String,
    /// `waiting`, `done`, `failed` or `expired`.
    pub state: String,
    /// In words.
    pub text: String,
}

/// A node that knows the fleet's documents.
pub trait DocumentsOperator: Send + Sync {
    /// The handlers.
    ///
    /// # Errors
    /// Nothing is in force yet.
    fn handlers(&self) -> Result<Handlers, ApiError>;

    /// An agent's sitelist.
    ///
    /// # Errors
    /// Nothing is in force yet, or that is no agent.
    fn sitelist(&self, ask: &AgentAsk) -> Result<SitelistShown, ApiError>;

    /// Why an agent gets what it gets.
    ///
    /// # Errors
    /// As [`DocumentsOperator::sitelist`].
    fn explain_agent(&self, ask: &AgentAsk) -> Result<Value, ApiError>;

    /// The policies.
    ///
    /// # Errors
    /// Nothing is in force yet.
    fn policies(&self) -> Result<Policies, ApiError>;

    /// One of them.
    ///
    /// # Errors
    /// It is not there.
    fn policy(&self, ask: &PolicyAsk) -> Result<PolicyShown, ApiError>;

    /// Changes how handlers are.
    fn set_state(&self, ask: StateAsk) -> Soon<'_, Done>;

    /// Has nodes do something.
    fn order(&self, ask: OrderAsk) -> Soon<'_, OrderTold>;

    /// What became of it.
    fn ordered<'a>(&'a self, id: &'a str) -> Soon<'a, OrderTold>;
}

pub(super) type Told = Result<Response, ApiError>;

pub(super) async fn handlers(State(node): Node) -> Told {
    json(&node.documents()?.handlers()?)
}

pub(super) async fn sitelist(State(node): Node, Ask(ask): Ask<AgentAsk>) -> Told {
    json(&node.documents()?.sitelist(&ask)?)
}

pub(super) async fn explain(State(node): Node, Ask(ask): Ask<AgentAsk>) -> Told {
    json(&node.documents()?.explain_agent(&ask)?)
}

pub(super) async fn policies(State(node): Node) -> Told {
    json(&node.documents()?.policies()?)
}

pub(super) async fn policy(State(node): Node, Ask(ask): Ask<PolicyAsk>) -> Told {
    json(&node.documents()?.policy(&ask)?)
}

pub(super) async fn set_state(_: AsOperator, State(node): Node, Input(ask): Input<StateAsk>) -> Told {
    json(&node.documents()?.set_state(ask).await?)
}

pub(super) async fn order(_: AsOperator, State(node): Node, Input(ask): Input<OrderAsk>) -> Told {
    json(&node.documents()?.order(ask).await?)
}

pub(super) async fn ordered(State(node): Node, Path(id): Path<String>) -> Told {
    json(&node.documents()?.ordered(&id).await?)
}

fn of(example: &impl Serialize) -> Value {
    serde_json::to_value(example).unwrap_or_default()
}

/// An example of each type, for the document of the API.
pub(super) fn examples() -> Vec<(&'static str, Value)> {
    let text = || Some("x".to_owned());
    let handler = HandlerRow {
        name: "x".to_owned(),
        state: "active".to_owned(),
        internal: "x".to_owned(),
        external: text(),
        weight: 1,
        groups: vec!["x".to_owned()],
        seen: Some(1),
        waiting: 1,
    };
    let policy =
        PolicyRow { category: "x".to_owned(), name: "x".to_owned(), bytes: 1, sha256: "x".to_owned() };
    let outcome = NodeOutcome { node: "x".to_owned(), state: "done".to_owned(), text: "x".to_owned() };
    vec![
        ("Handlers", of(&Handlers { schema: SCHEMA, version: 1, handlers: vec![handler] })),
        ("AgentAsk", of(&AgentAsk { agent: "x".to_owned(), tree: text(), tags: text(), addresses: text() })),
        ("SitelistShown", of(&SitelistShown { schema: SCHEMA, tag: "x".to_owned(), text: "x".to_owned() })),
        ("Policies", of(&Policies { schema: SCHEMA, policies: vec![policy.clone()] })),
        ("PolicyAsk", of(&PolicyAsk { name: "x".to_owned() })),
        ("PolicyShown", of(&PolicyShown { schema: SCHEMA, policy, body: "x".to_owned() })),
        ("StateAsk", of(&StateAsk { name: "x".to_owned(), state: "draining".to_owned() })),
        ("OrderAsk", of(&OrderAsk { kind: "purge".to_owned(), on: "x".to_owned(), ask: Value::Null })),
        ("OrderTold", of(&OrderTold { schema: SCHEMA, id: "x".to_owned(), nodes: vec![outcome] })),
    ]
}
