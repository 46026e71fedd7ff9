//! Finds the reasons: goes the way of an agent once more and notes what decided at each step.

use super::compiled::{Decision, Fleet, Locator};
use super::criteria::Subject;
use super::documents::RULES;
use super::explain::{Explanation, GroupReason, HandlerReason, LeftOut, PolicyReason, RuleReason};
use super::model::{Facts, State};
use super::order::{How, Ordered, Placed};
use super::policies::Giver;
use super::write;

/// Rules told that do not match; more would hide the one that does.
const PASSED_OVER: usize = 10;
/// Handlers told that are not in the list.
const LEFT_OUT: usize = 100;

pub(super) fn explain(fleet: &Fleet, facts: &Facts) -> Explanation {
    let (agent, locator) = fleet.subject(facts);
    let decision = fleet.decide(&agent);
    let ordered = fleet.order(&decision, &facts.id);
    let (rule, passed_over) = rules(fleet, &agent, &decision);
    let listed_tags = fleet.known(&facts.id).is_some_and(|known| known.tags.is_some());
    Explanation {
        schema: 1,
        agent: facts.id.clone(),
        tree: agent.tree.clone().into_owned(),
        tree_because: located(fleet, &agent, locator),
        tags: agent.tags.iter().map(|tag| (*tag).to_owned()).collect(),
        tags_because: match (listed_tags, agent.tags.is_empty()) {
            (true, _) => "the documents list them",
            (false, true) => "it has none",
            (false, false) => "it says so itself",
        }
        .to_owned(),
        addresses: facts.addresses.clone(),
        rule,
        passed_over,
        selection: decision.selection,
        groups: groups(fleet, &ordered),
        handlers: handlers(fleet, &ordered),
        left_out: left_out(fleet, &ordered),
        repositories: write::repositories(fleet).map(|it| it.name.clone()).collect(),
        policies: policies(fleet, &agent),
    }
}

fn located(fleet: &Fleet, agent: &Subject<'_>, locator: Locator) -> String {
    match locator {
        Locator::Listed => "the documents list it there".to_owned(),
        Locator::Sorted(number) => {
            let rule = fleet.sorting.list().get(number);
            let why = rule.map_or_else(String::new, |rule| rule.criteria.why(agent));
            let line = rule.map_or(0, |rule| rule.line);
            format!("{why} ({})", Fleet::place(line))
        }
        Locator::Itself => "it says so itself".to_owned(),
        Locator::Nobody => "nobody says where it is".to_owned(),
    }
}

fn rules(fleet: &Fleet, agent: &Subject<'_>, decision: &Decision<'_>) -> (RuleReason, Vec<RuleReason>) {
    let mut passed_over = Vec::new();
    for (number, rule) in fleet.assignments.candidates(agent) {
        let place = Some(Fleet::place(rule.line));
        let Some(miss) = rule.criteria.miss(agent).filter(|_| decision.rule != Some(number)) else {
            let reason = RuleReason { name: rule.name.clone(), place, because: rule.criteria.why(agent) };
            return (reason, passed_over);
        };
        if passed_over.len() < PASSED_OVER {
            let because = miss.told().to_owned();
            passed_over.push(RuleReason { name: rule.name.clone(), place, because });
        }
    }
    let because = "no rule is for it, so it gets all handlers".to_owned();
    (RuleReason { name: "default".to_owned(), place: None, because }, passed_over)
}

fn groups(fleet: &Fleet, ordered: &Ordered) -> Vec<GroupReason> {
    let all = fleet.handlers.groups();
    let told = ordered.groups.iter().filter_map(|(group, parent)| {
        let group = all.get(*group)?;
        let because = match parent.and_then(|parent| all.get(parent)) {
            Some(parent) => format!("a member of {}", parent.name),
            None => "the rule names it".to_owned(),
        };
        Some(GroupReason { name: group.name.clone(), order: group.order, because })
    });
    told.collect()
}

fn handlers(fleet: &Fleet, ordered: &Ordered) -> Vec<HandlerReason> {
    let fitting = write::fitting(fleet, ordered);
    let told = ordered.placed.iter().take(fitting).filter_map(|placed| {
        let handler = fleet.handlers.handler(placed.handler)?;
        let group = placed.group.and_then(|group| fleet.handlers.groups().get(group));
        Some(HandlerReason {
            order: placed.tier,
            name: handler.name.clone(),
            internal: handler.internal.clone(),
            state: handler.state,
            group: group.map(|group| group.name.clone()),
            because: because(fleet, placed),
        })
    });
    told.collect()
}

fn because(fleet: &Fleet, placed: &Placed) -> String {
    let handler = fleet.handlers.handler(placed.handler);
    let (weight, state) = handler.map_or((0, State::Active), |handler| (handler.weight, handler.state));
    let group = placed.group.and_then(|group| fleet.handlers.groups().get(group));
    let group = group.map_or("the rule", |group| group.name.as_str());
    let why = match placed.how {
        How::Named => "the rule names it".to_owned(),
        How::All => format!("balanced over all handlers by the agent's id, weight {weight}"),
        How::Priority => format!("its place in {group}"),
        How::Balanced => format!("balanced in {group} by the agent's id, weight {weight}"),
        How::Random => format!("equal to others in {group}: the agent chooses at random"),
    };
    if state == State::Draining { format!("draining, so behind all that are active; {why}") } else { why }
}

fn left_out(fleet: &Fleet, ordered: &Ordered) -> Vec<LeftOut> {
    let name = |number: usize| fleet.handlers.handler(number).map_or("", |handler| handler.name.as_str());
    let disabled = ordered.disabled.iter().map(|number| (*number, "it is disabled"));
    let fitting = write::fitting(fleet, ordered);
    let beyond = ordered.placed.iter().skip(fitting);
    let beyond = beyond.map(|placed| (placed.handler, "a sitelist has no room for more"));
    let told = disabled.chain(beyond).take(LEFT_OUT);
    told.map(|(number, why)| LeftOut { name: name(number).to_owned(), because: why.to_owned() }).collect()
}

fn policies(fleet: &Fleet, agent: &Subject<'_>) -> Vec<PolicyReason> {
    let policies = &fleet.policies;
    let giver = |by: &Giver<'_>| match by {
        Giver::Tree(place) => {
            let line = policies.tree.get(*place).map_or(0, |assigned| assigned.line);
            let how = if *place == agent.tree.as_str() { "assigned at" } else { "inherited from" };
            format!("{how} {place} ({RULES}:{line})")
        }
        Giver::Rule(name) => {
            let rule = policies.rules.list().iter().find(|rule| rule.name == *name);
            let why = rule.map_or_else(String::new, |rule| rule.criteria.why(agent));
            format!("rule `{name}`: {why} ({RULES}:{})", rule.map_or(0, |rule| rule.line))
        }
    };
    let given = policies.given(agent);
    let told = given.iter().filter_map(|given| {
        let policy = policies.all.get(given.policy)?;
        let lost = given.instead_of.iter().filter_map(|(policy, by)| {
            let policy = policies.all.get(*policy)?;
            Some(format!("{}/{}, {}", policy.category, policy.name, giver(by)))
        });
        Some(PolicyReason {
            category: policy.category.clone(),
            name: policy.name.clone(),
            sha256: policy.sha256,
            because: giver(&given.by),
            instead_of: lost.collect(),
        })
    });
    told.collect()
}
