//! How many fills may run, and who goes first when not all may.
//!
//! Two lines in front of one door: small files that many wait for (catalogues, DATs) go before large packages.
//! A permit goes from its holder straight to the next in line, so a late arrival never overtakes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Which line a fill stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Known to be small, or a revalidation: goes first.
    Small,
    /// Anything else.
    Large,
}

/// The door.
#[derive(Clone)]
pub(super) struct Admission(Arc<Mutex<Lines>>);

struct Lines {
    free: usize,
    room: usize,
    small: VecDeque<oneshot::Sender<Permit>>,
    large: VecDeque<oneshot::Sender<Permit>>,
}

/// The right to run one fill. Dropping it lets the next in line run.
pub(super) struct Permit(Option<Admission>);

impl Admission {
    pub(super) fn new(running: usize, waiting: usize) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            free: running,
            room: waiting,
            small: VecDeque::new(),
            large: VecDeque::new(),
        })))
    }

    /// Waits for a permit, at most `patience`; `None` when the line is full or patience ran out.
    pub(super) async fn enter(&self, class: Class, patience: Duration) -> Option<Permit> {
        let turn = {
            let mut lines = self.0.lock();
            if lines.free > 0 {
                lines.free -= 1;
                return Some(Permit(Some(self.clone())));
            }
            lines.small.retain(|waiting| !waiting.is_closed());
            lines.large.retain(|waiting| !waiting.is_closed());
            if lines.small.len() + lines.large.len() >= lines.room {
                return None;
            }
            let (turn, waiting) = oneshot::channel();
            match class {
                Class::Small => lines.small.push_back(turn),
                Class::Large => lines.large.push_back(turn),
            }
            waiting
        };
        tokio::time::timeout(patience, turn).await.ok()?.ok()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(door) = self.0.take() else { return };
        loop {
            let next = {
                let mut lines = door.0.lock();
                let next = lines.small.pop_front().or_else(|| lines.large.pop_front());
                if next.is_none() {
                    lines.free += 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(Self(Some(door.clone()))) {
                Ok(()) => return,
                // It gave up in the meantime; the permit that comes back is disarmed and the next one asked.
                Err(mut returned) => drop(returned.0.take()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn in_line(door: &Admission) -> usize {
        let lines = door.0.lock();
        lines.small.len() + lines.large.len()
    }

    #[tokio::test]
    async fn small_files_go_before_large_packages() {
        let door = Admission::new(1, 10);
        let first = door.enter(Class::Large, PATIENCE).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = tokio::task::JoinSet::new();
        for (name, class) in [("package", Class::Large), ("dat", Class::Small)] {
            let (door, order) = (door.clone(), Arc::clone(&order));
            let before = in_line(&door);
            let watch = door.clone();
            waiting.spawn(async move {
                let permit = door.enter(class, PATIENCE).await.unwrap();
                order.lock().push(name);
                drop(permit);
            });
            while in_line(&watch) == before {
                tokio::task::yield_now().await;
            }
        }
        drop(first);
        while waiting.join_next().await.is_some() {}
        assert_eq!(*order.lock(), ["dat", "package"]);
        assert_eq!(door.0.lock().free, 1);
    }

    #[tokio::test]
    async fn a_full_line_turns_away_at_once() {
        let door = Admission::new(1, 0);
        let _held = door.enter(Class::Small, PATIENCE).await.unwrap();
        assert!(door.enter(Class::Small, PATIENCE).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gave_up_does_not_swallow_the_permit() {
        let door = Admission::new(1, 10);
        let held = door.enter(Class::Small, PATIENCE).await.unwrap();
        assert!(door.enter(Class::Small, Duration::from_millis(5)).await.is_none());
        drop(held);
        assert!(door.enter(Class::Large, PATIENCE).await.is_some());
        assert_eq!(door.0.lock().free, 1);
    }
}
