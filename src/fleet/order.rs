//! Handlers and groups of them, and the order in which one agent gets them.

use std::collections::HashMap;

use super::balance::{Seed, score};
use super::model::{Group, Handler, Order, State};
use super::names::AgentId;

/// A handler or a group, by its place in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Member {
    Handler(usize),
    Group(usize),
}

/// Which handlers a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Targets {
    /// All of them, balanced.
    All,
    /// These, in this order.
    List(Vec<Member>),
}

/// All handlers and groups. Groups have no loops.
#[derive(Clone, Debug, Default)]
pub(super) struct Handlers {
    handlers: Vec<Handler>,
    groups: Vec<Group>,
    names: HashMap<String, Member>,
    handler_seeds: Vec<Seed>,
    nodes: Vec<Node>,
}

/// What a group is when agents are led through it.
#[derive(Clone, Debug)]
struct Node {
    members: Vec<Member>,
    seed: Seed,
    /// Of the active handlers in it, each counted once.
    weight: u64,
}

/// A handler at its place in an agent's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) handler: usize,
    /// From 1; equal ones are chosen from at random.
    pub(super) tier: u32,
    /// The group that brought it in.
    pub(super) group: Option<usize>,
    pub(super) how: How,
}

/// What decided about a handler's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The rule names it itself.
    Named,
    /// All handlers are balanced.
    All,
    /// Its place in the list of its group.
    Priority,
    /// Weight and the agent's hash.
    Balanced,
    /// Nothing: it is equal to others.
    Random,
}

/// An agent's handlers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ordered {
    /// Active ones first, then draining ones.
    pub(super) placed: Vec<Placed>,
    /// The groups it was led through, each with the group it is in.
    pub(super) groups: Vec<(usize, Option<usize>)>,
    pub(super) disabled: Vec<usize>,
}

impl Handlers {
    /// Joins what was read. `members` has the members of each group.
    pub(super) fn new(handlers: Vec<Handler>, groups: Vec<Group>, members: Vec<Vec<Member>>) -> Self {
        let mut names = HashMap::new();
        for (number, handler) in handlers.iter().enumerate() {
            names.insert(handler.name.clone(), Member::Handler(number));
        }
        for (number, group) in groups.iter().enumerate() {
            names.insert(group.name.clone(), Member::Group(number));
        }
        let handler_seeds = handlers.iter().map(|handler| Seed::of(&handler.name)).collect();
        let seeds = groups.iter().map(|group| Seed::of(&group.name));
        let nodes = members.into_iter().zip(seeds).map(|(members, seed)| Node { members, seed, weight: 0 });
        let mut all = Self { nodes: nodes.collect(), handlers, groups, names, handler_seeds };
        let weights: Vec<u64> = (0..all.nodes.len()).map(|group| all.active_weight(group)).collect();
        for (node, weight) in all.nodes.iter_mut().zip(weights) {
            node.weight = weight;
        }
        all
    }

    pub(super) fn handlers(&self) -> &[Handler] {
        &self.handlers
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn named(&self, name: &str) -> Option<Member> {
        self.names.get(name).copied()
    }

    pub(super) fn handler(&self, number: usize) -> Option<&Handler> {
        self.handlers.get(number)
    }

    /// The handlers behind a member, each once, as they are listed.
    pub(super) fn behind(&self, member: Member) -> Vec<&Handler> {
        let mut seen = vec![false; self.handlers.len()];
        let mut seen_groups = vec![false; self.nodes.len()];
        let mut left = vec![member];
        let mut found = Vec::new();
        while let Some(member) = left.pop() {
            match member {
                Member::Handler(number) => {
                    if first_time(&mut seen, number) {
                        found.extend(self.handlers.get(number));
                    }
                }
                Member::Group(number) => {
                    if first_time(&mut seen_groups, number) {
                        let members = self.nodes.get(number).map_or(&[][..], |node| &node.members);
                        left.extend(members.iter().rev());
                    }
                }
            }
        }
        found
    }

    fn active_weight(&self, group: usize) -> u64 {
        let behind = self.behind(Member::Group(group));
        let active = behind.iter().filter(|handler| handler.state == State::Active);
        active.map(|handler| u64::from(handler.weight)).sum()
    }

    /// The handlers of one agent. Takes time for the handlers behind `targets`.
    pub(super) fn order(&self, targets: &Targets, agent: &AgentId) -> Ordered {
        let mut walk = Walk {
            all: self,
            agent: Seed::of(agent.as_str()),
            tier: 1,
            level: 0,
            seen: vec![false; self.handlers.len()],
            seen_groups: vec![false; self.nodes.len()],
            ordered: Ordered::default(),
        };
        match targets {
            Targets::All => {
                let all: Vec<Member> = (0..self.handlers.len()).map(Member::Handler).collect();
                for member in walk.balanced(&all) {
                    walk.visit(member, None, How::All);
                }
            }
            Targets::List(members) => {
                members.iter().for_each(|member| walk.visit(*member, None, How::Named));
            }
        }
        walk.finish()
    }
}

/// An agent on its way through the groups.
struct Walk<'a> {
    all: &'a Handlers,
    agent: Seed,
    tier: u32,
    /// How many groups around are random: all in them is equal.
    level: u32,
    seen: Vec<bool>,
    seen_groups: Vec<bool>,
    ordered: Ordered,
}

impl Walk<'_> {
    fn visit(&mut self, member: Member, group: Option<usize>, how: How) {
        match member {
            Member::Handler(number) => self.place(number, group, how),
            Member::Group(number) => self.enter(number, group),
        }
    }

    fn place(&mut self, handler: usize, group: Option<usize>, how: How) {
        // Whoever brought it in first decided.
        if !first_time(&mut self.seen, handler) {
            return;
        }
        let Some(found) = self.all.handlers.get(handler) else { return };
        if found.state == State::Disabled {
            self.ordered.disabled.push(handler);
            return;
        }
        let how = if self.level > 0 { How::Random } else { how };
        self.ordered.placed.push(Placed { handler, tier: self.tier, group, how });
        if self.level == 0 {
            self.tier += 1;
        }
    }

    fn enter(&mut self, group: usize, parent: Option<usize>) {
        // All that is in it has its place already, and groups within groups could be led through again and again.
        if !first_time(&mut self.seen_groups, group) {
            return;
        }
        let all = self.all;
        let (Some(node), Some(found)) = (all.nodes.get(group), all.groups.get(group)) else { return };
        self.ordered.groups.push((group, parent));
        match found.order {
            Order::Priority => {
                node.members.iter().for_each(|member| self.visit(*member, Some(group), How::Priority));
            }
            Order::Balanced => {
                for member in self.balanced(&node.members) {
                    self.visit(member, Some(group), How::Balanced);
                }
            }
            Order::Random => {
                self.level += 1;
                node.members.iter().for_each(|member| self.visit(*member, Some(group), How::Random));
                self.level -= 1;
                if self.level == 0 {
                    self.tier += 1;
                }
            }
        }
    }

    fn balanced(&self, members: &[Member]) -> Vec<Member> {
        let mut scored: Vec<(f64, Member)> =
            members.iter().map(|member| (self.score(*member), *member)).collect();
        scored.sort_by(|one, two| two.0.total_cmp(&one.0));
        scored.into_iter().map(|(_, member)| member).collect()
    }

    fn score(&self, member: Member) -> f64 {
        let all = self.all;
        let (seed, weight) = match member {
            Member::Handler(number) => (
                all.handler_seeds.get(number).copied().unwrap_or_default(),
                all.handlers.get(number).map_or(0, |handler| u64::from(handler.weight)),
            ),
            Member::Group(number) => {
                all.nodes.get(number).map_or((Seed::default(), 0), |node| (node.seed, node.weight))
            }
        };
        score(self.agent, seed, weight)
    }

    fn finish(self) -> Ordered {
        let mut ordered = self.ordered;
        let state = |placed: &Placed| self.all.handlers.get(placed.handler).map(|handler| handler.state);
        // A stable sort: draining ones last, else as before.
        ordered.placed.sort_by_key(state);
        let mut tier = 0;
        let mut last = None;
        for placed in &mut ordered.placed {
            let now = Some((state(placed), placed.tier));
            tier += u32::from(now != last);
            last = now;
            placed.tier = tier;
        }
        ordered
    }
}

fn first_time(seen: &mut [bool], number: usize) -> bool {
    seen.get_mut(number).is_some_and(|seen| !std::mem::replace(seen, true))
}
