//! Watching a job: bars on a terminal, nothing elsewhere until its one line at the end.

use std::collections::HashMap;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::GlobalArgs;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::print;
use crate::admin::api::{Job, JobState};
use crate::base::size::render_size;

const EVERY: Duration = Duration::from_millis(250);

/// Looks at the job until it has ended, and tells how.
pub(super) async fn watch(client: &Client, global: &GlobalArgs, first: Job) -> anyhow::Result<Exit> {
    let mut bars = (stderr().is_terminal() && !global.quiet && !global.wants_json()).then(Bars::new);
    let path = format!("/v1/jobs/{}", first.id);
    let mut job = first;
    while job.state == JobState::Running {
        if let Some(bars) = &mut bars {
            bars.show(&job);
        }
        tokio::time::sleep(EVERY).await;
        job = client.get(&path).await?;
    }
    if let Some(bars) = bars {
        bars.all.clear()?;
    }
    finish(global, &job)
}

/// Tells how a job ended.
pub(super) fn finish(global: &GlobalArgs, job: &Job) -> anyhow::Result<Exit> {
    print::answer(global, job, || if global.quiet { String::new() } else { format!("{}\n", summary(job)) })?;
    for failed in &job.failed {
        super::talk::say(&format!("  {}: {}", print::printable(&failed.path), failed.why));
    }
    if job.failures > job.failed.len() as u64 {
        super::talk::say(&format!("  … and {} more", job.failures - job.failed.len() as u64));
    }
    Ok(match (job.state, job.kind.as_str()) {
        (JobState::Done, _) => Exit::Done,
        (JobState::Partly, "verify") => Exit::Unhealthy,
        (JobState::Partly, _) => Exit::Partly,
        (JobState::Cancelled, _) => {
            return Err(Failure::new(Exit::Failed, "the job was ended by an operator", "").into());
        }
        (JobState::Running, _) => Exit::Done,
    })
}

fn summary(job: &Job) -> String {
    let Job { finished, changed, failures, .. } = job;
    let bytes = render_size(job.bytes);
    let time = print::time(job.seconds);
    if job.kind == "verify" {
        let blocks = print::many(*finished, "block");
        let repaired = if *changed > 0 { format!(", {changed} repaired") } else { String::new() };
        return format!("verified {blocks}, {bytes}{repaired}, {failures} damaged, in {time}");
    }
    let there = finished - changed - failures;
    format!(
        "warmed {changed} of {} ({bytes} in {time}), {there} there already, {failures} missing",
        print::many(job.total, "file")
    )
}

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: HashMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("{msg:30!} [{bar:30}] {pos}/{len}"));
        Self { all, total, files: HashMap::new() }
    }

    fn show(&mut self, job: &Job) {
        self.total.set_length(job.total.max(job.finished));
        self.total.set_position(job.finished);
        self.total.set_message(format!("job {}, {}", job.id, render_size(job.bytes)));
        self.files.retain(|path, bar| {
            let runs = job.running.iter().any(|item| item.path == *path);
            if !runs {
                bar.finish_and_clear();
            }
            runs
        });
        for item in &job.running {
            let bar = self.files.entry(item.path.clone()).or_insert_with(|| {
                let bar = self.all.add(ProgressBar::new(0));
                bar.set_style(style("{msg:30!} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"));
                bar.set_message(print::printable(&item.path));
                bar
            });
            bar.set_length(item.length.unwrap_or(item.bytes));
            bar.set_position(item.bytes);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
