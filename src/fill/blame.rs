//! Who sent what: the upstreams a body came from, so that a wrong one can be laid at somebody's door.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::base::clock::Timestamp;
use crate::base::limits::{WRONG_FILES, WRONG_FOR};
use crate::cache::Key;

/// The upstreams of one fill.
#[derive(Default)]
pub(super) struct Givers(Mutex<Given>);

#[derive(Default)]
struct Given {
    /// Who sent bytes of the body at hand.
    gave: Vec<String>,
    /// Who sent a whole wrong body alone, so that it cannot have been anybody else. Once may be the wire's fault …
    doubted: Vec<String>,
    /// … and twice is not.
    barred: Vec<String>,
}

impl Givers {
    /// `upstream` sent bytes of the body at hand.
    pub(super) fn gave(&self, upstream: &str) {
        let mut given = self.0.lock();
        if !given.gave.iter().any(|name| name == upstream) {
            given.gave.push(upstream.to_owned());
        }
    }

    /// The body at hand is wrong: names who sent bytes of it, and begins anew.
    ///
    /// One that sent all of it is asked last from now on, and not again by this fill when it does so twice. Of several
    /// nobody knows who it was.
    pub(super) fn accuse(&self) -> Vec<String> {
        let mut given = self.0.lock();
        let gave = std::mem::take(&mut given.gave);
        if let [alone] = gave.as_slice() {
            let again = given.doubted.contains(alone);
            if again { &mut given.barred } else { &mut given.doubted }.push(alone.clone());
        }
        gave
    }

    /// The body at hand is right: names who sent it.
    pub(super) fn thank(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().gave)
    }

    /// Who is not asked by this fill any more.
    pub(super) fn barred(&self) -> Vec<String> {
        self.0.lock().barred.clone()
    }
}

/// Who lately sent wrong bytes of which file, over all fills.
#[derive(Default)]
pub(super) struct Wrong(Mutex<HashMap<Key, (Vec<String>, Timestamp)>>);

impl Wrong {
    /// Those are asked last for this file, for a while.
    pub(super) fn remember(&self, key: &Key, upstreams: &[String], now: Timestamp) {
        let mut files = self.0.lock();
        if files.len() >= WRONG_FILES && !files.contains_key(key) {
            files.retain(|_, (_, until)| now < *until);
            if files.len() >= WRONG_FILES {
                return;
            }
        }
        let (names, until) = files.entry(key.clone()).or_insert_with(|| (Vec::new(), now));
        if *until <= now {
            names.clear();
        }
        names.extend(upstreams.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
        *until = now.after(WRONG_FOR);
    }

    /// They have sent it right since.
    pub(super) fn forgive(&self, key: &Key, upstreams: &[String]) {
        let mut files = self.0.lock();
        if let Some((names, _)) = files.get_mut(key) {
            names.retain(|name| !upstreams.contains(name));
            if names.is_empty() {
                files.remove(key);
            }
        }
    }

    /// Who is asked last.
    pub(super) fn of(&self, key: &Key, now: Timestamp) -> Vec<String> {
        let files = self.0.lock();
        files
            .get(key)
            .filter(|(_, until)| until.is_ahead(now, WRONG_FOR))
            .map(|(names, _)| names.clone())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_sent_all_of_a_wrong_body_twice_is_barred_and_one_of_several_is_not() {
        let givers = Givers::default();
        givers.gave("a");
        givers.gave("b");
        givers.gave("a");
        assert_eq!(givers.accuse(), ["a", "b"]);
        assert!(givers.barred().is_empty());
        givers.gave("b");
        assert_eq!(givers.accuse(), ["b"]);
        assert!(givers.barred().is_empty(), "once may have been the wire");
        givers.gave("b");
        assert_eq!(givers.accuse(), ["b"]);
        assert_eq!(givers.barred(), ["b"]);
    }

    #[test]
    fn wrong_bytes_are_remembered_for_a_while_or_until_right_ones_come() {
        let (wrong, key) = (Wrong::default(), Key::from("r:/a"));
        let now = Timestamp(1_000);
        wrong.remember(&key, &names(&["a"]), now);
        wrong.remember(&key, &names(&["a", "b"]), now);
        assert_eq!(wrong.of(&key, now), ["a", "b"]);
        wrong.forgive(&key, &names(&["a"]));
        assert_eq!(wrong.of(&key, now), ["b"]);
        assert!(wrong.of(&key, now.after(WRONG_FOR)).is_empty());
        assert!(wrong.of(&Key::from("r:/b"), now).is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_makes_room_by_time() {
        let (wrong, now) = (Wrong::default(), Timestamp(1_000));
        for n in 0..WRONG_FILES {
            wrong.remember(&Key::from(format!("r:/{n}").as_str()), &names(&["a"]), now);
        }
        let late = Key::from("r:/late");
        wrong.remember(&late, &names(&["a"]), now);
        assert!(wrong.of(&late, now).is_empty());
        let later = now.after(WRONG_FOR);
        wrong.remember(&late, &names(&["a"]), later);
        assert_eq!(wrong.of(&late, later), ["a"]);
        assert_eq!(wrong.0.lock().len(), 1);
    }
}
