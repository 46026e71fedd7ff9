//! Listed files that nobody has right at the moment: agents hear so at once, instead of fetching them one after the
//! other to find out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::base::clock::Timestamp;
use crate::base::limits::{SPOILED_FOR, WRONG_FILES};
use crate::cache::Key;

/// Until when a file is not asked for again. Its key has its digest, so another listing is another file.
#[derive(Default)]
pub(super) struct Spoiled {
    files: Mutex<HashMap<Key, Timestamp>>,
    /// How many there are: nearly always none, and then nobody takes the lock.
    many: AtomicUsize,
}

impl Spoiled {
    /// All who could be asked sent something else. Full is full: then it is found out once more.
    pub(super) fn remember(&self, key: &Key, now: Timestamp) {
        let mut files = self.files.lock();
        if files.len() >= WRONG_FILES {
            files.retain(|_, until| now < *until);
        }
        if files.len() < WRONG_FILES {
            files.insert(key.clone(), now.after(SPOILED_FOR));
        }
        self.many.store(files.len(), Ordering::Release);
    }

    /// Somebody has it right.
    pub(super) fn forget(&self, key: &Key) {
        if self.many.load(Ordering::Acquire) > 0 {
            let mut files = self.files.lock();
            files.remove(key);
            self.many.store(files.len(), Ordering::Release);
        }
    }

    /// When it is worth asking again, if it is not yet.
    pub(super) fn until(&self, key: &Key, now: Timestamp) -> Option<Timestamp> {
        if self.many.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.files.lock().get(key).copied().filter(|until| until.is_ahead(now, SPOILED_FOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoiled_file_is_remembered_for_a_while_or_until_somebody_has_it_right() {
        let (spoiled, now) = (Spoiled::default(), Timestamp(1_000));
        let (one, other) = (Key::from("r:/a"), Key::from("r:/b"));
        assert_eq!(spoiled.until(&one, now), None);
        spoiled.remember(&one, now);
        assert_eq!(spoiled.until(&one, now), Some(now.after(SPOILED_FOR)));
        assert_eq!(spoiled.until(&other, now), None);
        assert_eq!(spoiled.until(&one, now.after(SPOILED_FOR)), None);
        spoiled.forget(&one);
        assert_eq!(spoiled.until(&one, now), None);
    }

    #[test]
    fn the_table_is_bounded_and_makes_room_by_time() {
        let (spoiled, now) = (Spoiled::default(), Timestamp(1_000));
        for n in 0..=WRONG_FILES {
            spoiled.remember(&Key::from(format!("r:/{n}").as_str()), now);
        }
        let late = Key::from("r:/late");
        spoiled.remember(&late, now);
        assert_eq!(spoiled.until(&late, now), None);
        let later = now.after(SPOILED_FOR);
        spoiled.remember(&late, later);
        assert!(spoiled.until(&late, later).is_some());
        assert_eq!(spoiled.files.lock().len(), 1);
    }
}
