//! The story of the cache: one branch office, one file at a time, and the figures measured while it works.
//!
//! The pieces: a master (a node that serves a directory) behind `witness`, which counts the requests that
//! reach headquarters; the WAN; the handler (a second node); and `agent`s that hash what they get. Both nodes are
//! started from configuration files, as `waypost serve` would. `scene` builds all of it, `acts` is the story, `report`
//! says what was measured.

mod acts;
mod agent;
mod content;
mod crowd;
mod progress;
mod report;
mod scene;
#[cfg(test)]
mod stand_in;
mod witness;

use self::report::Report;
use self::scene::Scene;
use super::print::say;
use super::{Options, StartNode};

/// Tells the story; whether every check held.
///
/// # Errors
/// It cannot be told.
pub(super) async fn tell(options: &Options, nodes: &impl StartNode) -> anyhow::Result<bool> {
    use anyhow::Context as _;
    let scene = Scene::build(options, nodes).await.context("cannot set up the demo")?;
    say(&report::opening(&scene))?;
    let mut report = Report::default();
    let outcome = acts::play(&scene, &mut report).await;
    if outcome.is_ok() {
        say(&report.closing(&scene))?;
        if options.keep {
            say(&report::invitation(&scene))?;
            std::future::pending::<()>().await;
        }
    }
    scene.close().await;
    outcome?;
    Ok(!report.failed())
}

#[cfg(test)]
mod tests {
    use super::stand_in::StandIn;
    use super::*;

    async fn play(nodes: &StandIn, agents: usize) -> (Report, std::path::PathBuf) {
        let options = Options { agents, size: 1 << 20, wan: 4_000_000, ..Options::default() };
        let scene = Scene::build(&options, nodes).await.unwrap();
        let folder = scene.file("");
        let mut report = Report::default();
        acts::play(&scene, &mut report).await.unwrap();
        assert!(report.closing(&scene).contains("together"));
        scene.close().await;
        (report, folder)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_handler_that_does_its_work_passes_every_check() {
        let (report, folder) = play(&StandIn { shares: true }, 8).await;
        assert!(!report.failed(), "{report:?}");
        assert!(!folder.exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_handler_that_fetches_for_each_agent_fails_the_demo() {
        let (report, _) = play(&StandIn { shares: false }, 3).await;
        assert!(report.failed(), "{report:?}");
    }
}
