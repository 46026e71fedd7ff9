//! The agent's updates: when one begins, and what becomes of it.

use std::time::Duration;

use super::Life;
use crate::agent::core::{Agent, uptime};
use crate::agent::desk::Done;
use crate::agent::updater::{Report, Updater};
use crate::agent::{pace, update};

impl Life {
    pub(super) fn update_if_due(&mut self, agent: &mut Agent) {
        let now = uptime();
        if now >= self.update_at && self.update.is_none() {
            self.start_update(agent, now);
        }
    }

    pub(super) fn start_update(&mut self, agent: &mut Agent, now: Duration) {
        let interval = agent.options.update_interval;
        let draw = agent.draw();
        self.update_at = now + pace::regular(interval, agent.state.seed(), draw);
        if agent.options.updates.is_empty() {
            return;
        }
        let sources: Vec<_> =
            agent.options.updates.iter().map(|it| (it.name.clone(), agent.sources(it))).collect();
        if sources.iter().all(|(_, sources)| sources.is_empty()) {
            return;
        }
        let Some(mut updater) = agent.updater.take() else { return };
        self.update = Some(tokio::spawn(async move {
            let of = |options: &update::Options| {
                let found = sources.iter().find(|(name, _)| *name == options.name);
                found.map(|(_, sources)| sources.clone()).unwrap_or_default()
            };
            let reports = updater.run(of).await;
            (updater, reports)
        }));
    }

    pub(super) fn finish_update(&mut self, agent: &mut Agent, done: Option<(Updater, Vec<Report>)>) {
        let now = uptime();
        match done {
            Some((updater, reports)) => {
                if reports.iter().any(|report| !report.is_done()) {
                    let (pace, seed) = (agent.options.pace, agent.state.seed());
                    let wait = pace::retry(pace.retry_first, pace.retry_most, self.update_misses, seed);
                    self.update_misses = self.update_misses.saturating_add(1);
                    self.update_at = self.update_at.min(now + wait);
                } else {
                    self.update_misses = 0;
                }
                agent.updated(updater, reports);
            }
            // It panicked, and its directories with it: they are opened anew.
            None => match Updater::open(agent.link.another(), agent.options.updates.clone()) {
                Ok(updater) => agent.updated(updater, Vec::new()),
                Err(error) => tracing::error!(%error, "the directories of the updates cannot be used"),
            },
        }
        for tell in std::mem::take(&mut self.waiting) {
            let done = Done { status: self.status(agent), error: None, reports: agent.reports.clone() };
            drop(tell.send(done));
        }
    }
}
