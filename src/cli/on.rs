//! `--on HANDLER|GROUP`: has other nodes do something, and says what became of it, a line a node.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::args::GlobalArgs;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::{print, talk};
use crate::admin::documents::{NodeOutcome, OrderAsk, OrderTold};

/// Between two looks at what became of it.
const EVERY: Duration = Duration::from_millis(300);

/// Has nodes do it, and waits for all of them, at most for the time of `--timeout`.
pub(super) async fn run(
    kind: &str,
    (on, ask): (&str, &impl Serialize),
    wait: bool,
    global: &GlobalArgs,
) -> anyhow::Result<Exit> {
    let client = Client::new(global)?;
    let ask = OrderAsk { kind: kind.to_owned(), on: on.to_owned(), ask: serde_json::to_value(ask)? };
    let mut told: OrderTold = client.post("/v1/orders", &ask).await?;
    let path = format!("/v1/orders/{}", told.id);
    let until = tokio::time::Instant::now() + global.timeout;
    let mut said = BTreeSet::new();
    let quiet = global.quiet || global.wants_json();
    loop {
        if !quiet {
            for outcome in told.nodes.iter().filter(|it| it.state != "waiting") {
                if said.insert(outcome.node.clone()) {
                    talk::data(&line(outcome))?;
                }
            }
        }
        let waiting = told.nodes.iter().any(|it| it.state == "waiting");
        if !waiting || !wait || tokio::time::Instant::now() >= until {
            break;
        }
        tokio::time::sleep(EVERY).await;
        told = client.get(&path).await?;
    }
    if quiet {
        print::answer(global, &told, String::new)?;
    } else {
        for outcome in told.nodes.iter().filter(|it| it.state == "waiting") {
            talk::data(&line(outcome))?;
        }
        if told.nodes.iter().any(|it| it.state == "waiting") {
            talk::say(&format!("GET {path} of this node's admin API says later what became of it"));
        }
    }
    Ok(exit(&told))
}

fn line(outcome: &NodeOutcome) -> String {
    let NodeOutcome { node, state, text } = outcome;
    let text = if state == "waiting" { "it will when it comes" } else { text.as_str() };
    format!("{}  {state}  {}\n", print::printable(node), print::printable(text))
}

/// Where one has not done it, it is partly done; where none has, it is not.
fn exit(told: &OrderTold) -> Exit {
    let done = told.nodes.iter().filter(|it| it.state == "done").count();
    let failed = told.nodes.iter().filter(|it| matches!(it.state.as_str(), "failed" | "expired")).count();
    if done == told.nodes.len() {
        Exit::Done
    } else if failed == told.nodes.len() {
        Exit::Failed
    } else {
        Exit::Partly
    }
}

/// What cannot be said together with `--on`.
pub(super) fn refuse(what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("--on does not go together with {what}"), "leave one of them out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_whether_all_some_or_none_have_done_it() {
        let told = |states: &[&str]| {
            let nodes = states.iter().map(|state| NodeOutcome {
                node: "a".to_owned(),
                state: (*state).to_owned(),
                text: String::new(),
            });
            exit(&OrderTold { schema: 1, id: "1".to_owned(), nodes: nodes.collect() })
        };
        assert_eq!(told(&["done", "done"]), Exit::Done);
        assert_eq!(told(&["done", "waiting"]), Exit::Partly);
        assert_eq!(told(&["waiting"]), Exit::Partly);
        assert_eq!(told(&["failed", "done"]), Exit::Partly);
        assert_eq!(told(&["failed", "expired"]), Exit::Failed);
    }
}
