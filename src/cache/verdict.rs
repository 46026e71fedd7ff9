//! The verdict: what to do with a request, given what is stored and how upstream is, and why.
//!
//! Pure and total. Each verdict carries its [`Reason`], and its word is the same in `Cache-Status`, the access
//! log, the metrics and the README. The order of preference never changes: a fresh answer, a stale one that
//! may be used, one that was asked for, and an error only when there is nothing better.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::prepared::Prepared;
pub use super::reason::{Reason, Verdict};
use crate::base::clock::Timestamp;
use crate::base::limits::CLOCK_SLACK;
use crate::protocol::cache_control::CacheControl;
use crate::repository::rules::Effective;

/// What a client's `Cache-Control` or `Pragma` asks for (RFC 9111 §5.2.1). `no-store` and `max-stale` are not
/// read: the one is about its own copy, the other a permission that is not needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientWish {
    /// `no-cache`: validated.
    pub no_cache: bool,
    /// `max-age`: not older.
    pub max_age: Option<Duration>,
    /// `min-fresh`: fresh for at least so long.
    pub min_fresh: Option<Duration>,
    /// `only-if-cached`: without asking upstream.
    pub only_if_cached: bool,
}

impl ClientWish {
    /// Whether it wants upstream asked, however fresh what is stored may be.
    pub fn insists(&self) -> bool {
        self.no_cache || self.max_age == Some(Duration::ZERO)
    }

    /// What a request asks for.
    pub fn of(request: &HeaderMap) -> Self {
        // Agents hardly ever ask; then nothing is parsed.
        if !request.contains_key(http::header::CACHE_CONTROL) && !request.contains_key(http::header::PRAGMA) {
            return Self::default();
        }
        let cc = CacheControl::of(request);
        Self {
            no_cache: cc.no_cache,
            max_age: cc.max_age,
            min_fresh: cc.min_fresh,
            only_if_cached: cc.only_if_cached,
        }
    }
}

/// How the sources of the repository are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamState {
    /// At least one can be asked.
    Up,
    /// All are in back-off.
    Down,
}

/// An entry, as far as the verdict is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What was prepared from its head.
    pub prepared: &'a Prepared,
    /// Soft-purged.
    pub stale: bool,
}

/// Everything a verdict depends on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is stored, complete entries only.
    pub entry: Option<Known<'a>>,
    /// What the repository's rules say about the path.
    pub effective: &'a Effective,
    /// What the client asks for.
    pub wish: ClientWish,
    /// How upstream is.
    pub upstream: UpstreamState,
    /// The moment of the decision.
    pub now: Timestamp,
}

/// Decides. A few dozen nanoseconds, no allocation.
pub fn decide(question: &Question<'_>) -> Verdict {
    match question.entry {
        None => question.without(Reason::Miss),
        Some(known) if known.prepared.is_negative() => question.negative(known),
        Some(known) => question.stored(known),
    }
}

/// Decides again after upstream failed to answer: stale is better than an error, and an error the last thing.
pub fn decide_after_error(question: &Question<'_>) -> Verdict {
    let Some(known) = question.entry else { return gateway_timeout(Reason::UpstreamDown) };
    if known.prepared.is_negative() {
        let believed = question.is_believed(known);
        return if believed {
            Verdict::Serve(Reason::NegativeHit)
        } else {
            gateway_timeout(Reason::UpstreamDown)
        };
    }
    match question.freshness(known) {
        Freshness::Fresh { .. } => Verdict::Serve(question.hit(known)),
        Freshness::Stale(by) => question.stale_or(known, by, Reason::StaleIfError),
    }
}

/// Seconds of freshness left, negative once it is over: `ttl` of `Cache-Status`. `None` for what is immutable
/// by rule.
pub fn ttl_seconds(known: &Known<'_>, effective: &Effective, now: Timestamp) -> Option<i64> {
    let until = if known.prepared.is_negative() {
        known.prepared.freshness.received_at.after(effective.negative_for)
    } else {
        effective.fresh_until(&known.prepared.freshness)?
    };
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Some(if until > now { seconds(until.since(now)) } else { -seconds(now.since(until)) })
}

enum Freshness {
    /// With so much left; `None`: without end.
    Fresh { left: Option<Duration> },
    /// For so long.
    Stale(Duration),
}

impl Question<'_> {
    fn stored(&self, known: Known<'_>) -> Verdict {
        let requested = self.is_requested(known);
        match self.freshness(known) {
            Freshness::Fresh { .. } if requested && self.can_ask() => {
                self.ask(known, Reason::RevalidateRequested)
            }
            Freshness::Fresh { .. } => Verdict::Serve(self.hit(known)),
            Freshness::Stale(by) if self.upstream != UpstreamState::Up => {
                self.stale_or(known, by, Reason::StaleUpstreamDown)
            }
            Freshness::Stale(by) => {
                let why_not = self.wish.only_if_cached;
                if !requested && self.is_just_stale(known, by) {
                    // Where freshness is shorter than a few seconds, or none, it still is not asked more often.
                    let refresh = !why_not && self.may_ask_again(known);
                    Verdict::ServeStale { reason: Reason::StaleWhileRevalidate, refresh }
                } else if why_not {
                    gateway_timeout(Reason::OnlyIfCached)
                } else if self.is_suspect(known) {
                    self.ask(known, Reason::RevalidatePurged)
                } else if requested {
                    self.ask(known, Reason::RevalidateRequested)
                } else {
                    self.ask(known, Reason::RevalidateExpired)
                }
            }
        }
    }

    fn negative(&self, known: Known<'_>) -> Verdict {
        if !self.is_believed(known) {
            return self.without(Reason::MissNegativeExpired);
        }
        if self.is_requested(known) && self.can_ask() {
            return Verdict::Fetch(Reason::RevalidateRequested);
        }
        Verdict::Serve(Reason::NegativeHit)
    }

    /// Nothing usable is stored.
    fn without(&self, why: Reason) -> Verdict {
        match self.upstream {
            _ if self.wish.only_if_cached => gateway_timeout(Reason::OnlyIfCached),
            UpstreamState::Up => Verdict::Fetch(why),
            UpstreamState::Down => gateway_timeout(Reason::UpstreamDown),
        }
    }

    fn ask(&self, known: Known<'_>, why: Reason) -> Verdict {
        if known.prepared.can_revalidate() {
            Verdict::Revalidate(why)
        } else if why == Reason::RevalidateRequested {
            Verdict::Fetch(why)
        } else {
            Verdict::Fetch(Reason::MissExpired)
        }
    }

    /// Serves it stale where that is allowed for an error, else refuses.
    fn stale_or(&self, known: Known<'_>, by: Duration, stale: Reason) -> Verdict {
        let facts = &known.prepared.freshness;
        if by < self.effective.stale_if_error(facts) {
            Verdict::ServeStale { reason: stale, refresh: false }
        } else if facts.must_revalidate {
            // RFC 9111 §5.2.2.2 names the status.
            gateway_timeout(Reason::MustRevalidate)
        } else {
            gateway_timeout(Reason::UpstreamDown)
        }
    }

    fn freshness(&self, known: Known<'_>) -> Freshness {
        let until = self.effective.fresh_until(&known.prepared.freshness);
        let Some(until) = until else {
            return if known.stale {
                Freshness::Stale(Duration::ZERO)
            } else {
                Freshness::Fresh { left: None }
            };
        };
        if until > self.now && !self.is_suspect(known) {
            Freshness::Fresh { left: Some(until.since(self.now)) }
        } else {
            Freshness::Stale(self.now.since(until))
        }
    }

    /// Soft-purged, or from the future: not to be used without asking, however fresh it looks.
    fn is_suspect(&self, known: Known<'_>) -> bool {
        known.stale || known.prepared.freshness.received_at > self.now.after(CLOCK_SLACK)
    }

    /// Whether a "not found" is young enough.
    fn is_believed(&self, known: Known<'_>) -> bool {
        let received_at = known.prepared.freshness.received_at;
        !self.is_suspect(known) && self.now.since(received_at) < self.effective.negative_for
    }

    fn is_just_stale(&self, known: Known<'_>, by: Duration) -> bool {
        !self.is_suspect(known) && by < self.effective.stale_while_revalidate(&known.prepared.freshness)
    }

    /// Whether the client insists on more than is stored, and that is not to be ignored: an immutable file
    /// while it is fresh (RFC 8246), or one that somebody asked about just now.
    fn is_requested(&self, known: Known<'_>) -> bool {
        let facts = &known.prepared.freshness;
        let wish = &self.wish;
        if *wish == ClientWish::default() {
            return false;
        }
        let left = match self.freshness(known) {
            Freshness::Fresh { left } if !known.prepared.is_negative() => {
                if self.effective.is_immutable(facts) {
                    return false;
                }
                left
            }
            Freshness::Fresh { .. } | Freshness::Stale(_) => None,
        };
        let too_old = wish.max_age.is_some_and(|max_age| facts.age(self.now) > max_age || max_age.is_zero());
        let too_short = wish.min_fresh.zip(left).is_some_and(|(wanted, left)| left < wanted);
        (wish.no_cache || too_old || too_short) && self.may_ask_again(known)
    }

    /// Whether the last time anybody asked upstream about it was long enough ago.
    fn may_ask_again(&self, known: Known<'_>) -> bool {
        self.now.since(known.prepared.freshness.received_at) >= self.effective.revalidate_at_most
    }

    const fn can_ask(&self) -> bool {
        matches!(self.upstream, UpstreamState::Up) && !self.wish.only_if_cached
    }

    fn hit(&self, known: Known<'_>) -> Reason {
        if self.effective.is_immutable(&known.prepared.freshness) {
            Reason::HitImmutable
        } else {
            Reason::Hit
        }
    }
}

const fn gateway_timeout(reason: Reason) -> Verdict {
    Verdict::Refuse { status: StatusCode::GATEWAY_TIMEOUT, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::digest::Digest;
    use crate::cache::Head;

    const T0: u64 = 784_111_777_000;

    /// An entry received at `T0`.
    fn entry(status: u16, cache_control: &str, tagged: bool) -> Prepared {
        let mut headers = vec![("cache-control".to_owned(), cache_control.as_bytes().to_vec())];
        if tagged {
            headers.push(("etag".to_owned(), b"\"v1\"".to_vec()));
        }
        let at = Timestamp(T0);
        let head = Head { status, headers, requested_at: at, received_at: at, ..Head::default() };
        Prepared::of(&head, 3, Some(&Digest::of(b"abc")))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(T0 + seconds * 1_000)
    }

    fn wish(text: &str) -> ClientWish {
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", http::HeaderValue::from_str(text).unwrap());
        ClientWish::of(&headers)
    }

    fn question<'a>(prepared: &'a Prepared, effective: &'a Effective, seconds: u64) -> Question<'a> {
        Question {
            entry: Some(Known { prepared, stale: false }),
            effective,
            wish: ClientWish::default(),
            upstream: UpstreamState::Up,
            now: at(seconds),
        }
    }

    fn words(verdict: Verdict) -> String {
        let kind = match verdict {
            Verdict::Serve(_) => "serve",
            Verdict::ServeStale { refresh: true, .. } => "stale+refresh",
            Verdict::ServeStale { .. } => "stale",
            Verdict::Revalidate(_) => "revalidate",
            Verdict::Fetch(_) => "fetch",
            Verdict::Refuse { status, .. } => {
                return format!("{} {}", status.as_u16(), verdict.reason().as_str());
            }
        };
        format!("{kind} {}", verdict.reason().as_str())
    }

    use UpstreamState::{Down, Up};

    #[test]
    fn time_and_upstream_decide_what_an_entry_is_worth() {
        let week = 7 * 86_400;
        for (cache_control, seconds, upstream, expected) in [
            ("max-age=100", 0, Up, "serve hit"),
            ("max-age=100", 99, Up, "serve hit"),
            ("max-age=100", 99, Down, "serve hit"),
            ("max-age=100", 100, Up, "stale+refresh stale-while-revalidate"),
            ("max-age=100", 159, Up, "stale+refresh stale-while-revalidate"),
            ("max-age=100", 160, Up, "revalidate revalidate-expired"),
            ("max-age=100", 100, Down, "stale stale-upstream-down"),
            ("max-age=100", 99 + week, Down, "stale stale-upstream-down"),
            ("max-age=100", 100 + week, Down, "504 upstream-down"),
            ("max-age=100, stale-while-revalidate=5", 106, Up, "revalidate revalidate-expired"),
            ("max-age=100, stale-if-error=5", 106, Down, "504 upstream-down"),
            ("max-age=100, must-revalidate", 100, Up, "revalidate revalidate-expired"),
            ("max-age=100, must-revalidate", 100, Down, "504 must-revalidate"),
            ("max-age=100, proxy-revalidate", 99, Down, "serve hit"),
            ("no-cache", 0, Up, "revalidate revalidate-expired"),
            ("no-cache", 0, Down, "504 upstream-down"),
            ("max-age=100, immutable", 99, Up, "serve hit-immutable"),
            ("max-age=0", 0, Up, "stale stale-while-revalidate"),
            ("max-age=0", 4, Up, "stale stale-while-revalidate"),
            ("max-age=0", 5, Up, "stale+refresh stale-while-revalidate"),
        ] {
            let (prepared, effective) = (entry(200, cache_control, true), Effective::default());
            let verdict = decide(&Question { upstream, ..question(&prepared, &effective, seconds) });
            assert_eq!(words(verdict), expected, "{cache_control} after {seconds} s, {upstream:?}");
        }
    }

    #[test]
    fn a_client_that_insists_is_heard_now_and_then() {
        for (cache_control, asks, seconds, upstream, expected) in [
            ("max-age=100", "no-cache", 4, Up, "serve hit"),
            ("max-age=100", "no-cache", 5, Up, "revalidate revalidate-requested"),
            ("max-age=100", "no-cache", 5, Down, "serve hit"),
            ("max-age=100", "max-age=0", 5, Up, "revalidate revalidate-requested"),
            ("max-age=100", "max-age=10", 9, Up, "serve hit"),
            ("max-age=100", "max-age=10", 11, Up, "revalidate revalidate-requested"),
            ("max-age=100", "min-fresh=50", 40, Up, "serve hit"),
            ("max-age=100", "min-fresh=50", 60, Up, "revalidate revalidate-requested"),
            ("max-age=100, immutable", "no-cache", 50, Up, "serve hit-immutable"),
            ("max-age=100, immutable", "no-cache", 100, Up, "revalidate revalidate-requested"),
            ("max-age=100", "no-cache", 101, Up, "revalidate revalidate-requested"),
            ("max-age=100", "no-cache", 101, Down, "stale stale-upstream-down"),
            ("max-age=100", "only-if-cached", 50, Up, "serve hit"),
            ("max-age=100", "only-if-cached, no-cache", 50, Up, "serve hit"),
            ("max-age=100", "only-if-cached", 110, Up, "stale stale-while-revalidate"),
            ("max-age=100", "only-if-cached", 200, Up, "504 only-if-cached"),
            ("max-age=100", "no-store, max-stale", 110, Up, "stale+refresh stale-while-revalidate"),
        ] {
            let (prepared, effective) = (entry(200, cache_control, true), Effective::default());
            let asked = Question { wish: wish(asks), upstream, ..question(&prepared, &effective, seconds) };
            assert_eq!(words(decide(&asked)), expected, "{asks} of {cache_control} after {seconds} s");
        }
    }

    #[test]
    fn nothing_stored_is_fetched_or_refused() {
        let effective = Effective::default();
        for (upstream, asks, expected) in [
            (Up, "x", "fetch miss"),
            (Down, "x", "504 upstream-down"),
            (Up, "only-if-cached", "504 only-if-cached"),
        ] {
            let wish = wish(asks);
            let question = Question { entry: None, effective: &effective, wish, upstream, now: at(0) };
            assert_eq!(words(decide(&question)), expected);
        }
    }

    #[test]
    fn not_found_is_believed_for_a_short_time() {
        let (prepared, effective) = (entry(404, "max-age=86400", true), Effective::default());
        let verdict = |seconds, asks, upstream| {
            words(decide(&Question {
                wish: wish(asks),
                upstream,
                ..question(&prepared, &effective, seconds)
            }))
        };
        assert_eq!(verdict(9, "x", Up), "serve negative-hit");
        assert_eq!(verdict(9, "x", Down), "serve negative-hit");
        assert_eq!(verdict(4, "no-cache", Up), "serve negative-hit");
        assert_eq!(verdict(5, "no-cache", Up), "fetch revalidate-requested");
        assert_eq!(verdict(10, "x", Up), "fetch miss-negative-expired");
        assert_eq!(verdict(10, "x", Down), "504 upstream-down");
        assert_eq!(words(decide_after_error(&question(&prepared, &effective, 9))), "serve negative-hit");
        assert_eq!(words(decide_after_error(&question(&prepared, &effective, 10))), "504 upstream-down");
    }

    #[test]
    fn rules_outrank_the_origin() {
        let prepared = entry(200, "no-cache", true);
        let forever = Effective { immutable: Some(true), ..Effective::default() };
        let asked = Question { wish: wish("no-cache"), ..question(&prepared, &forever, 1_000_000_000) };
        assert_eq!(words(decide(&asked)), "serve hit-immutable");
        let hour = Effective { fresh_for: Some(Duration::from_secs(3_600)), ..Effective::default() };
        assert_eq!(words(decide(&question(&prepared, &hour, 3_599))), "serve hit");
        assert_eq!(words(decide(&question(&prepared, &hour, 3_600))), "revalidate revalidate-expired");
        let doubted = entry(200, "max-age=100, immutable", true);
        let mutable = Effective { immutable: Some(false), ..Effective::default() };
        let asked = Question { wish: wish("no-cache"), ..question(&doubted, &mutable, 50) };
        assert_eq!(words(decide(&asked)), "revalidate revalidate-requested");
    }

    #[test]
    fn what_was_purged_softly_is_asked_about_and_kept_for_need() {
        let prepared = entry(200, "max-age=100", true);
        for effective in [Effective::default(), Effective { immutable: Some(true), ..Effective::default() }] {
            let purged = Question {
                entry: Some(Known { prepared: &prepared, stale: true }),
                ..question(&prepared, &effective, 1)
            };
            assert_eq!(words(decide(&purged)), "revalidate revalidate-purged");
            assert_eq!(words(decide(&Question { upstream: Down, ..purged })), "stale stale-upstream-down");
            assert_eq!(words(decide_after_error(&purged)), "stale stale-if-error");
        }
    }

    #[test]
    fn an_entry_from_the_future_is_not_fresh() {
        let (prepared, effective) = (entry(200, "max-age=100", true), Effective::default());
        let before = |seconds: u64| Question {
            now: Timestamp(T0 - seconds * 1_000),
            ..question(&prepared, &effective, 0)
        };
        assert_eq!(words(decide(&before(60))), "serve hit");
        assert_eq!(words(decide(&before(61))), "revalidate revalidate-purged");
        assert_eq!(words(decide(&Question { upstream: Down, ..before(61) })), "stale stale-upstream-down");
    }

    #[test]
    fn without_validators_it_is_fetched_again() {
        let (prepared, effective) = (entry(200, "max-age=100", false), Effective::default());
        assert_eq!(words(decide(&question(&prepared, &effective, 200))), "fetch miss-expired");
        let asked = Question { wish: wish("no-cache"), ..question(&prepared, &effective, 50) };
        assert_eq!(words(decide(&asked)), "fetch revalidate-requested");
    }

    #[test]
    fn after_an_error_stale_is_better_than_nothing() {
        let effective = Effective::default();
        for (cache_control, seconds, expected) in [
            ("max-age=100", 50, "serve hit"),
            ("max-age=100", 200, "stale stale-if-error"),
            ("max-age=100, must-revalidate", 50, "serve hit"),
            ("max-age=100, must-revalidate", 200, "504 must-revalidate"),
            ("max-age=100, stale-if-error=10", 111, "504 upstream-down"),
        ] {
            let prepared = entry(200, cache_control, true);
            let verdict = decide_after_error(&question(&prepared, &effective, seconds));
            assert_eq!(words(verdict), expected, "{cache_control} after {seconds} s");
        }
        let nothing = Question {
            entry: None,
            effective: &effective,
            wish: ClientWish::default(),
            upstream: Up,
            now: at(0),
        };
        assert_eq!(words(decide_after_error(&nothing)), "504 upstream-down");
    }

    #[test]
    fn ttl_counts_down_through_zero() {
        let (prepared, effective) = (entry(200, "max-age=100", true), Effective::default());
        let known = Known { prepared: &prepared, stale: false };
        assert_eq!(ttl_seconds(&known, &effective, at(40)), Some(60));
        assert_eq!(ttl_seconds(&known, &effective, at(130)), Some(-30));
        let forever = Effective { immutable: Some(true), ..effective };
        assert_eq!(ttl_seconds(&known, &forever, at(130)), None);
    }

    prop_compose! {
        fn any_case()(
            directives in prop::collection::vec(prop::sample::select(vec![
                "max-age=0", "max-age=50", "s-maxage=20", "must-revalidate", "no-cache", "immutable",
                "stale-while-revalidate=30", "stale-if-error=40", "proxy-revalidate",
            ]), 0..4),
            asks in prop::sample::select(vec!["x", "no-cache", "max-age=0", "max-age=30", "min-fresh=10", "only-if-cached"]),
            status in prop::sample::select(vec![200_u16, 200, 404]),
            upstream in prop::sample::select(vec![Up, Down]),
            rule in prop::sample::select(vec![None, Some(true), Some(false)]),
            fresh_for in prop::option::of(0_u64..100),
            (tagged, purged, seconds) in (any::<bool>(), any::<bool>(), 0_u64..200),
        ) -> (Prepared, Effective, ClientWish, UpstreamState, bool, u64) {
            let effective = Effective {
                immutable: rule, fresh_for: fresh_for.map(Duration::from_secs), ..Effective::default()
            };
            (entry(status, &directives.join(", "), tagged), effective, wish(asks), upstream, purged, seconds)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn verdicts_keep_their_promises((prepared, effective, wish, upstream, stale, seconds) in any_case()) {
            let entry = Some(Known { prepared: &prepared, stale });
            let question = Question { entry, effective: &effective, wish, upstream, now: at(seconds) };
            let (verdict, facts) = (decide(&question), &prepared.freshness);
            let fresh = !stale && !prepared.is_negative()
                && effective.fresh_until(facts).is_none_or(|until| until > at(seconds));
            let asks = matches!(verdict, Verdict::Fetch(_) | Verdict::Revalidate(_));
            let refused = matches!(verdict, Verdict::Refuse { .. });
            let is_stale = matches!(verdict, Verdict::ServeStale { .. });

            // A fresh entry is never refused, and only a client that insists makes us ask.
            prop_assert!(!fresh || !refused && !is_stale);
            prop_assert!(!fresh || !asks || verdict.reason() == Reason::RevalidateRequested);
            // What must be revalidated is never used stale, not even for want of better.
            prop_assert!(!facts.must_revalidate || !is_stale);
            let after = decide_after_error(&question);
            let after_is_stale = matches!(after, Verdict::ServeStale { .. });
            prop_assert!(!facts.must_revalidate || !after_is_stale);
            // Nobody is asked who cannot be, or whom the client does not want asked.
            prop_assert!(!asks || upstream == Up && !wish.only_if_cached);
            // Insisting is worth one question in a few seconds.
            let soon = Duration::from_secs(seconds) < effective.revalidate_at_most;
            prop_assert!(!soon || verdict.reason() != Reason::RevalidateRequested);
            // A "not found" is never stale, and nothing is revalidated that has no validator.
            prop_assert!(!prepared.is_negative() || !is_stale);
            prop_assert!(prepared.can_revalidate() || !matches!(verdict, Verdict::Revalidate(_)));
            // What an error leaves is an answer or an error, never another question.
            prop_assert!(!matches!(after, Verdict::Fetch(_) | Verdict::Revalidate(_)));
        }
    }
}
