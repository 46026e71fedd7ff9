//! The rules of a repository: what an administrator knows better about a file than its origin says.
//!
//! Rules are looked at in the order they are written, and **the first whose pattern matches applies as a
//! whole**; what it leaves open is the origin's or the default. Patterns are globs over the path of the URL:
//! `*` stays within a folder, `**` does not; a pattern without a slash means a file name in any folder.

use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::base::clock::Timestamp;
use crate::base::limits::{PATTERN_BYTES, RULES};
use crate::protocol::freshness::{Facts, NoStoreReason, Storable};
use crate::protocol::target::decode_path;

/// How long a stale file goes out while it is revalidated behind, where nobody says otherwise.
pub const STALE_WHILE_REVALIDATE: Duration = Duration::from_secs(60);

/// How long a stale file goes out when upstream fails: a long weekend with a dead WAN.
pub const STALE_IF_ERROR: Duration = Duration::from_secs(7 * 86_400);

/// How long a "not found" is believed.
pub const NEGATIVE_FOR: Duration = Duration::from_secs(10);

/// How often clients that insist can make us ask upstream about one file, all together.
pub const REVALIDATE_AT_MOST: Duration = Duration::from_secs(5);

/// One rule as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The glob.
    pub pattern: String,
    /// Fresh for so long after it was received or revalidated, whatever the origin says.
    pub fresh_for: Option<Duration>,
    /// Replaces the origin's `stale-while-revalidate`.
    pub stale_while_revalidate: Option<Duration>,
    /// Replaces the origin's `stale-if-error`.
    pub stale_if_error: Option<Duration>,
    /// Never changes under this name, so is never revalidated; `false`: do not believe the origin's `immutable`.
    pub immutable: Option<bool>,
    /// How long a "not found" is believed.
    pub negative_for: Option<Duration>,
}

/// What applies to one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The rule's word, or the origin's.
    pub fresh_for: Option<Duration>,
    /// The rule's word, or the origin's, or [`STALE_WHILE_REVALIDATE`].
    pub stale_while_revalidate: Option<Duration>,
    /// The rule's word, or the origin's, or [`STALE_IF_ERROR`].
    pub stale_if_error: Option<Duration>,
    /// The rule's word, or the origin's.
    pub immutable: Option<bool>,
    /// How long a "not found" is believed.
    pub negative_for: Duration,
    /// Whether that is a rule's word: then it outranks the origin's.
    pub negative_said: bool,
    /// How often clients that insist can make us ask upstream.
    pub revalidate_at_most: Duration,
}

impl Default for Effective {
    fn default() -> Self {
        Self::of(&Rule::default())
    }
}

impl Effective {
    /// For what can never change.
    pub const fn immutable() -> Self {
        Self {
            fresh_for: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            immutable: Some(true),
            negative_for: Duration::ZERO,
            negative_said: true,
            revalidate_at_most: REVALIDATE_AT_MOST,
        }
    }

    fn of(rule: &Rule) -> Self {
        Self {
            fresh_for: rule.fresh_for,
            stale_while_revalidate: rule.stale_while_revalidate,
            stale_if_error: rule.stale_if_error,
            immutable: rule.immutable,
            negative_for: rule.negative_for.unwrap_or(NEGATIVE_FOR),
            negative_said: rule.negative_for.is_some(),
            revalidate_at_most: REVALIDATE_AT_MOST,
        }
    }

    /// When a reply with these facts stops being fresh; `None`: never, it is immutable by rule. A rule counts
    /// from our own receipt: an administrator's `fresh_for` does not shrink with an upstream's clock.
    pub fn fresh_until(&self, facts: &Facts) -> Option<Timestamp> {
        match (self.immutable, self.fresh_for) {
            (Some(true), _) => None,
            (_, Some(fresh_for)) => Some(facts.received_at.after(fresh_for)),
            (_, None) => Some(facts.fresh_until()),
        }
    }

    /// Whether a client's reload is not reason enough to ask, as long as it is fresh.
    pub fn is_immutable(&self, facts: &Facts) -> bool {
        self.immutable.unwrap_or(facts.immutable)
    }

    /// How long past its freshness it goes out while it is revalidated behind. Zero where the origin forbids
    /// it, as RFC 9111 §4.2.4 says.
    pub fn stale_while_revalidate(&self, facts: &Facts) -> Duration {
        if facts.must_revalidate || facts.no_cache {
            return Duration::ZERO;
        }
        self.stale_while_revalidate.or(facts.swr).unwrap_or(STALE_WHILE_REVALIDATE)
    }

    /// How long past its freshness it goes out when upstream fails. `must-revalidate` forbids it to everybody;
    /// `no-cache`, which many servers send with everything, to all but a rule that says it.
    pub fn stale_if_error(&self, facts: &Facts) -> Duration {
        if facts.must_revalidate {
            return Duration::ZERO;
        }
        let default = if facts.no_cache { Duration::ZERO } else { STALE_IF_ERROR };
        self.stale_if_error.or(facts.sie.filter(|_| !facts.no_cache)).unwrap_or(default)
    }

    /// Whether a 404 or 410 with these facts may be repeated to others for [`Effective::negative_for`]. Nothing of it
    /// goes to them but its status, so only what the origin said about keeping it counts.
    pub const fn may_believe_absent(&self, facts: &Facts) -> bool {
        let forbidden = matches!(facts.store, Storable::No(NoStoreReason::NoStore | NoStoreReason::Private));
        self.negative_said || !forbidden
    }

    /// Whether a reply may be kept. A rule that says how long it is fresh, or that it never changes, is a
    /// permission that outranks `no-store`, `private` and cookies, which load balancers add to public files;
    /// it is none to mix up representations or users.
    pub fn may_store(&self, facts: &Facts) -> Storable {
        let permitted = self.fresh_for.is_some() || self.immutable == Some(true);
        match facts.store {
            Storable::No(NoStoreReason::NoStore | NoStoreReason::Private | NoStoreReason::SetCookie)
                if permitted =>
            {
                Storable::Yes
            }
            as_it_came => as_it_came,
        }
    }
}

/// A rule that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{pattern}`: {reason}")]
pub struct RuleError {
    /// Which one, counted from 0.
    pub index: usize,
    /// Its pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The compiled rules of one repository.
#[derive(Debug, Default)]
pub struct Rules {
    globs: GlobSet,
    /// One for each glob, in the same order.
    rules: Vec<Effective>,
    /// What applies where no rule matches.
    otherwise: Effective,
}

impl Rules {
    /// Compiles rules in their order.
    ///
    /// # Errors
    /// The first rule that cannot be used: a broken pattern, an empty or overlong one, or one too many.
    pub fn compile(rules: Vec<Rule>) -> Result<Self, RuleError> {
        let mut globs = GlobSetBuilder::new();
        let mut effective = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let refuse = |reason: String| RuleError { index, pattern: rule.pattern.clone(), reason };
            if index >= RULES {
                return Err(refuse(format!("a repository has at most {RULES} rules")));
            }
            globs.add(compile_pattern(&rule.pattern).map_err(refuse)?);
            effective.push(Effective::of(&rule));
        }
        let globs = globs.build().map_err(|error| RuleError {
            index: 0,
            pattern: String::new(),
            reason: error.kind().to_string(),
        })?;
        Ok(Self { globs, rules: effective, otherwise: Effective::default() })
    }

    /// What applies to `path`, the canonical path of the URL. Free where there are no rules; otherwise a
    /// match against all patterns at once.
    pub fn effective(&self, path: &str) -> &Effective {
        self.which(path).and_then(|first| self.rules.get(first)).unwrap_or(&self.otherwise)
    }

    /// Which rule that is, counted from 0; `None` where none matches.
    pub fn which(&self, path: &str) -> Option<usize> {
        if self.rules.is_empty() {
            return None;
        }
        let decoded;
        let path = if path.contains('%') {
            decoded = decode_path(path);
            &decoded
        } else {
            path
        };
        let mut matches = Vec::new();
        self.globs.matches_into(path.strip_prefix('/').unwrap_or(path), &mut matches);
        matches.into_iter().min()
    }
}

/// Globs without rules, written as the patterns of rules are.
#[derive(Debug, Default)]
pub struct Patterns(GlobSet);

impl Patterns {
    /// Compiles globs.
    ///
    /// # Errors
    /// The first one that cannot be used.
    pub fn compile(patterns: &[String]) -> Result<Self, RuleError> {
        let mut globs = GlobSetBuilder::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let refuse = |reason: String| RuleError { index, pattern: pattern.clone(), reason };
            globs.add(compile_pattern(pattern).map_err(refuse)?);
        }
        let broken = |error: globset::Error| RuleError {
            index: 0,
            pattern: String::new(),
            reason: error.kind().to_string(),
        };
        globs.build().map(Self).map_err(broken)
    }

    /// Whether one of them matches `path`, the canonical path of the URL without its leading slash.
    pub fn matches(&self, path: &str) -> bool {
        if path.contains('%') { self.0.is_match(decode_path(path)) } else { self.0.is_match(path) }
    }
}

fn compile_pattern(pattern: &str) -> Result<globset::Glob, String> {
    if pattern.is_empty() {
        return Err("is empty; `**` matches everything".to_owned());
    }
    if pattern.len() > PATTERN_BYTES {
        return Err(format!("is longer than {PATTERN_BYTES} characters"));
    }
    let anchored = match pattern.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if pattern.contains('/') => pattern.to_owned(),
        None => format!("**/{pattern}"),
    };
    GlobBuilder::new(&anchored)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn rules(patterns: &[&str]) -> Rules {
        let rule = |(index, pattern): (usize, &&str)| Rule {
            pattern: (*pattern).to_owned(),
            fresh_for: Some(seconds(index as u64 + 1)),
            ..Rule::default()
        };
        Rules::compile(patterns.iter().enumerate().map(rule).collect()).unwrap()
    }

    /// Which rule applies, counted from 1; 0 for none.
    fn which(rules: &Rules, path: &str) -> u64 {
        rules.effective(path).fresh_for.map_or(0, |fresh_for| fresh_for.as_secs())
    }

    fn facts() -> Facts {
        Facts {
            lifetime: seconds(100),
            initial_age: seconds(40),
            received_at: Timestamp(1_000_000),
            swr: None,
            sie: None,
            must_revalidate: false,
            no_cache: false,
            immutable: false,
            store: Storable::Yes,
        }
    }

    #[test]
    fn the_first_match_applies_as_a_whole() {
        let rules = rules(&["/Software/Current/avvdat.ini", "*.ini", "/Software/**", "/*/x"]);
        assert_eq!(which(&rules, "/Software/Current/avvdat.ini"), 1);
        assert_eq!(which(&rules, "/Software/Current/other.ini"), 2);
        assert_eq!(which(&rules, "/top.ini"), 2);
        assert_eq!(which(&rules, "/Software/Current/DAT/0000/avv.zip"), 3);
        assert_eq!(which(&rules, "/a/x"), 4);
        assert_eq!(which(&rules, "/a/b/x"), 0);
    }

    #[test]
    fn a_star_stays_within_its_folder() {
        let rules = rules(&["/a/*.zip", "b/**/c"]);
        assert_eq!(which(&rules, "/a/x.zip"), 1);
        assert_eq!(which(&rules, "/a/b/x.zip"), 0);
        assert_eq!(which(&rules, "/b/c"), 2);
        assert_eq!(which(&rules, "/b/x/y/c"), 2);
        assert_eq!(which(&rules, "/x/b/c"), 0);
    }

    #[test]
    fn patterns_are_written_as_people_read_paths() {
        let rules = rules(&["/a b/ä*"]);
        assert_eq!(which(&rules, "/a%20b/%C3%A4x"), 1);
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let broken = |pattern: &str| {
            let good = Rule { pattern: "*".into(), ..Rule::default() };
            let bad = Rule { pattern: pattern.into(), ..Rule::default() };
            Rules::compile(vec![good, bad]).unwrap_err()
        };
        for pattern in ["", "[", "{a,b", "a**[", &"x".repeat(PATTERN_BYTES + 1)] {
            let error = broken(pattern);
            assert_eq!((error.index, error.pattern.as_str()), (1, pattern));
            assert!(!error.reason.is_empty());
        }
        assert_eq!(
            Rules::compile(vec![Rule { pattern: "*".into(), ..Rule::default() }; RULES + 1])
                .unwrap_err()
                .index,
            RULES
        );
    }

    #[test]
    fn no_rules_cost_nothing_and_give_the_defaults() {
        let effective = *Rules::default().effective("/x");
        assert_eq!(effective, Effective::default());
        assert_eq!(effective.stale_while_revalidate(&facts()), STALE_WHILE_REVALIDATE);
        assert_eq!(effective.stale_if_error(&facts()), STALE_IF_ERROR);
        assert_eq!(effective.fresh_until(&facts()), Some(Timestamp(1_060_000)));
    }

    #[test]
    fn the_rule_outranks_the_origin_and_the_origin_the_default() {
        let said = Facts { swr: Some(seconds(1)), sie: Some(seconds(2)), ..facts() };
        let silent = Effective::default();
        assert_eq!(
            (silent.stale_while_revalidate(&said), silent.stale_if_error(&said)),
            (seconds(1), seconds(2))
        );
        let rule = Effective::of(&Rule {
            fresh_for: Some(seconds(9)),
            stale_while_revalidate: Some(seconds(3)),
            stale_if_error: Some(seconds(4)),
            ..Rule::default()
        });
        assert_eq!(
            (rule.stale_while_revalidate(&said), rule.stale_if_error(&said)),
            (seconds(3), seconds(4))
        );
        assert_eq!(rule.fresh_until(&said), Some(Timestamp(1_009_000)));
        let forever = Effective { immutable: Some(true), ..rule };
        assert_eq!(forever.fresh_until(&said), None);
    }

    #[test]
    fn what_must_be_revalidated_is_never_stale() {
        let must = Facts { must_revalidate: true, sie: Some(seconds(9)), ..facts() };
        let rule = Effective { stale_if_error: Some(seconds(9)), ..Effective::default() };
        assert_eq!(rule.stale_if_error(&must), Duration::ZERO);
        assert_eq!(rule.stale_while_revalidate(&must), Duration::ZERO);
        let no_cache = Facts { no_cache: true, sie: Some(seconds(5)), ..facts() };
        assert_eq!(Effective::default().stale_if_error(&no_cache), Duration::ZERO);
        assert_eq!(rule.stale_if_error(&no_cache), seconds(9));
    }

    #[test]
    fn a_rule_is_a_permission_to_keep_but_not_to_mix_up() {
        let rule = Effective { immutable: Some(true), ..Effective::default() };
        let refused = |reason| Facts { store: Storable::No(reason), ..facts() };
        for reason in [NoStoreReason::NoStore, NoStoreReason::Private, NoStoreReason::SetCookie] {
            assert_eq!(rule.may_store(&refused(reason)), Storable::Yes);
            assert_eq!(Effective::default().may_store(&refused(reason)), Storable::No(reason));
        }
        for reason in [NoStoreReason::VaryStar, NoStoreReason::Authorization, NoStoreReason::ContentCoding] {
            assert_eq!(rule.may_store(&refused(reason)), Storable::No(reason));
        }
    }
}
