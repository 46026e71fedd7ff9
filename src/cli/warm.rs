//! `waypost warm`: begins a job on the node and watches it, or watches one that runs.

use super::args::GlobalArgs;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::operate_args::WarmArgs;
use super::{bars, on, print, purge, talk};
use crate::admin::api::{Job, WarmAsk};

/// Does it.
pub(super) async fn run(args: &WarmArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    if let Some(on) = &args.on {
        if args.dry_run {
            return Err(on::refuse("--dry-run").into());
        }
        return on::run("warm", (on, &ask(args)?), !args.detach, global).await;
    }
    let client = Client::new(global)?;
    if let Some(id) = args.job {
        let job = client.get(&format!("/v1/jobs/{id}")).await?;
        return bars::watch(&client, global, job).await;
    }
    let job: Job = client.post("/v1/warm", &ask(args)?).await?;
    if args.dry_run {
        return dry_run(global, &job);
    }
    if !global.quiet {
        talk::say(&format!(
            "job {}: it goes on without us; watch it again with waypost warm --job {}",
            job.id, job.id
        ));
    }
    if args.detach {
        print::answer(global, &job, || format!("{}\n", job.id))?;
        return Ok(Exit::Done);
    }
    bars::watch(&client, global, job).await
}

fn ask(args: &WarmArgs) -> Result<WarmAsk, Failure> {
    let patterns = purge::patterns(&args.patterns, args.from_file.as_deref())?;
    if patterns.is_empty() && !args.catalog {
        let help = "name paths, such as /Software/Current/avvdat.zip, --catalog, or --from-file";
        return Err(Failure::new(Exit::Usage, "nothing is named to be fetched", help));
    }
    let jobs = args.jobs.and_then(|jobs| usize::try_from(jobs).ok());
    Ok(WarmAsk { patterns, catalog: args.catalog, jobs, limit_rate: args.limit_rate, dry_run: args.dry_run })
}

fn dry_run(global: &GlobalArgs, job: &Job) -> anyhow::Result<Exit> {
    print::answer(global, job, || {
        let mut text: String =
            job.running.iter().map(|item| format!("{}\n", print::printable(&item.path))).collect();
        if job.changed > job.running.len() as u64 {
            text += "…\n";
        }
        text + &format!("would fetch {} of {}\n", job.changed, print::many(job.total, "file"))
    })?;
    for failed in &job.failed {
        talk::say(&format!("  {}: {}", print::printable(&failed.path), failed.why));
    }
    Ok(if job.failures > 0 { Exit::Partly } else { Exit::Done })
}
