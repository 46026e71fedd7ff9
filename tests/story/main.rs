//! The whole story, with the real program: an authority that is a handler, too, and two handlers in a group; a master
//! that publishes signatures; hundreds of agents in this process and some as programs of their own. Handlers are killed,
//! frozen, cut off, drained and started again, the documents change and editions appear, in an order that a seed says.
//! Whenever things have calmed down every agent is where the rules say, has the newest edition byte by byte, and is in
//! the fleet once, with its check-ins counted once.
//!
//! Fewer agents without `WAYPOST_LONG=1`. `WAYPOST_SEED` tells one story again. Times are printed and not judged.
#![expect(clippy::print_stderr, reason = "the times are there to be looked at")]
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a helper that fails is a test that fails")]

mod acts;
mod crowd;
mod settle;
mod world;

use std::time::Instant;

use waypost::testkit::process::{Dice, is_long};

use crate::acts::{Act, Story};

/// How often things happen by themselves: seldom. What has to happen at once is said to.
mod pace {
    use std::time::Duration;

    pub(crate) const CHECK_IN: Duration = Duration::from_secs(30);
    pub(crate) const VERIFY: Duration = Duration::from_secs(60);
    pub(crate) const UPDATE: Duration = Duration::from_secs(60);
    pub(crate) const RETRY: Duration = Duration::from_secs(30);
    pub(crate) const GRACE: Duration = Duration::from_secs(3);

    /// Between two agents that somebody gives the same order: people do not make herds.
    pub(crate) const APART: Duration = Duration::from_millis(15);
}

/// Agents in this process, and as programs.
const AGENTS: (usize, usize) = (60, 3);
const MANY: (usize, usize) = (200, 4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_ends_where_the_rules_say_whatever_happens_to_its_handlers() {
    let mut dice = Dice::seeded(20_261_121);
    let began = Instant::now();
    let mut story = Story::begin(if is_long() { MANY } else { AGENTS }).await;
    for act in Act::shuffled(&mut dice) {
        story.play(act, &mut dice).await;
    }
    story.end().await;
    story.say(&format!("all of it took {:.1} s", began.elapsed().as_secs_f64()));
}
