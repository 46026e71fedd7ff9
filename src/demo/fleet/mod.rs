//! The story of the fleet: a branch office with two handlers, from the first check-in of its agents to the day on which
//! a handler and the WAN die.
//!
//! Headquarters and the handlers are processes of their own, this program once more (`node`), started from files that
//! an administrator could have written (`papers`); `master` publishes; the agents run in this process (`staff`); what an
//! operator would type is typed (`operator`). `scene` builds all of it, `acts` and `trouble` are the story, `watch`
//! looks at the fleet meanwhile, `tell` says what was seen.

mod acts;
mod master;
mod node;
mod operator;
mod papers;
mod scene;
mod staff;
mod tell;
mod trouble;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use self::scene::Scene;
use self::tell::Teller;
use self::watch::Watch;
use super::Options;

/// Whatever does not happen within this time does not happen, however busy the machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Between two questions of an operator who waits for something: each is a process.
const EVERY: Duration = Duration::from_millis(250);

/// Tells the story with nodes that run `program`; whether every check held.
///
/// # Errors
/// It cannot be told.
pub(super) async fn tell(options: &Options, program: &Path) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut scene = Scene::build(options, program).await.context("cannot set up the demo")?;
    let mut teller = Teller::new(options.json);
    let outcome = play(&mut scene, &mut teller, began).await;
    if outcome.is_ok() && options.keep {
        teller.line(&invitation(&scene))?;
        std::future::pending::<()>().await;
    }
    scene.close().await;
    outcome?;
    Ok(teller.held())
}

async fn play(scene: &mut Scene, teller: &mut Teller, began: Instant) -> anyhow::Result<()> {
    teller.line(&acts::opening(scene))?;
    let watch = Watch::begin(scene.operator.clone());
    acts::meet(scene, teller).await?;
    acts::publish(scene, teller).await?;
    trouble::handler_dies(scene, teller).await?;
    trouble::wan_dies(scene, teller).await?;
    acts::rules_change(scene, teller).await?;
    acts::reckon(scene, teller, watch.seen()).await?;
    teller.close(&scene.options, began.elapsed())
}

/// Asks `found` until it finds something, for [`LIMIT`] at most; what, and how long after `began` that was.
async fn until<T>(
    began: Instant,
    mut found: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<(T, Duration)>> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = found().await? {
            return Ok(Some((found, began.elapsed())));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What to try on the fleet that stays.
fn invitation(scene: &Scene) -> String {
    let folder = scene.file("");
    let (folder, [one, _]) = (folder.display(), &scene.branches);
    let title = crate::demo::print::heading("All of it is still running. Try, in another terminal:");
    format!(
        "{title}\n   cd {folder}\n   export WAYPOST_SERVER=hq.sock\n   waypost fleet ls\n   \
         waypost fleet show pc-001\n   waypost explain --agent pc-001\n   waypost handlers drain berlin-1\n   \
         waypost fleet wake --group berlin\n   waypost -s berlin-1.sock status\n   \
         curl --cacert ca.pem https://{}/Software/SiteStat.xml\n\n   \
         The documents are in fleet/, the master repository in Software/, the agents in agents/.\n   Ctrl-C ends it.",
        one.address()
    )
}
