//! Which handler to talk to now, and when to look around again: the life of the list. Pure: it is told what happens
//! and what time it is, and says what to do next.
//!
//! One handler is in use. When a request to it fails, the next of the evaluated list is used at once, and the whole
//! list is asked again behind that. When nobody is left there is no connection, and the list is asked again every
//! minute, later more rarely. "Now" is the time since the machine started, sleep included.

use std::collections::HashMap;
use std::time::Duration;

use super::pace;
use super::select::{Candidate, Class, Line, Method, Observed, Reason, Seen, evaluate};

/// How often, how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two verifications of the list while all is well.
    pub verify_every: Duration,
    /// Between the first retries when nobody answers.
    pub retry_first: Duration,
    /// Between retries at most.
    pub retry_most: Duration,
    /// How long a handler is used last after a request to it failed; twice as long each time in a row.
    pub grace: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            verify_every: Duration::from_secs(3_600),
            retry_first: Duration::from_secs(60),
            retry_most: Duration::from_secs(900),
            grace: Duration::from_secs(300),
        }
    }
}

/// What makes the list be asked again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The agent has started.
    Started,
    /// The hour is over.
    Hourly,
    /// An address of this machine changed.
    AddressChanged,
    /// The name of the handler in use leads to another machine.
    HandlerMoved,
    /// The machine slept.
    Resumed,
    /// The list changed: who is in it, an address, the order.
    ListChanged,
    /// Somebody asked for it.
    Asked,
    /// A request failed or took too long.
    Failed,
    /// Nobody answered the last time.
    Retry,
}

impl Cause {
    /// The word in log and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Hourly => "hourly",
            Self::AddressChanged => "address-changed",
            Self::HandlerMoved => "handler-moved",
            Self::Resumed => "resumed",
            Self::ListChanged => "list-changed",
            Self::Asked => "asked",
            Self::Failed => "request-failed",
            Self::Retry => "retry",
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask the candidates, and tell with [`Fallback::verified`].
    Verify(Cause),
    /// Talk to this one when there is something to say; look here again at `until`.
    Use {
        /// Whom.
        candidate: Candidate,
        /// When the list is to be verified.
        until: Duration,
    },
    /// `No Connection`: nothing before `until`.
    Wait {
        /// When to look here again.
        until: Duration,
    },
}

/// When a new list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// From the next regular communication on.
    NextContact,
    /// At once: somebody woke the agent for it.
    Now,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    until: Duration,
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is known of the list.
    Blind,
    /// This line is in use. `untried`: it was moved to, and has not answered a request since.
    Using { line: usize, untried: bool },
    /// Nobody answers.
    Nowhere { until: Duration },
}

/// The list, and where in it the agent is.
#[derive(Debug)]
pub struct Fallback {
    method: Method,
    pace: Pace,
    seed: u64,
    candidates: Vec<Candidate>,
    pending: Option<(Method, Vec<Candidate>)>,
    lines: Vec<Line>,
    failed: HashMap<String, Failed>,
    phase: Phase,
    verify_at: Duration,
    cause: Cause,
    draws: u64,
    /// How often in a row nobody was of use.
    misses: u32,
}

impl Fallback {
    /// With the list that the agent had last; it is verified first of all.
    pub fn new(method: Method, pace: Pace, seed: u64, candidates: Vec<Candidate>, now: Duration) -> Self {
        Self {
            method,
            pace,
            seed,
            candidates,
            pending: None,
            lines: Vec::new(),
            failed: HashMap::new(),
            phase: Phase::Blind,
            verify_at: now,
            cause: Cause::Started,
            draws: 0,
            misses: 0,
        }
    }

    /// What to do now.
    pub fn next(&self, now: Duration) -> Next {
        match self.phase {
            Phase::Blind => Next::Verify(self.cause),
            Phase::Nowhere { until, .. } if now < until.min(self.verify_at) => {
                Next::Wait { until: until.min(self.verify_at) }
            }
            Phase::Nowhere { .. } => Next::Verify(self.cause),
            // Whom it fell back to has its chance before the whole list is asked: that can take seconds.
            Phase::Using { untried, .. } if now >= self.verify_at && !untried => Next::Verify(self.cause),
            Phase::Using { .. } => match self.current() {
                Some(candidate) => Next::Use { candidate: candidate.clone(), until: self.verify_at },
                None => Next::Verify(self.cause),
            },
        }
    }

    /// The handler in use; `None` is `No Connection`.
    pub fn current(&self) -> Option<&Candidate> {
        match self.phase {
            Phase::Using { line, .. } => self.lines.get(line).map(|line| &line.candidate),
            Phase::Blind | Phase::Nowhere { .. } => None,
        }
    }

    /// The evaluated list, as it was when it was asked last.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Who is in the list.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// How one is chosen.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Whether a request to this address failed a short time ago.
    pub fn failed_lately(&self, address: &str, now: Duration) -> bool {
        self.failed.get(address).is_some_and(|failed| now < failed.until)
    }

    /// Something happened that makes the list doubtful: it is asked again at `now`, and retries begin anew.
    pub fn look_again(&mut self, cause: Cause, now: Duration) {
        (self.verify_at, self.cause) = (now, cause);
        if cause != Cause::Failed {
            self.misses = 0;
        }
        // Another network, or somebody who has repaired it: what failed before says nothing any more.
        if matches!(cause, Cause::AddressChanged | Cause::Resumed | Cause::Asked) {
            self.failed.clear();
        }
        match &mut self.phase {
            Phase::Nowhere { until } => *until = now,
            Phase::Using { untried, .. } => *untried = false,
            Phase::Blind => {}
        }
    }

    /// All candidates were asked, or enough of them.
    pub fn verified(&mut self, observed: Vec<Observed>, now: Duration) {
        // The list may have changed while it was asked.
        let known = |it: &Observed| self.candidates.contains(&it.candidate);
        self.lines = evaluate(self.method, observed.into_iter().filter(known).collect(), self.seed);
        self.draws += 1;
        self.cause = Cause::Hourly;
        self.verify_at = now + pace::regular(self.pace.verify_every, self.seed, self.draws);
        if self.lines.first().is_some_and(|line| matches!(line.reason, Reason::Chosen(_))) {
            self.phase = Phase::Using { line: 0, untried: false };
        } else {
            self.nowhere(now);
        }
    }

    /// A request to the handler in use was answered.
    pub fn answered(&mut self) {
        self.misses = 0;
        let address = self.current().map(|candidate| candidate.address.clone());
        self.failed.retain(|failed, _| Some(failed) != address.as_ref());
        if let Phase::Using { untried, .. } = &mut self.phase {
            *untried = false;
        }
    }

    /// A request to the handler in use failed or took too long: the next one, and the list is asked again.
    pub fn failed(&mut self, now: Duration) {
        let Phase::Using { line, .. } = self.phase else { return };
        if let Some(candidate) = self.current() {
            let address = candidate.address.clone();
            let failed = self.failed.entry(address).or_insert(Failed { until: now, times: 0 });
            failed.until = now + self.pace.grace.saturating_mul(1 << failed.times.min(6));
            failed.times += 1;
        }
        (self.verify_at, self.cause) = (now, Cause::Failed);
        let can = |(at, line): &(usize, &Line)| {
            let silent = matches!(line.seen, Seen::Silent(_));
            (!silent && !self.failed_lately(&line.candidate.address, now)).then_some(*at)
        };
        match self.lines.iter().enumerate().skip(line + 1).find_map(|it| can(&it)) {
            Some(line) => self.phase = Phase::Using { line, untried: true },
            // One that answers and fails all the same is asked once more at once, and then as if nobody answered: else
            // agent and handler would go round in circles.
            None if self.misses == 0 => (self.phase, self.misses) = (Phase::Blind, 1),
            None => self.nowhere(now),
        }
    }

    /// A list came in.
    pub fn take_list(&mut self, method: Method, candidates: Vec<Candidate>, from: From, now: Duration) {
        self.pending = Some((method, candidates));
        if from == From::Now {
            self.adopt(now);
        }
    }

    /// A regular communication is about to begin: a list that waited for it counts from here on.
    pub fn contact_begins(&mut self, now: Duration) {
        self.adopt(now);
    }

    fn adopt(&mut self, now: Duration) {
        let Some((method, candidates)) = self.pending.take() else { return };
        if method == self.method && candidates == self.candidates {
            return;
        }
        self.failed.retain(|address, _| candidates.iter().any(|it| it.address == *address));
        let kept =
            self.current().is_some_and(|current| candidates.iter().any(|it| it.address == current.address));
        (self.method, self.candidates) = (method, candidates);
        let current = self.current().map(|current| current.address.clone());
        self.lines.retain(|line| self.candidates.iter().any(|it| it.address == line.candidate.address));
        self.phase = match current {
            Some(address) if kept => {
                let line = self.lines.iter().position(|line| line.candidate.address == address);
                line.map_or(Phase::Blind, |line| Phase::Using { line, untried: false })
            }
            _ => Phase::Blind,
        };
        (self.verify_at, self.cause) = (now, Cause::ListChanged);
    }

    fn nowhere(&mut self, now: Duration) {
        let waits = self.pending.as_ref().is_some_and(|it| (it.0, &it.1) != (self.method, &self.candidates));
        if waits {
            // A list that waits for its time is better than one of which nobody is left.
            self.phase = Phase::Blind;
            self.adopt(now);
            return;
        }
        let attempt = self.misses;
        self.misses = self.misses.saturating_add(1);
        let seed = pace::chance(self.seed, self.draws);
        let wait = pace::retry(self.pace.retry_first, self.pace.retry_most, attempt, seed);
        self.cause = Cause::Retry;
        self.verify_at = now + wait;
        self.phase = Phase::Nowhere { until: now + wait };
    }
}

/// The candidates of a list, with those the agent was installed with behind them: they stay, and where the list has
/// their address it is the list that counts.
pub fn with_installed(listed: Vec<Candidate>, installed: &[String]) -> Vec<Candidate> {
    let mut all = listed;
    for address in installed {
        if all.iter().any(|it| it.address == *address) {
            continue;
        }
        all.push(Candidate {
            handler: address.clone(),
            address: address.clone(),
            order: u32::MAX,
            class: Class::Installed,
            draining: false,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn list(names: &[&str]) -> Vec<Candidate> {
        let candidate = |(order, name): (u32, &&str)| Candidate {
            handler: (*name).to_owned(),
            address: format!("{name}:443"),
            order,
            class: Class::Internal,
            draining: false,
        };
        (1..).zip(names).map(candidate).collect()
    }

    fn machine(names: &[&str]) -> Fallback {
        Fallback::new(Method::Ordered, Pace::default(), 1, list(names), Duration::ZERO)
    }

    /// Asks everybody; those of `dead` do not answer.
    fn verify(it: &mut Fallback, dead: &[&str], now: Duration) {
        let observed = it.candidates().iter().map(|candidate| {
            let seen = if dead.contains(&&*candidate.handler) {
                Seen::Silent("refused".to_owned())
            } else {
                Seen::Answered { hops: Some(1), latency: SECOND / 100, draining: false }
            };
            let failed_lately = it.failed_lately(&candidate.address, now);
            Observed { candidate: candidate.clone(), seen, failed_lately }
        });
        let observed = observed.collect();
        it.verified(observed, now);
    }

    fn used(it: &Fallback) -> Option<&str> {
        it.current().map(|candidate| &*candidate.handler)
    }

    #[test]
    fn the_list_is_verified_at_the_start_and_then_hourly() {
        let mut it = machine(&["a", "b"]);
        assert_eq!(it.next(SECOND), Next::Verify(Cause::Started));
        verify(&mut it, &[], SECOND);
        let Next::Use { candidate, until } = it.next(SECOND) else { panic!("it has a handler") };
        assert_eq!(candidate.handler, "a");
        assert!(until > 3_000 * SECOND && until < 4_000 * SECOND, "{until:?}");
        assert_eq!(it.next(until), Next::Verify(Cause::Hourly));
    }

    #[test]
    fn a_failed_request_leads_to_the_next_at_once_and_to_a_verification_behind_it() {
        let mut it = machine(&["a", "b", "c"]);
        verify(&mut it, &["b"], SECOND);
        it.failed(2 * SECOND);
        assert_eq!(used(&it), Some("c"), "b was silent");
        assert!(matches!(it.next(2 * SECOND), Next::Use { .. }), "the next has its chance first");
        it.answered();
        assert_eq!(it.next(2 * SECOND), Next::Verify(Cause::Failed));
        verify(&mut it, &[], 2 * SECOND);
        assert_eq!(used(&it), Some("b"), "a answers again, but failed lately");
        let later = 2 * SECOND + Pace::default().grace;
        verify(&mut it, &[], later);
        assert_eq!(used(&it), Some("a"));
    }

    #[test]
    fn who_asks_and_who_is_elsewhere_now_does_not_wait_for_a_failure_to_be_forgotten() {
        for cause in [Cause::Asked, Cause::AddressChanged, Cause::Resumed] {
            let mut it = machine(&["a", "b"]);
            verify(&mut it, &[], SECOND);
            it.failed(2 * SECOND);
            it.look_again(Cause::Failed, 3 * SECOND);
            verify(&mut it, &[], 3 * SECOND);
            assert_eq!(used(&it), Some("b"), "a failed lately");
            it.look_again(cause, 4 * SECOND);
            verify(&mut it, &[], 4 * SECOND);
            assert_eq!(used(&it), Some("a"), "{cause:?}");
        }
    }

    #[test]
    fn a_handler_that_answers_and_fails_does_not_keep_the_agent_busy() {
        let mut it = machine(&["a"]);
        verify(&mut it, &[], SECOND);
        it.failed(SECOND);
        assert_eq!(it.next(SECOND), Next::Verify(Cause::Failed), "it may have been the connection");
        let mut now = SECOND;
        for _ in 0..4 {
            verify(&mut it, &[], now);
            assert_eq!(used(&it), Some("a"));
            it.failed(now);
            let Next::Wait { until } = it.next(now) else { panic!("it waits") };
            assert!(until - now >= 30 * SECOND, "{:?}", until - now);
            now = until;
        }
        verify(&mut it, &[], now);
        it.answered();
        it.failed(now);
        assert_eq!(it.next(now), Next::Verify(Cause::Failed), "an answer ends the row");
    }

    #[test]
    fn each_failure_in_a_row_keeps_a_handler_out_for_longer() {
        let mut it = machine(&["a", "b"]);
        let mut now = SECOND;
        for times in 0..4 {
            verify(&mut it, &["b"], now);
            assert_eq!(used(&it), Some("a"), "it is better than nothing");
            it.failed(now);
            let grace = Pace::default().grace * (1 << times);
            assert!(it.failed_lately("a:443", now + grace - SECOND));
            assert!(!it.failed_lately("a:443", now + grace));
            now += grace;
        }
        verify(&mut it, &["b"], now);
        it.answered();
        assert!(!it.failed_lately("a:443", now));
        it.failed(now);
        assert!(!it.failed_lately("a:443", now + Pace::default().grace), "an answer ends the row");
    }

    #[test]
    fn without_any_answer_there_is_no_connection_and_a_retry_each_minute_then_more_rarely() {
        let mut it = machine(&["a", "b"]);
        verify(&mut it, &["a", "b"], SECOND);
        let mut now = SECOND;
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(used(&it), None);
            let Next::Wait { until } = it.next(now) else { panic!("it waits") };
            waits.push((until - now).as_secs());
            now = until;
            assert_eq!(it.next(now), Next::Verify(Cause::Retry));
            verify(&mut it, &["a", "b"], now);
        }
        assert!(waits[..5].iter().all(|wait| (30..=90).contains(wait)), "{waits:?}");
        assert!(waits[9..].iter().all(|wait| (450..=1_350).contains(wait)), "{waits:?}");
        it.look_again(Cause::AddressChanged, now);
        assert_eq!(it.next(now), Next::Verify(Cause::AddressChanged));
        verify(&mut it, &["a", "b"], now);
        let Next::Wait { until } = it.next(now) else { panic!("it waits") };
        assert!(until - now <= 90 * SECOND, "retries begin anew");
        verify(&mut it, &["a"], until);
        assert_eq!(used(&it), Some("b"));
    }

    #[test]
    fn a_list_counts_from_the_next_contact_or_at_once_after_a_wake_up() {
        let mut it = machine(&["a", "b"]);
        verify(&mut it, &[], SECOND);
        it.take_list(Method::Ordered, list(&["b"]), From::NextContact, SECOND);
        assert_eq!(used(&it), Some("a"));
        assert!(matches!(it.next(SECOND), Next::Use { .. }));
        it.contact_begins(2 * SECOND);
        assert_eq!((used(&it), it.next(2 * SECOND)), (None, Next::Verify(Cause::ListChanged)));
        verify(&mut it, &[], 2 * SECOND);
        assert_eq!(used(&it), Some("b"));
        it.take_list(Method::Ordered, list(&["c", "b"]), From::Now, 3 * SECOND);
        assert_eq!((used(&it), it.next(3 * SECOND)), (Some("b"), Next::Verify(Cause::ListChanged)));
        verify(&mut it, &[], 3 * SECOND);
        assert_eq!(used(&it), Some("c"));
        it.take_list(Method::Ordered, list(&["c", "b"]), From::Now, 4 * SECOND);
        assert!(matches!(it.next(4 * SECOND), Next::Use { .. }), "nothing has changed");
    }

    #[test]
    fn a_list_that_waits_counts_at_once_when_nobody_of_the_old_one_is_left() {
        let mut it = machine(&["a"]);
        verify(&mut it, &[], SECOND);
        it.take_list(Method::Ordered, list(&["a", "b"]), From::NextContact, SECOND);
        it.look_again(Cause::Failed, 2 * SECOND);
        verify(&mut it, &["a"], 2 * SECOND);
        assert_eq!(it.next(2 * SECOND), Next::Verify(Cause::ListChanged));
        verify(&mut it, &["a"], 2 * SECOND);
        assert_eq!(used(&it), Some("b"));
    }

    #[test]
    fn a_removed_handler_leaves_unless_the_agent_was_installed_with_it() {
        let installed = ["home:443".to_owned(), "a:443".to_owned()];
        let all = with_installed(list(&["a"]), &installed);
        let classes: Vec<_> = all.iter().map(|it| (&*it.address, it.class)).collect();
        assert_eq!(classes, [("a:443", Class::Internal), ("home:443", Class::Installed)]);
        let left = with_installed(Vec::new(), &installed);
        assert!(left.iter().all(|it| it.class == Class::Installed) && left.len() == 2);
    }

    #[test]
    fn what_is_no_longer_in_the_list_is_not_chosen_although_it_answered() {
        let mut it = machine(&["a", "b"]);
        let observed = [("a", 1), ("b", 2)].map(|(name, order)| Observed {
            candidate: Candidate { order, ..list(&[name]).remove(0) },
            seen: Seen::Answered { hops: None, latency: SECOND, draining: false },
            failed_lately: false,
        });
        it.take_list(Method::Ordered, list(&["c"]), From::Now, SECOND);
        it.verified(observed.to_vec(), SECOND);
        assert_eq!(used(&it), None);
    }

    #[derive(Clone, Debug)]
    enum Happens {
        Fails,
        Answers,
        Passes(u64),
        Looks,
        List(Vec<u8>),
        Contact,
    }

    fn any_event() -> impl Strategy<Value = Happens> {
        prop_oneof![
            Just(Happens::Fails),
            Just(Happens::Answers),
            (0_u64..5_000).prop_map(Happens::Passes),
            Just(Happens::Looks),
            prop::collection::vec(0_u8..6, 0..5).prop_map(Happens::List),
            Just(Happens::Contact),
        ]
    }

    proptest! {
        /// Whatever happens: the handler in use is one of the list, there is always something to do or a time to wait
        /// for, and with one handler alive the agent ends at one that lives within one verification of its list.
        #[test]
        fn the_machine_never_gets_stuck(events in prop::collection::vec(any_event(), 0..40), dead in 0_u8..63) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let dead: Vec<&str> = (0..).zip(names).filter(|(bit, _)| dead >> bit & 1 == 1).map(|it| it.1).collect();
            let mut it = machine(&names);
            let mut now = SECOND;
            for event in events {
                match event {
                    Happens::Fails => it.failed(now),
                    Happens::Answers => it.answered(),
                    Happens::Passes(secs) => now += Duration::from_secs(secs),
                    Happens::Looks => it.look_again(Cause::Asked, now),
                    Happens::List(chosen) => {
                        let chosen: Vec<&str> = chosen.iter().map(|at| names[usize::from(*at)]).collect();
                        it.take_list(Method::Ordered, list(&chosen), From::NextContact, now);
                    }
                    Happens::Contact => it.contact_begins(now),
                }
                match it.next(now) {
                    Next::Verify(_) => verify(&mut it, &dead, now),
                    Next::Use { candidate, .. } => prop_assert!(it.candidates().iter().any(|known| known.address == candidate.address)),
                    Next::Wait { until } => prop_assert!(until > now && until - now <= Pace::default().retry_most * 3 / 2),
                }
            }
            it.look_again(Cause::Asked, now);
            prop_assert_eq!(it.next(now), Next::Verify(Cause::Asked));
            verify(&mut it, &dead, now);
            // A list that waited takes the place of one of which nobody is left.
            if it.next(now) == Next::Verify(Cause::ListChanged) {
                verify(&mut it, &dead, now);
            }
            let alive = it.candidates().iter().any(|candidate| !dead.contains(&&*candidate.handler));
            prop_assert_eq!(it.current().is_some(), alive);
            prop_assert!(used(&it).is_none_or(|used| !dead.contains(&used)));
        }
    }
}
