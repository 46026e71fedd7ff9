//! What has to be true when things have calmed down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use waypost::agent::Status;
use waypost::protocol::agent_api::Contact;

use crate::crowd::{Crowd, Member};
use crate::world::{Health, Node, World, has_exactly};

/// How long it may take to calm down: far more than it does on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(400);

/// Between two looks: one is some hundred questions.
const LOOK: Duration = Duration::from_millis(250);

/// After this time operators get impatient with those that are not right yet.
const IMPATIENCE: Duration = Duration::from_secs(40);

/// Who is to be where: the order of handlers of each agent, as the authority explains it.
pub(crate) type Orders = BTreeMap<String, Vec<String>>;

/// Waits until nothing is missing any more.
///
/// # Panics
/// It goes on for too long; says what is missing, and what the nodes say.
pub(crate) async fn settles(world: &World, what: &str, mut missing: impl AsyncFnMut() -> Vec<String>) {
    let began = Instant::now();
    let mut told = began;
    loop {
        let lacks = missing().await;
        if lacks.is_empty() {
            return;
        }
        if told.elapsed() > IMPATIENCE / 2 {
            told = Instant::now();
            let first: String = lacks.iter().flat_map(|lack| lack.chars()).take(400).collect();
            eprintln!("          {what}: {} are missing, such as {first}", lacks.len());
        }
        let first = lacks.iter().take(12).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            began.elapsed() < PATIENCE,
            "{what}: {} are missing:\n{first}\n{}",
            lacks.len(),
            world.logs()
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// The orders of all agents, from the authority.
pub(crate) async fn orders(world: &World, crowd: &Crowd) -> Orders {
    let of = async |member: &Member| {
        let told = world.nodes[0].ask(&format!("/v1/agents/explain?agent={}", member.id)).await;
        let handlers = told["handlers"].as_array().cloned().unwrap_or_default();
        let names = handlers.iter().filter_map(|it| it["name"].as_str().map(str::to_owned)).collect();
        (member.id.clone(), names)
    };
    let mut all = Orders::new();
    for some in crowd.0.chunks(32) {
        all.extend(join_all(some.iter().map(of)).await);
    }
    all
}

/// The handler that the rules give an agent: the first in its order that works.
fn due<'n>(world: &'n World, orders: &Orders, id: &str) -> &'n Node {
    let well = |name: &String| world.nodes.iter().find(|it| it.name == name && it.health == Health::Well);
    orders[id].iter().find_map(well).expect("one of them works")
}

/// Agents by handler, as the rules say.
pub(crate) fn spread(world: &World, orders: &Orders) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for id in orders.keys() {
        *counts.entry(due(world, orders, id).name).or_default() += 1;
    }
    counts
}

/// Every agent is where the rules say, has its line, and has what was published, byte by byte. Gives how often an
/// operator had to help: agents come right by themselves, but the next verification may be a minute away.
pub(crate) async fn agents_are_right(world: &World, crowd: &Crowd, orders: &Orders) -> usize {
    let published = world.published();
    let version = world.edition.number.to_string();
    let mut nudged = Instant::now();
    let mut nudges = 0;
    settles(world, "agents", async || {
        let statuses = crowd.statuses().await;
        let lacks = |member: &Member| {
            let Some(status) = statuses.get(&member.id) else { return Some("does not answer".to_owned()) };
            let due = due(world, orders, &member.id);
            if status.handler.as_ref() != Some(&due.address()) {
                let Status { handler, list, last_error, .. } = status;
                return Some(format!("is at {handler:?}, not at {}: {last_error:?} {list:?}", due.name));
            }
            if member.contact != Contact::Checkin && !status.channel_open {
                return Some("has no line".to_owned());
            }
            let has = status.content.get("dat");
            (has != Some(&version)).then(|| format!("has {has:?}, not {version}"))
        };
        let missing: Vec<(&Member, String)> =
            crowd.0.iter().filter_map(|it| lacks(it).map(|lack| (it, lack))).collect();
        if missing.is_empty() {
            let bytes = |it: &Member| has_exactly(&it.installed(), &published).err();
            return crowd.0.iter().filter_map(|it| Some(format!("{}: {}", it.id, bytes(it)?))).collect();
        }
        if nudged.elapsed() > IMPATIENCE {
            nudges += missing.len();
            crowd.nudge(&missing.iter().map(|(member, _)| &*member.id).collect()).await;
            nudged = Instant::now();
        }
        missing.into_iter().map(|(member, lack)| format!("{}: {lack}", member.id)).collect()
    })
    .await;
    nudges
}

/// What the node lists, by id; `false` stands for an agent that it lists twice.
async fn listed(node: &Node) -> (BTreeMap<String, Value>, bool) {
    let told = node.ask("/v1/agents?limit=10000").await;
    let rows = told["agents"].as_array().cloned().unwrap_or_default();
    let count = rows.len();
    let id = |row: &Value| row["id"].as_str().unwrap_or_default().to_owned();
    let all: BTreeMap<String, Value> = rows.into_iter().map(|row| (id(&row), row)).collect();
    let once = all.len() == count;
    (all, once)
}

/// The authority has every agent once, at the right handler and up to date; no two handlers have the same one; while
/// all nodes are well every check-in that was acknowledged is counted, and none twice.
pub(crate) async fn fleet_is_right(world: &World, crowd: &Crowd, orders: &Orders) {
    // An agent says what it has installed with its next check-in.
    let (rows, _) = listed(&world.nodes[0]).await;
    let version = |id: &str| rows.get(id).and_then(|row| row["content"]["Software/SiteStat.xml"].as_str());
    let newest = world.edition.number.to_string();
    crowd.look_again(|it| version(&it.id) != Some(&*newest)).await;
    let before = crowd.statuses().await;
    // What a handler has acknowledged and not told yet is told when it is back.
    let all_well = world.nodes.iter().all(|it| it.health == Health::Well);
    settles(world, "the authority's view", async || {
        let (rows, once) = listed(&world.nodes[0]).await;
        let mut missing = Vec::new();
        if !once || rows.len() != crowd.0.len() {
            missing.push(format!("{} agents are listed, each once: {once}", rows.len()));
        }
        for member in &crowd.0 {
            let row = rows.get(&member.id).unwrap_or(&Value::Null);
            let state = if member.contact == Contact::Checkin { "reporting" } else { "connected" };
            let told = ["state", "handler"].map(|name| row[name].as_str().unwrap_or_default());
            let due = due(world, orders, &member.id).name;
            let version = row["content"]["Software/SiteStat.xml"].as_str().unwrap_or_default();
            let counted = row["check_ins"].as_u64().unwrap_or_default();
            let acknowledged = before.get(&member.id).map_or(u64::MAX, |it| it.check_ins);
            let right = told == [state, due]
                && version == newest
                && row["behind"] == Value::Array(Vec::new())
                && row["tags"].as_array().is_some_and(|tags| tags.len() == 1)
                && (counted >= acknowledged || !all_well);
            if !right {
                missing.push(format!("{acknowledged} check-ins, {state} at {due}: {row}"));
            }
        }
        missing
    })
    .await;
    let (rows, _) = listed(&world.nodes[0]).await;
    let after = crowd.statuses().await;
    for (id, row) in &rows {
        let counted = row["check_ins"].as_u64().expect("a number");
        let sent = after[id].check_ins_sent;
        assert!(
            counted <= sent,
            "{id} has sent {sent} check-ins, and {counted} are counted\n{}",
            world.logs()
        );
        assert_eq!(row["cloned"], false, "{row}");
    }
    no_agent_is_at_two(world, crowd).await;
}

/// Handlers that work list nobody as connected who is connected elsewhere. A tunnel is silent for a minute before its
/// handler takes it for ended: those do not count.
async fn no_agent_is_at_two(world: &World, crowd: &Crowd) {
    let streams: BTreeSet<&str> =
        crowd.0.iter().filter(|it| it.contact == Contact::Stream).map(|it| &*it.id).collect();
    settles(world, "nobody is at two handlers", async || {
        let mut at: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for node in world.nodes.iter().filter(|it| it.health == Health::Well) {
            for (id, row) in listed(node).await.0 {
                if row["state"] == "connected" && row["handler"] == node.name && streams.contains(&*id) {
                    at.entry(id).or_default().push(node.name);
                }
            }
        }
        at.into_iter().filter(|(_, at)| at.len() > 1).map(|(id, at)| format!("{id} is at {at:?}")).collect()
    })
    .await;
}
