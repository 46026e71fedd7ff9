//! The fleet's documents for operators: what they say about an agent, and what nodes are to do.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;

use super::fault;
use super::operator::NodeOperator;
use crate::admin::api::{Done, JobState, PurgeAsk, SCHEMA, WarmAsk};
use crate::admin::documents::{
    AgentAsk, DocumentsOperator, HandlerRow, Handlers, NodeOutcome, OrderAsk, OrderTold, Policies, PolicyAsk,
    PolicyRow, PolicyShown, SitelistShown, StateAsk,
};
use crate::admin::{ApiError, Code, Operator as _, Soon};
use crate::base::limits::COMMAND_BYTES;
use crate::base::size::render_size;
use crate::control::{FleetSide, NotInForce, Order, OutcomeState, Snapshot, Work, Worker};
use crate::fleet::{AgentId, Facts, Policy, State, TreePath};

/// How often a job of this node is looked at until it has ended.
const LOOK: Duration = Duration::from_millis(200);

impl NodeOperator {
    pub(super) fn fleet(&self) -> Result<&FleetSide, ApiError> {
        self.fleet.as_ref().ok_or_else(|| {
            ApiError::not_found(
                "this node has nothing to do with the fleet's documents",
                "give it [control] with a directory or an upstream",
            )
        })
    }

    fn in_force(&self) -> Result<(&FleetSide, Arc<Snapshot>), ApiError> {
        let fleet = self.fleet()?;
        let Some(snapshot) = fleet.snapshot() else {
            let why = fleet.board().trouble().map(|trouble| trouble.text);
            let message = "this node has no fleet documents yet";
            return Err(ApiError::new(
                Code::Busy,
                message,
                why.unwrap_or_else(|| "wait for them".to_owned()),
            ));
        };
        Ok((fleet, snapshot))
    }

    /// Looks at the documents' directory, where this is the authority.
    pub(super) async fn look_at_documents(&self, dry_run: bool) -> Result<bool, ApiError> {
        let Some(fleet) = self.fleet.clone() else { return Ok(false) };
        let looked = tokio::task::spawn_blocking(move || fleet.look(dry_run)).await;
        match looked {
            Ok(None) => Ok(false),
            Ok(Some(Ok(look))) => Ok(look != crate::control::Look::Same),
            Ok(Some(Err(error))) => Err(not_in_force(&error)),
            Err(_) => Err(broken()),
        }
    }
}

fn broken() -> ApiError {
    ApiError::new(Code::Failed, "the work broke off", "report this defect")
}

fn not_in_force(error: &NotInForce) -> ApiError {
    let help = "nothing was changed; repair the documents (waypost policy check DIR) and reload again";
    match error {
        NotInForce::Invalid(_) => ApiError::new(Code::ConfigInvalid, error.to_string(), help),
        _ => ApiError::new(Code::Failed, error.to_string(), "look at [control] state_dir"),
    }
}

/// The agent that is asked about.
fn facts(fleet: &FleetSide, ask: &AgentAsk) -> Result<Facts, ApiError> {
    let wrong = |error: &dyn std::fmt::Display| fault::bad(error.to_string(), "waypost explain --agent ID");
    let id = AgentId::parse(&ask.agent).map_err(|error| wrong(&error))?;
    let mut facts = fleet.known(&id).unwrap_or_else(|| Facts::of(id));
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    };
    if let Some(tree) = &ask.tree {
        facts.tree = Some(TreePath::parse(tree).map_err(|error| wrong(&error))?);
    }
    if let Some(tags) = &ask.tags {
        facts.tags = list(tags);
    }
    if let Some(addresses) = &ask.addresses {
        let parsed = list(addresses).into_iter().map(|text| {
            text.parse().map_err(|_| fault::bad(format!("`{text}` is no address"), "write it like 10.1.2.3"))
        });
        facts.addresses = parsed.collect::<Result<_, _>>()?;
    }
    Ok(facts)
}

impl DocumentsOperator for NodeOperator {
    fn handlers(&self) -> Result<Handlers, ApiError> {
        let (fleet, snapshot) = self.in_force()?;
        let nodes: BTreeMap<String, _> =
            fleet.nodes().into_iter().map(|(node, at, waiting)| (node, (at, waiting))).collect();
        let row = |handler: &crate::fleet::Handler| {
            let (seen, waiting) = nodes.get(&handler.name).copied().unwrap_or((None, 0));
            let in_group = |group: &&crate::fleet::Group| group.members.contains(&handler.name);
            let groups = snapshot.fleet.groups().iter().filter(in_group);
            HandlerRow {
                name: handler.name.clone(),
                state: handler.state.as_str().to_owned(),
                internal: handler.internal.clone(),
                external: handler.external.clone(),
                weight: handler.weight,
                groups: groups.map(|group| group.name.clone()).collect(),
                seen: seen.map(|at| at.0 / 1_000),
                waiting,
            }
        };
        let handlers = snapshot.fleet.handlers().iter().map(row).collect();
        Ok(Handlers { schema: SCHEMA, version: snapshot.bundle.index().version, handlers })
    }

    fn sitelist(&self, ask: &AgentAsk) -> Result<SitelistShown, ApiError> {
        let (fleet, _) = self.in_force()?;
        let sheet = fleet.sitelist(&facts(fleet, ask)?).ok_or_else(broken)?;
        Ok(SitelistShown { schema: SCHEMA, tag: sheet.tag, text: sheet.text })
    }

    fn explain_agent(&self, ask: &AgentAsk) -> Result<Value, ApiError> {
        let (fleet, snapshot) = self.in_force()?;
        let explanation = snapshot.fleet.explain(&facts(fleet, ask)?);
        let mut value = serde_json::to_value(explanation).map_err(|_| broken())?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("schema".to_owned(), SCHEMA.into());
            fields.insert("version".to_owned(), snapshot.bundle.index().version.into());
        }
        Ok(value)
    }

    fn policies(&self) -> Result<Policies, ApiError> {
        let (_, snapshot) = self.in_force()?;
        let policies = snapshot.fleet.all_policies().iter().map(row).collect();
        Ok(Policies { schema: SCHEMA, policies })
    }

    fn policy(&self, ask: &PolicyAsk) -> Result<PolicyShown, ApiError> {
        let (_, snapshot) = self.in_force()?;
        let named = ask.name.split_once('/');
        let found = named.and_then(|(category, name)| snapshot.fleet.policy_named(category, name));
        let Some(policy) = found else {
            let message = format!("there is no policy {}", ask.name);
            return Err(ApiError::not_found(message, "waypost policy ls lists them: CATEGORY/NAME"));
        };
        let body = String::from_utf8_lossy(&policy.body).into_owned();
        Ok(PolicyShown { schema: SCHEMA, policy: row(policy), body })
    }

    fn set_state(&self, ask: StateAsk) -> Soon<'_, Done> {
        Box::pin(async move {
            let (fleet, snapshot) = self.in_force()?;
            let Some(state) = State::parse(&ask.state) else {
                return Err(fault::bad("that is no state", "active, draining or disabled"));
            };
            if let Some(upstream) = fleet.upstream() {
                let help = format!("say it there: the documents come from {upstream}");
                return Err(ApiError::new(Code::BadRequest, "this node is not the authority", help));
            }
            let Some(members) = snapshot.fleet.members(&ask.name) else { return Err(unknown(&ask.name)) };
            let differ = members.into_iter().filter(|handler| handler.state != state);
            let handlers: Vec<String> = differ.map(|handler| handler.name.clone()).collect();
            if handlers.is_empty() {
                return Ok(Done::NOTHING);
            }
            let fleet = fleet.clone();
            let done = tokio::task::spawn_blocking(move || fleet.set_states(&handlers, state)).await;
            match done {
                Ok(Some(Ok(_))) => Ok(Done::CHANGED),
                Ok(Some(Err(error))) => Err(not_in_force(&error)),
                Ok(None) | Err(_) => Err(broken()),
            }
        })
    }

    fn order(&self, ask: OrderAsk) -> Soon<'_, OrderTold> {
        Box::pin(async move {
            let fleet = self.fleet()?.clone();
            check_order(&ask)?;
            let nodes = fleet.nodes_of(&ask.on);
            if nodes.is_empty() {
                return Err(unknown(&ask.on));
            }
            let given = tokio::task::spawn_blocking(move || {
                let id = fleet.give(&ask.kind, ask.ask, nodes);
                fleet.order(&id)
            });
            given.await.ok().flatten().map(told).ok_or_else(broken)
        })
    }

    fn ordered<'a>(&'a self, id: &'a str) -> Soon<'a, OrderTold> {
        Box::pin(async move {
            let (fleet, name) = (self.fleet()?.clone(), id.to_owned());
            let order = tokio::task::spawn_blocking(move || fleet.order(&name)).await.ok().flatten();
            order.map(told).ok_or_else(|| {
                let help = "they are remembered until the node is started again, the last 256";
                ApiError::not_found(format!("no order {id} was given here"), help)
            })
        })
    }
}

fn unknown(name: &str) -> ApiError {
    let help = "waypost handlers ls lists handlers and their groups";
    ApiError::not_found(format!("there is no handler, group or node `{name}`"), help)
}

/// Whether nodes will understand it: better said here than by each of them.
fn check_order(ask: &OrderAsk) -> Result<(), ApiError> {
    let wrong = |error: serde_json::Error| fault::bad(format!("`ask`: {error}"), "see /v1/openapi.json");
    match ask.kind.as_str() {
        "purge" => drop(serde_json::from_value::<PurgeAsk>(ask.ask.clone()).map_err(wrong)?),
        "warm" => drop(serde_json::from_value::<WarmAsk>(ask.ask.clone()).map_err(wrong)?),
        _ => return Err(fault::bad("nodes do not understand that", "purge or warm")),
    }
    if ask.ask.to_string().len() > COMMAND_BYTES {
        let message = format!("it has more than {} KiB", COMMAND_BYTES >> 10);
        return Err(ApiError::new(Code::TooLarge, message, "use fewer, wider patterns"));
    }
    Ok(())
}

fn row(policy: &Policy) -> PolicyRow {
    PolicyRow {
        category: policy.category.clone(),
        name: policy.name.clone(),
        bytes: policy.body.len() as u64,
        sha256: policy.sha256.to_string(),
    }
}

fn told(order: Order) -> OrderTold {
    let outcome = |it: crate::control::Outcome| {
        let state = match it.state {
            OutcomeState::Waiting => "waiting",
            OutcomeState::Done => "done",
            OutcomeState::Failed => "failed",
            OutcomeState::Expired => "expired",
        };
        NodeOutcome { node: it.node, state: state.to_owned(), text: it.text }
    };
    OrderTold { schema: SCHEMA, id: order.id, nodes: order.nodes.into_iter().map(outcome).collect() }
}

/// Does what the fleet tells this node.
pub(super) struct NodeWorker(pub(super) Weak<NodeOperator>);

impl Worker for NodeWorker {
    fn work(&self, kind: String, ask: Value) -> Work {
        let node = self.0.upgrade();
        Box::pin(async move {
            let node = node.ok_or_else(|| "the node is ending".to_owned())?;
            match kind.as_str() {
                "purge" => purge(&node, ask).await,
                "warm" => warm(&node, ask).await,
                "wake" => node.view.wake_ordered(&ask),
                "forget" => node.view.forget_ordered(&ask),
                _ => Err(format!("this node does not understand `{kind}`")),
            }
        })
    }
}

async fn purge(node: &Arc<NodeOperator>, ask: Value) -> Result<String, String> {
    let ask: PurgeAsk = serde_json::from_value(ask).map_err(|error| error.to_string())?;
    let reached = node.purge(ask).await.map_err(|error| error.to_string())?;
    Ok(format!("{} entries, {}", reached.entries, render_size(reached.bytes)))
}

async fn warm(node: &Arc<NodeOperator>, ask: Value) -> Result<String, String> {
    let ask: WarmAsk = serde_json::from_value(ask).map_err(|error| error.to_string())?;
    let mut job = node.warm(ask).await.map_err(|error| error.to_string())?;
    while job.state == JobState::Running {
        tokio::time::sleep(LOOK).await;
        job = node.jobs.told(job.id).ok_or_else(|| "the job was forgotten".to_owned())?;
    }
    let text = format!("{} of {} files, {}", job.finished, job.total, render_size(job.bytes));
    match job.state {
        JobState::Done if job.failures == 0 => Ok(text),
        _ => Err(format!("{text}, {} failed", job.failures)),
    }
}
