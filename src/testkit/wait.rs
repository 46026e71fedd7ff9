//! Waiting for something that happens by itself.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long anything that must happen may take: longer than a slow machine needs, shorter than a test runner's
/// patience.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// Asks `look` again and again until it says yes.
///
/// # Panics
/// It does not within a minute; the message names `what`.
pub async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !look().await {
        assert!(began.elapsed() < DEADLINE, "this did not come true: {what}");
        sleep(LOOK).await;
    }
}
