//! The registry against a slow model of the same rules, and the rules one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp(1_000_000_000_000);

fn rules() -> Rules {
    Rules { interval: Duration::from_secs(600), most: 6, ..Rules::default() }
}

fn id(number: u8) -> AgentId {
    AgentId::parse(&format!("agent-{number}")).unwrap()
}

fn told(sequence: u64) -> CheckIn {
    CheckIn { sequence, boot: "a1".to_owned(), contact: Contact::Stream, ..CheckIn::default() }
}

/// What can happen.
#[derive(Clone, Debug)]
enum Event {
    CheckIn(u8, u64),
    Open(u8, Contact),
    Heard(u8),
    Close(u8, Cause),
    CloseOld(u8),
    Bye(u8),
    Moved(u8),
    Forget(u8),
    Pass(u64),
    Jump(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0_u8..8;
    let contact = prop_oneof![Just(Contact::Stream), Just(Contact::Tunnel)];
    let cause = prop_oneof![Just(Cause::Closed), Just(Cause::WriteFailed)];
    prop_oneof![
        3 => (who.clone(), 0_u64..50).prop_map(|(who, sequence)| Event::CheckIn(who, sequence)),
        3 => (who.clone(), contact).prop_map(|(who, contact)| Event::Open(who, contact)),
        3 => who.clone().prop_map(Event::Heard),
        1 => (who.clone(), cause).prop_map(|(who, cause)| Event::Close(who, cause)),
        1 => who.clone().prop_map(Event::CloseOld),
        1 => who.clone().prop_map(Event::Bye),
        1 => who.clone().prop_map(Event::Moved),
        1 => who.prop_map(Event::Forget),
        6 => prop_oneof![0_u64..100, 1_000_u64..200_000, 200_000_u64..5_000_000].prop_map(Event::Pass),
        1 => (-100_000_000_i64..100_000_000).prop_map(Event::Jump),
    ]
}

/// An agent of the model: bare facts.
#[derive(Clone, Debug)]
struct Slow {
    state: State,
    cause: Cause,
    since: u64,
    contact: Contact,
    heard: u64,
    checked_in: u64,
    sequence: Option<u64>,
    link: Option<(u64, Contact, u64)>,
    pinged: Option<u64>,
}

impl Slow {
    fn put(&mut self, state: State, cause: Cause, now: u64) {
        if self.state != state {
            (self.state, self.cause, self.since) = (state, cause, now);
        }
    }

    fn jump(&mut self, by: i64) {
        let move_to = |time: &mut u64| *time = time.saturating_add_signed(by);
        move_to(&mut self.since);
        move_to(&mut self.heard);
        if self.checked_in > 0 {
            move_to(&mut self.checked_in);
        }
        self.link.iter_mut().for_each(|link| move_to(&mut link.2));
        self.pinged.iter_mut().for_each(move_to);
    }

    /// One thing that is due, done; false if nothing is.
    fn step(&mut self, now: u64, pings: &mut u64, ended: &mut Vec<Cause>) -> bool {
        let age = |since: u64| now.saturating_sub(since) / 1_000;
        if let Some((_, contact, opened)) = self.link {
            if self.state == State::Connected && age(opened.max(self.checked_in)) >= 1_800 {
                let stall_at = opened.max(self.checked_in) + 1_800_000;
                let end_at = match (contact, self.pinged) {
                    (Contact::Stream, None) => self.heard + 120_000,
                    (Contact::Stream, Some(pinged)) => pinged + 20_000,
                    _ => self.heard + 60_000,
                };
                if stall_at < end_at {
                    self.put(State::Stalled, Cause::Overdue, now);
                    return true;
                }
            }
            let over = match (contact, self.pinged) {
                (Contact::Stream, None) if age(self.heard) >= 120 => {
                    self.pinged = Some(now);
                    *pings += 1;
                    return true;
                }
                (Contact::Stream, Some(pinged)) if age(pinged) >= 20 => Cause::PingTimeout,
                (Contact::Tunnel, _) if age(self.heard) >= 60 => Cause::SessionTimeout,
                _ => return false,
            };
            ended.push(over);
            (self.link, self.pinged) = (None, None);
            self.put(State::Grey, over, now);
            return true;
        }
        let (state, cause) = match self.state {
            State::Grey if age(self.since) >= 1_800 => (State::Offline, self.cause),
            State::Reporting if age(self.checked_in) >= 1_200 => (State::Late, Cause::Overdue),
            State::Late if age(self.checked_in) >= 2_400 => (State::Offline, Cause::Overdue),
            _ => return false,
        };
        self.put(state, cause, now);
        true
    }
}

#[derive(Default)]
struct Model {
    agents: BTreeMap<AgentId, Slow>,
    pings: u64,
    ended: Vec<Cause>,
}

impl Model {
    fn room(&mut self, id: &AgentId) -> bool {
        if self.agents.contains_key(id) || self.agents.len() < rules().most {
            return true;
        }
        let gone = self.agents.iter().filter(|(_, it)| !it.state.is_live());
        let Some(longest) = gone.min_by_key(|(id, it)| (it.since, (*id).clone())).map(|(id, _)| id.clone())
        else {
            return false;
        };
        self.agents.remove(&longest);
        true
    }

    fn entry(&mut self, id: &AgentId, now: u64) -> Option<&mut Slow> {
        if !self.room(id) {
            return None;
        }
        let new = Slow {
            state: State::Reporting,
            cause: Cause::CheckedIn,
            since: now,
            contact: Contact::Checkin,
            heard: now,
            checked_in: 0,
            sequence: None,
            link: None,
            pinged: None,
        };
        Some(self.agents.entry(id.clone()).or_insert(new))
    }

    fn end(&mut self, id: &AgentId, cause: Cause, now: u64) {
        if let Some(agent) = self.agents.get_mut(id)
            && agent.link.take().is_some()
        {
            agent.pinged = None;
            agent.put(State::Grey, cause, now);
            self.ended.push(cause);
        }
    }

    fn go(&mut self, id: &AgentId, state: State, cause: Cause, now: u64) {
        self.end(id, cause, now);
        if let Some(agent) = self.agents.get_mut(id) {
            agent.put(state, cause, now);
        }
    }
}

/// What came out: pings, reasons of ends.
fn tally(effects: &[Effect], pings: &mut u64, ended: &mut Vec<Cause>) {
    for effect in effects {
        match effect {
            Effect::Ping(..) => *pings += 1,
            Effect::Ended(cause, _) => ended.push(*cause),
            Effect::Close(..) | Effect::Changed(_) => {}
        }
    }
}

fn check(registry: &Registry, model: &Model, now: Timestamp) {
    assert_eq!(registry.len(), model.agents.len());
    let mut counts = BTreeMap::new();
    for (id, slow) in &model.agents {
        let agent = registry.agent(id).unwrap();
        let standing = (agent.standing.state, agent.standing.cause, agent.standing.since.0);
        assert_eq!(standing, (slow.state, slow.cause, slow.since), "{id}");
        assert_eq!(agent.link.map(|link| link.number), slow.link.map(|link| link.0), "{id}");
        assert_eq!(agent.contact, slow.contact, "{id}");
        *counts.entry((slow.state, slow.contact)).or_insert(0) += 1;
        let next = agent.next(&registry.rules).map(|(due, _)| due);
        assert_eq!(registry.due.get(id).copied(), next, "{id} is in the queue where it should be");
        assert!(next.is_none_or(|due| due > now), "{id} was left behind");
    }
    assert_eq!(registry.queue.len(), registry.due.len());
    for (state, contact, count) in registry.counts() {
        assert_eq!(count, counts.get(&(state, contact)).copied().unwrap_or(0), "{state} {contact:?}");
    }
}

fn follow(events: &[Event]) {
    let (mut registry, mut model) = (Registry::new(rules()), Model::default());
    let (mut pings, mut ended) = (0, Vec::new());
    let mut now = START;
    for (number, event) in events.iter().enumerate() {
        let number = number as u64;
        let mut effects = registry.advance(now);
        for agent in model.agents.values_mut() {
            while agent.step(now.0, &mut model.pings, &mut model.ended) {}
        }
        check(&registry, &model, now);
        match *event {
            Event::Jump(by) => {
                registry.jump(by);
                model.agents.values_mut().for_each(|agent| agent.jump(by));
                now = now.moved(by);
            }
            Event::Pass(millis) => now = now.after(Duration::from_millis(millis)),
            Event::CheckIn(who, sequence) => {
                let done = registry.check_in(&id(who), told(sequence), now);
                let taken = model.entry(&id(who), now.0).map(|agent| {
                    let new = agent.sequence.is_none_or(|last| sequence > last);
                    if new {
                        agent.sequence = Some(sequence);
                        (agent.heard, agent.checked_in) = (now.0, now.0);
                        agent.contact = agent.link.map_or(Contact::Stream, |link| link.1);
                        let state = if agent.link.is_some() { State::Connected } else { State::Reporting };
                        agent.put(state, Cause::CheckedIn, now.0);
                    }
                    (new, agent.sequence)
                });
                match (done, taken) {
                    (Ok(more), Some((true, _))) => effects.extend(more),
                    (Err(Refused::Old { expected }), Some((false, Some(last)))) => {
                        assert_eq!(expected, last + 1);
                    }
                    (Err(Refused::Full), None) => {}
                    other => panic!("{other:?}"),
                }
            }
            Event::Open(who, contact) => {
                let done = registry.open(&id(who), contact, number, now);
                let replaced = model.agents.get(&id(who)).is_some_and(|agent| agent.link.is_some());
                let opened = model.entry(&id(who), now.0).map(|agent| {
                    agent.link = Some((number, contact, now.0));
                    agent.pinged = None;
                    (agent.heard, agent.contact) = (now.0, contact);
                    agent.put(State::Connected, Cause::Opened, now.0);
                });
                if replaced {
                    model.ended.push(Cause::Replaced);
                }
                assert_eq!(done.is_ok(), opened.is_some());
                effects.extend(done.unwrap_or_default());
            }
            Event::Heard(who) => {
                if let Some(agent) = model.agents.get_mut(&id(who))
                    && let Some((number, ..)) = agent.link
                {
                    (agent.heard, agent.pinged) = (now.0, None);
                    registry.heard(&id(who), number, now);
                }
            }
            Event::Close(who, cause) => {
                let number = registry.agent(&id(who)).and_then(|agent| agent.link).map(|link| link.number);
                effects.extend(registry.close(&id(who), number.unwrap_or(u64::MAX), cause, now));
                model.end(&id(who), cause, now.0);
            }
            Event::CloseOld(who) => {
                assert_eq!(registry.close(&id(who), u64::MAX, Cause::Closed, now), Vec::new());
            }
            Event::Bye(who) => {
                effects.extend(registry.bye(&id(who), now));
                model.go(&id(who), State::Shutdown, Cause::Shutdown, now.0);
            }
            Event::Moved(who) => {
                effects.extend(registry.moved(&id(who), now));
                model.go(&id(who), State::Moved, Cause::Moved, now.0);
            }
            Event::Forget(who) => {
                let known = model.agents.remove(&id(who)).is_some();
                assert_eq!(registry.forget(&id(who)).0, known);
            }
        }
        tally(&effects, &mut pings, &mut ended);
        ended.sort_unstable();
        model.ended.sort_unstable();
        assert_eq!((pings, &ended), (model.pings, &model.ended));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_registry_does_what_the_slow_model_does(events in vec(event(), 1..120)) {
        follow(&events);
    }
}

fn state(registry: &Registry, who: u8) -> (State, Cause) {
    let standing = registry.agent(&id(who)).unwrap().standing;
    (standing.state, standing.cause)
}

fn seconds(seconds: u64) -> Timestamp {
    START.after(Duration::from_secs(seconds))
}

#[test]
fn a_silent_stream_is_pinged_then_grey_then_offline_with_its_cause() {
    let mut registry = Registry::new(rules());
    registry.open(&id(1), Contact::Stream, 7, START).unwrap();
    assert_eq!(registry.advance(seconds(119)), []);
    assert_eq!(registry.advance(seconds(120)), [Effect::Ping(id(1), 7)]);
    assert_eq!(registry.next(), Some(seconds(140)));
    let effects = registry.advance(seconds(140));
    assert!(effects.contains(&Effect::Ended(Cause::PingTimeout, 140_000)));
    assert!(effects.contains(&Effect::Close(id(1), 7)));
    assert_eq!(state(&registry, 1), (State::Grey, Cause::PingTimeout));
    registry.advance(seconds(140 + 1_800));
    assert_eq!(state(&registry, 1), (State::Offline, Cause::PingTimeout));
    assert_eq!(registry.next(), None);
}

#[test]
fn an_answered_ping_costs_nothing_and_no_check_in_makes_a_stalled_agent() {
    let mut registry = Registry::new(rules());
    registry.check_in(&id(1), told(1), START).unwrap();
    registry.open(&id(1), Contact::Stream, 1, START).unwrap();
    for at in (0..1_800).step_by(60) {
        registry.advance(seconds(at));
        registry.heard(&id(1), 1, seconds(at));
    }
    assert_eq!(state(&registry, 1), (State::Connected, Cause::Opened));
    registry.advance(seconds(1_801));
    assert_eq!(state(&registry, 1), (State::Stalled, Cause::Overdue));
    registry.check_in(&id(1), told(2), seconds(1_802)).unwrap();
    assert_eq!(state(&registry, 1), (State::Connected, Cause::CheckedIn));
}

#[test]
fn a_full_table_drops_who_is_gone_for_longest_and_nobody_else() {
    let mut registry = Registry::new(rules());
    for who in 0..6 {
        registry.check_in(&id(who), told(1), START).unwrap();
    }
    assert_eq!(registry.check_in(&id(6), told(1), START), Err(Refused::Full));
    registry.bye(&id(3), seconds(1));
    registry.bye(&id(1), seconds(2));
    registry.check_in(&id(6), told(1), seconds(3)).unwrap();
    assert!(registry.agent(&id(3)).is_none());
    assert_eq!(registry.take_dropped(), [id(3)]);
    assert_eq!(state(&registry, 1), (State::Shutdown, Cause::Shutdown));
}

#[test]
fn the_newer_of_two_handlers_has_the_agent_once() {
    let mut below = Registry::new(rules());
    below.check_in(&id(1), told(5), START).unwrap();
    let mut reported = below.agent(&id(1)).unwrap().clone();
    reported.handler = Some("branch".to_owned());
    let mut registry = Registry::new(rules());
    assert_eq!(registry.reported(reported.clone(), BRANCH, START).0, Taken::Whole);
    assert_eq!(registry.agent(&id(1)).unwrap().handler.as_deref(), Some("branch"));
    assert_eq!(registry.next(), None, "the other node turns its hands");
    registry.check_in(&id(1), told(6), seconds(1)).unwrap();
    assert_eq!(registry.agent(&id(1)).unwrap().handler, None);
    reported.heard = seconds(100);
    let again = registry.reported(reported, BRANCH, seconds(100)).0;
    assert_eq!(again, Taken::Not, "an older sequence, however late it is told");
    assert_eq!(registry.len(), 1);
}

const BRANCH: Teller<'_> = Teller { node: "branch", overtaken: false };

/// What a node called so tells of agent 1 after these check-ins.
fn of(node: &str, check_ins: u64, sequence: u64) -> Agent {
    let mut below = Registry::new(rules());
    below.check_in(&id(1), told(sequence), seconds(sequence)).unwrap();
    let known = below.agent(&id(1)).unwrap().clone();
    Agent { handler: Some(node.to_owned()), check_ins, ..known }
}

#[test]
fn check_ins_are_counted_once_wherever_the_agent_was_and_however_often_they_are_told() {
    let mut registry = Registry::new(rules());
    let tell = |registry: &mut Registry, node: &str, (check_ins, sequence), overtaken| {
        let taken = registry.reported(of(node, check_ins, sequence), Teller { node, overtaken }, START).0;
        (taken, registry.agent(&id(1)).unwrap().check_ins)
    };
    assert_eq!(tell(&mut registry, "a", (5, 5), false), (Taken::Whole, 5));
    assert_eq!(tell(&mut registry, "a", (5, 5), false), (Taken::Whole, 5), "told again");
    assert_eq!(tell(&mut registry, "b", (2, 8), false), (Taken::Whole, 7), "it is elsewhere now");
    assert_eq!(tell(&mut registry, "a", (6, 6), false), (Taken::Count, 8), "what the first had not told yet");
    assert_eq!(tell(&mut registry, "a", (6, 6), false), (Taken::Not, 8));
    registry.check_in(&id(1), told(9), seconds(9)).unwrap();
    assert_eq!(tell(&mut registry, "a", (8, 11), false), (Taken::Whole, 11), "one here, two more there");
    assert_eq!(tell(&mut registry, "a", (7, 10), true), (Taken::Not, 11), "this one hung on its way");
    assert_eq!(tell(&mut registry, "a", (1, 12), false), (Taken::Whole, 12), "it was forgotten there");
}

#[test]
fn what_an_agent_said_stays_known_while_it_has_said_nothing_to_its_next_handler() {
    let mut registry = Registry::new(rules());
    let mut first = of("a", 3, 3);
    first.told.properties.tags = vec!["till".to_owned()];
    registry.reported(first, Teller { node: "a", overtaken: false }, START);
    let mut second = Registry::new(rules());
    second.open(&id(1), Contact::Stream, 1, seconds(60)).unwrap();
    let next = Agent { handler: Some("b".to_owned()), ..second.agent(&id(1)).unwrap().clone() };
    assert_eq!(registry.reported(next, Teller { node: "b", overtaken: false }, START).0, Taken::Whole);
    let known = registry.agent(&id(1)).unwrap();
    assert_eq!((known.handler.as_deref(), known.standing.state), (Some("b"), State::Connected));
    assert_eq!((&*known.told.properties.tags, known.check_ins), (&["till".to_owned()][..], 3));
    assert_eq!(known.checked_in, seconds(3));
    assert_eq!(
        registry.reported(of("a", 4, 2), Teller { node: "a", overtaken: false }, START).0,
        Taken::Count
    );
}

#[test]
fn after_a_restart_who_was_connected_is_grey() {
    let mut before = Registry::new(rules());
    before.open(&id(1), Contact::Stream, 1, START).unwrap();
    before.check_in(&id(2), told(1), START).unwrap();
    let mut after = Registry::new(rules());
    before.agents().cloned().for_each(|agent| after.restore(agent, seconds(9)));
    assert_eq!(state(&after, 1), (State::Grey, Cause::Restart));
    assert_eq!(state(&after, 2), (State::Reporting, Cause::CheckedIn));
    after.advance(seconds(9 + 1_800));
    assert_eq!(state(&after, 1).0, State::Offline);
}

fn passive(number: u8) -> Passive {
    Passive { id: id(number), properties: crate::protocol::agent_api::Properties::default() }
}

#[test]
fn traffic_is_written_down_when_it_says_something_new_and_else_once_an_interval() {
    let mut registry = Registry::new(rules());
    let took = |version: &str| Some(("clamav/daily.cvd".to_owned(), version.to_owned()));
    let mut passed = |took, at| registry.passed(passive(1), took, seconds(at)).len();
    assert_eq!(passed(None, 0), 1);
    assert_eq!(passed(None, 60), 0);
    assert_eq!(passed(took("7"), 120), 1);
    assert_eq!(passed(took("7"), 180), 0);
    assert_eq!(passed(took("8"), 240), 1);
    assert_eq!(passed(None, 839), 0);
    assert_eq!(passed(None, 840), 1);
    let agent = registry.agent(&id(1)).unwrap();
    assert_eq!((agent.heard, agent.told.content.len()), (seconds(840), 1));
    assert_eq!(state(&registry, 1), (State::Passive, Cause::Traffic));
}

#[test]
fn traffic_neither_takes_anybodys_place_nor_keeps_it_from_who_checks_in() {
    let mut registry = Registry::new(rules());
    for who in 0..6 {
        registry.passed(passive(who), None, seconds(who.into()));
    }
    assert!(registry.passed(passive(6), None, seconds(6)).is_empty());
    assert!(registry.agent(&id(6)).is_none());
    registry.check_in(&id(7), told(1), seconds(7)).unwrap();
    assert_eq!(registry.take_dropped(), [id(0)], "who is there for longest");
    // One that begins to check in is no longer known from its traffic only.
    registry.check_in(&id(1), told(1), seconds(8)).unwrap();
    registry.passed(passive(1), None, seconds(9));
    assert_eq!(state(&registry, 1), (State::Reporting, Cause::CheckedIn));
}
