//! What the story says: a line for each thing that was seen, whether it is as it should be, and the table at the end.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::demo::Options;
use crate::demo::print::{BOLD, GREEN, PLAIN, RED, heading, say};

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Check {
    what: String,
    held: bool,
    /// Whether it is about time: a machine that is too busy may miss it.
    timed: bool,
}

/// A line of the table at the end.
#[derive(Clone, Debug)]
struct Row {
    promise: &'static str,
    promised: String,
    happened: String,
    held: bool,
    timed: bool,
}

/// Tells, and remembers.
#[derive(Debug)]
pub(super) struct Teller {
    /// JSON at the end in place of the story.
    quiet: bool,
    checks: Vec<Check>,
    rows: Vec<Row>,
}

impl Teller {
    pub(super) const fn new(quiet: bool) -> Self {
        Self { quiet, checks: Vec::new(), rows: Vec::new() }
    }

    pub(super) fn line(&self, text: &str) -> anyhow::Result<()> {
        if self.quiet { Ok(()) } else { say(text) }
    }

    pub(super) fn act(&self, title: &str) -> anyhow::Result<()> {
        self.line(&heading(title))
    }

    /// What somebody would type to see the same.
    pub(super) fn command(&self, words: &str) -> anyhow::Result<()> {
        self.line(&format!("           $ waypost {words}"))
    }

    /// Says whether something is as it should be.
    pub(super) fn check(&mut self, held: bool, what: String) -> anyhow::Result<()> {
        self.judge(Check { what, held, timed: false })
    }

    /// The same about something that has to be done in time.
    pub(super) fn check_time(&mut self, held: bool, what: String) -> anyhow::Result<()> {
        self.judge(Check { what, held, timed: true })
    }

    fn judge(&mut self, check: Check) -> anyhow::Result<()> {
        let word = if check.held { format!("{GREEN}ok{PLAIN}    ") } else { format!("{RED}FAILED{PLAIN}") };
        let line = format!("   {word}  {}", check.what);
        self.checks.push(check);
        self.line(&line)
    }

    /// Notes a line of the table.
    pub(super) fn promise(&mut self, promise: &'static str, promised: &str, happened: String, held: bool) {
        self.rows.push(Row { promise, promised: promised.to_owned(), happened, held, timed: false });
    }

    /// Notes how long something took that is to take `most`.
    pub(super) fn promise_time(&mut self, promise: &'static str, most: Duration, took: Duration, held: bool) {
        let promised = format!("within {} s", most.as_secs());
        let happened = format!("{:.1} s", took.as_secs_f64());
        self.rows.push(Row { promise, promised, happened, held: held && took <= most, timed: true });
    }

    pub(super) fn held(&self) -> bool {
        self.checks.iter().all(|check| check.held) && self.rows.iter().all(|row| row.held)
    }

    /// The table and what it comes to; or all of it as JSON.
    pub(super) fn close(&self, options: &Options, took: Duration) -> anyhow::Result<()> {
        if self.quiet {
            return say(&format!("{:#}", self.json(options, took)));
        }
        say(&self.table(took))
    }

    fn table(&self, took: Duration) -> String {
        let mut text = heading("   What is promised                      promised    what happened");
        for Row { promise, promised, happened, held, .. } in &self.rows {
            let (paint, word) = if *held { ("", "") } else { (RED, "  FAILED") };
            let _ = write!(text, "\n   {paint}{promise:<38}{promised:<12}{happened}{word}{PLAIN}");
        }
        let failed = self.checks.iter().filter(|check| !check.held).count();
        let (all, seconds) = (self.checks.len(), took.as_secs());
        let _ = match (failed, self.held()) {
            (_, true) => write!(text, "\n\n   {GREEN}All {all} checks passed{PLAIN}, in {seconds} s."),
            (failed, _) => write!(text, "\n\n   {RED}{BOLD}{failed} of {all} checks FAILED.{PLAIN}"),
        };
        text
    }

    fn json(&self, options: &Options, took: Duration) -> Value {
        let checks =
            |Check { what, held, timed }: &Check| json!({ "what": what, "held": held, "timed": timed });
        let rows = |Row { promise, promised, happened, held, timed }: &Row| {
            json!({
                "promise": promise, "promised": promised, "happened": happened, "held": held, "timed": timed,
            })
        };
        json!({
            "schema": 1,
            "story": "fleet",
            "agents": options.agents,
            "size": options.size,
            "wan": options.wan,
            "seconds": took.as_secs_f64(),
            "held": self.held(),
            "checks": self.checks.iter().map(checks).collect::<Vec<_>>(),
            "promises": self.rows.iter().map(rows).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_hold_fails_the_story_and_is_said() {
        let mut teller = Teller::new(false);
        teller.check(true, "a".to_owned()).unwrap();
        teller.promise("wrong bytes", "0", "0".to_owned(), true);
        assert!(teller.held());
        assert!(teller.table(Duration::from_secs(30)).contains("All 1 checks passed"));
        teller.promise_time("fallback", Duration::from_secs(5), Duration::from_secs(6), true);
        assert!(!teller.held());
        let table = teller.table(Duration::from_secs(30));
        assert!(table.contains("within 5 s  6.0 s  FAILED"), "{table}");
        let told = teller.json(&Options::default(), Duration::from_secs(30));
        assert_eq!(told["held"], false);
        assert_eq!(told["promises"][1]["timed"], true);
    }
}
