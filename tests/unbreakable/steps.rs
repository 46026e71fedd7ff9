//! The process is killed, and then the power cut, at every step towards the disk that has a name.

use waypost::base::crash::Step;
use waypost::testkit::process::Dice;

use super::disk::Loop;
use super::scene::{Scene, Work};
use super::{is_everything, skip};

/// Steps, and the work that comes to them.
const STORE: (&[Step], &[Work]) = (
    &[
        Step::BlockWritten,
        Step::IndexBatch,
        Step::IndexPage,
        Step::IndexSync,
        Step::IndexCommitted,
        Step::PurgesWritten,
        Step::PurgesKept,
    ],
    &[Work::Files],
);
const AGENTS: (&[Step], &[Work]) = (&[Step::AgentsBatch, Step::AgentsCommitted], &[Work::Agents]);
const CONTROL: (&[Step], &[Work]) =
    (&[Step::ControlWritten, Step::BundleMoved, Step::ControlRenamed, Step::ControlKept], &[Work::Control]);
const STAGE: (&[Step], &[Work]) =
    (&[Step::StageReady, Step::StageShown, Step::StageWritten, Step::StageKept], &[Work::Edition]);
const ALL: [(&[Step], &[Work]); 4] = [STORE, AGENTS, CONTROL, STAGE];

/// How a run ended that was to die at a step.
#[derive(Debug, PartialEq)]
enum End {
    /// There.
    Died,
    /// It never came there, or not so often.
    Lived,
}

/// Runs the node until it is at `step` for the `count`-th time.
async fn run(scene: &mut Scene, step: Step, count: u64, work: &[Work]) -> End {
    let at = format!("{}:{count}", step.name());
    let doomed = scene.site.clone().with_environment("WAYPOST_CRASH_AT", &at);
    let node = match doomed.try_start().await {
        // On its way up.
        Err(mut gone) => {
            assert_eq!(gone.code().await, 128 + 6, "{at}: {}", gone.log().join("\n"));
            return End::Died;
        }
        Ok(node) => node,
    };
    if scene.work(&node, work).await {
        node.kill();
        return End::Lived;
    }
    let mut node = node;
    assert_eq!(node.code().await, 128 + 6, "{at}: {}", node.log().join("\n"));
    End::Died
}

/// Kills at each of the steps: the first time it comes there, and at a later one.
async fn kill_at((steps, work): (&[Step], &[Work])) {
    let mut dice = Dice::seeded(11);
    let mut scene = Scene::new().await;
    let node = scene.site.start().await;
    assert!(scene.work(&node, work).await);
    node.stop().await;
    for step in steps {
        let most = if is_everything() { 25 } else { 2 };
        for count in 1..=most {
            let count = if is_everything() || count == 1 { count } else { 2 + dice.below(6) };
            let end = run(&mut scene, *step, count, work).await;
            assert!(count > 1 || end == End::Died, "nothing comes to {step:?}");
            let node = scene.site.start().await;
            println!("{step:?}, time {count}: {end:?}");
            scene.examine(&node, false).await;
            node.kill();
            if end == End::Lived {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_the_store_costs_nothing_that_was_acknowledged() {
    kill_at(STORE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_the_agents_state_costs_no_check_in() {
    kill_at(AGENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_documents_and_orders_loses_none() {
    kill_at(CONTROL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_a_publication_mixes_no_editions() {
    kill_at(STAGE).await;
}

#[test]
fn every_step_is_killed_at() {
    let tried: Vec<Step> = ALL.iter().flat_map(|(steps, _)| steps.iter().copied()).collect();
    let missing: Vec<_> = Step::ALL.into_iter().filter(|step| !tried.contains(step)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The file system goes as the process does: what was not synced by then is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let mut scene = Scene::new().await;
    let Some(disk) = Loop::on(&scene.home.path("image"), &scene.disk()) else {
        return skip("a power cut needs root, a loop device, ext4 and python3");
    };
    disk.loses_what_was_not_synced();
    let work = [Work::Files, Work::Agents, Work::Control];
    let mut dice = Dice::seeded(12);
    let node = scene.site.start().await;
    assert!(scene.work(&node, &[Work::Files, Work::Agents, Work::Control, Work::Edition]).await);
    node.stop().await;
    let steps: Vec<(Step, &[Work])> =
        ALL.iter().flat_map(|(steps, work)| steps.iter().map(move |step| (*step, *work))).collect();
    let rounds = if is_everything() { steps.len() * 6 } else { 6 };
    for round in 0..rounds {
        let at = usize::try_from(dice.below(steps.len() as u64)).expect("small");
        let (step, its_work) = steps[if is_everything() { round % steps.len() } else { at }];
        let both: Vec<Work> = its_work.iter().chain(&work).copied().collect();
        let count = 1 + dice.below(if its_work == [Work::Files] { 6 } else { 2 });
        let end = run(&mut scene, step, count, &both).await;
        disk.cut_the_power();
        let node = scene.site.start().await;
        println!("{step:?}, time {count}: {end:?}, then no power");
        scene.examine(&node, true).await;
        node.stop().await;
    }
}
