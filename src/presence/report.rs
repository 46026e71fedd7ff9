//! Reports to the node above: who has changed, and the answer of who is elsewhere.
//!
//! A report is a piece of the spool: agents as they are now, in the order in which they changed, up to a number. It is
//! sent again until it is acknowledged, and taking it twice is the same as taking it once: of two records of an agent
//! the newer is kept, and of its check-ins those are counted that its node had not told of before. A check-in is
//! therefore counted once, wherever the agent goes next, and an agent is in one place.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::AgentId;
use super::agent::Agent;
use super::ledger::{LedgerError, Row};
use super::plane::Presence;
use super::registry::{Taken, Teller};

/// Agents of one report.
const AGENTS: usize = 512;

/// Bytes of a report at most: one agent may push it over the size at which it is full.
pub const REPORT_BYTES: usize = 2 << 20;

/// `POST /node/v1/reports`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Drawn when the spool was made: numbers of different spools are not compared.
    pub spool: u64,
    /// The number of its last agent.
    pub last: u64,
    /// The agents.
    pub agents: Vec<Agent>,
    /// Agents that were forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<Forgotten>,
}

/// An agent that was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Which.
    pub id: AgentId,
    /// The node below the one that reports that it talked to; nothing if it talked to that one. At another node it is
    /// known still.
    #[serde(default)]
    pub handler: Option<String>,
}

/// The answer to a report: durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The number up to which everything has been taken.
    pub acknowledged: u64,
    /// Agents that are at another handler.
    #[serde(default)]
    pub moved: Vec<AgentId>,
}

impl Presence {
    /// The next report, or nothing where everything is acknowledged.
    ///
    /// # Errors
    /// The disk could not be read; try again.
    pub async fn next_report(&self) -> Result<Option<Report>, String> {
        let spooled = self.ledger.spooled(AGENTS).await.map_err(|error| error.to_string())?;
        self.metrics.unreported.set(spooled.waiting);
        let forgotten =
            spooled.forgotten.into_iter().map(|(id, handler)| Forgotten { id, handler }).collect();
        let report = Report { spool: spooled.spool, last: spooled.last, agents: spooled.agents, forgotten };
        Ok((spooled.waiting > 0).then_some(report))
    }

    /// The node above has answered.
    ///
    /// # Errors
    /// The disk could not be written; the report will be sent again.
    pub async fn report_answered(&self, answer: Reported) -> Result<(), String> {
        let written = {
            let mut inner = self.inner.lock();
            let now = self.clock.now();
            for id in answer.moved {
                // One that is connected here has come back meanwhile.
                let left = |agent: &Agent| agent.handler.is_none() && agent.link.is_none();
                if inner.registry.agent(&id).is_some_and(left) {
                    let effects = inner.registry.moved(&id, now);
                    self.bring_about(&mut inner, effects);
                }
            }
            self.ledger.write(vec![Row::Told(answer.acknowledged)])
        };
        finish(written).await
    }

    /// A node below reports.
    ///
    /// # Errors
    /// The disk could not be written; nothing is acknowledged, and it will report again.
    pub async fn take_report(self: &Arc<Self>, node: &str, report: Report) -> Result<Reported, String> {
        let Report { spool, last, agents, forgotten } = report;
        let mut moved = Vec::new();
        let written = {
            let mut inner = self.inner.lock();
            let now = self.clock.now();
            let mut rows = Vec::new();
            // A question that was given up may still arrive behind the next one.
            let heard = inner.nodes.get(node).filter(|(of, _)| *of == spool).map(|(_, last)| *last);
            let overtaken = heard.is_some_and(|heard| last < heard);
            for mut agent in agents {
                let id = agent.id.clone();
                agent.handler.get_or_insert_with(|| node.to_owned());
                let (taken, effects) = inner.registry.reported(agent, Teller { node, overtaken }, now);
                self.bring_about(&mut inner, effects);
                let Some(known) = inner.registry.agent(&id).cloned() else { continue };
                match taken {
                    Taken::Whole => drop(inner.wakes.answered(&id, known.checked_in)),
                    Taken::Count | Taken::Not => moved.push(id.clone()),
                }
                if taken != Taken::Not {
                    inner.written(&id);
                    rows.push(Row::Agent(Box::new(known)));
                }
            }
            if !overtaken {
                for Forgotten { id, handler } in forgotten {
                    let handler = handler.unwrap_or_else(|| node.to_owned());
                    let known = inner.registry.agent(&id).and_then(|agent| agent.handler.as_ref());
                    if known == Some(&handler) {
                        rows.extend(self.drop_agent(&mut inner, &id));
                    }
                }
                inner.nodes.insert(node.to_owned(), (spool, last));
                rows.push(Row::Heard(node.to_owned(), spool, last));
            }
            self.ledger.write(rows)
        };
        finish(written).await?;
        Ok(Reported { acknowledged: last, moved })
    }
}

async fn finish(written: Result<super::ledger::Durable, LedgerError>) -> Result<(), String> {
    match written {
        Ok(written) => written.wait().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
