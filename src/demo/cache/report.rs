//! What the demo says: measured figures only, and for every claim whether it held.

use std::fmt::Write as _;

use super::content::CATALOGUE;
use super::scene::{DELAY, Scene};
use crate::base::size::render_size;
use crate::demo::print::{BOLD, GREEN, PLAIN, RED, heading, render_rate, render_time, time_for};

/// The figures of one act.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) what: String,
    /// Requests of agents.
    pub(super) asked: usize,
    /// Requests that reached headquarters.
    pub(super) wan_requests: usize,
    /// Bytes that crossed the WAN towards the branch, TLS and heads included.
    pub(super) wan_bytes: u64,
    /// Body bytes that agents got.
    pub(super) delivered: u64,
}

/// All figures and all claims so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
    held: usize,
    failed: Vec<String>,
}

impl Report {
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Notes whether a claim held and gives the line that says so.
    pub(super) fn check(&mut self, held: bool, claim: impl Into<String>) -> String {
        let claim = claim.into();
        if held {
            self.held += 1;
            return format!("   {GREEN}ok{PLAIN}      {claim}");
        }
        let line = format!("   {RED}FAILED{PLAIN}  {claim}");
        self.failed.push(claim);
        line
    }

    pub(super) const fn failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// The table, what it means, and whether all held.
    pub(super) fn closing(&self, scene: &Scene) -> String {
        let mut text = heading("Measured");
        let header = ["", "agents asked", "WAN requests", "over the WAN", "to the agents"];
        push_line(&mut text, header.map(str::to_owned));
        let mut sum = Row { what: "together".to_owned(), ..Row::default() };
        for row in &self.rows {
            sum.asked += row.asked;
            sum.wan_requests += row.wan_requests;
            sum.wan_bytes += row.wan_bytes;
            sum.delivered += row.delivered;
            push_line(&mut text, cells(row));
        }
        push_line(&mut text, cells(&sum));
        let rate = scene.options.wan;
        let (with, without) = (time_for(sum.wan_bytes, rate), time_for(sum.delivered, rate));
        let saved = render_size(sum.delivered.saturating_sub(sum.wan_bytes));
        let _ = write!(
            text,
            "\n\n   {saved} never crossed the WAN: it was busy for {}; without the handler it would have been for {}.",
            render_time(with),
            render_time(without),
        );
        let count = self.held + self.failed.len();
        let _ = match self.failed.as_slice() {
            [] => write!(text, "\n   {GREEN}All {count} checks passed.{PLAIN}"),
            failed => {
                let failed = failed.iter().map(|claim| format!("\n   - {claim}")).collect::<String>();
                write!(text, "\n   {RED}{} of {count} checks FAILED:{PLAIN}{failed}", self.failed.len())
            }
        };
        text
    }
}

fn cells(row: &Row) -> [String; 5] {
    let Row { what, asked, wan_requests, wan_bytes, delivered } = row;
    [
        what.clone(),
        asked.to_string(),
        wan_requests.to_string(),
        render_size(*wan_bytes),
        render_size(*delivered),
    ]
}

fn push_line(text: &mut String, cells: [String; 5]) {
    let [what, asked, requests, wan, agents] = cells;
    let _ = write!(text, "\n   {what:<28}{asked:>14}{requests:>14}{wan:>14}{agents:>15}");
}

/// Who plays, and where.
pub(super) fn opening(scene: &Scene) -> String {
    let options = &scene.options;
    let (wan, round_trip) = (render_rate(options.wan), (DELAY * 2).as_millis());
    let (agents, url) = (options.agents, scene.url());
    let (near, far) = (scene.wan.address().port(), scene.witness.address().port());
    format!(
        "{BOLD}waypost demo{PLAIN}: a branch office with {agents} agents behind a thin WAN, on this machine\n\n   \
         master    made-up signatures and packages; what reaches it is written down at its door (port {far})\n   \
         WAN       {wan} each way, {round_trip} ms round trip; what crosses it is counted (port {near})\n   \
         handler   {url}\n   \
         agents    {agents}, each with a TLS connection of its own; each hashes what it gets"
    )
}

/// What to try on the handler that stays.
pub(super) fn invitation(scene: &Scene) -> String {
    let ca = scene.file("ca.pem");
    let (ca, url, dat) = (ca.display(), scene.url(), scene.content.dat.path);
    let title = heading("The handler is still running. Try, in another terminal:");
    format!(
        "{title}\n   curl --cacert {ca} {url}{CATALOGUE}\n   \
         curl --cacert {ca} -sD- -o /dev/null {url}{dat}\n   \
         curl --cacert {ca} -r 1000-1999 -s {url}{dat} | wc -c\n   \
         cat {}\n\n   Ctrl-C ends it.",
        scene.file("handler.toml").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_claim_fails_the_demo() {
        let mut report = Report::default();
        assert!(report.check(true, "a").contains("ok"));
        assert!(!report.failed());
        assert!(report.check(false, "b").contains("FAILED"));
        assert!(report.failed());
    }
}
