//! Every default and every allowed range of the configuration, with its unit and its reason.

use std::ops::RangeInclusive;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A key's default and range.
pub(super) struct Allowed<T> {
    pub(super) default: T,
    pub(super) range: RangeInclusive<T>,
}

const fn seconds(default: u64, from: Duration, to: Duration) -> Allowed<Duration> {
    Allowed { default: Duration::from_secs(default), range: from..=to }
}

const fn count(default: u64, from: u64, to: u64) -> Allowed<u64> {
    Allowed { default, range: from..=to }
}

/// A timeout under 100 ms cuts healthy peers, one over ten minutes protects from nothing.
const fn timeout(default: u64) -> Allowed<Duration> {
    seconds(default, Duration::from_millis(100), Duration::from_mins(10))
}

// [server]

/// A package over a thin LAN may need minutes; an hour is longer than any service manager waits.
pub(super) const DRAIN: Allowed<Duration> = seconds(30, Duration::ZERO, Duration::from_hours(1));
/// The default is one for each core, which is found at run time.
pub(super) const WORKERS: RangeInclusive<u64> = 1..=256;
/// In `Via` and `Cache-Status` on every answer.
pub(super) const NODE_CHARS: usize = 64;
/// Linux's `sun_path` with its NUL is 108 bytes.
pub(super) const SOCKET_PATH_BYTES: usize = 107;

// [log]

/// All of them, so that whoever turns traces on sees some; a busy node tells about one of hundreds.
pub(super) const OTLP_ONE_IN: Allowed<u64> = count(1, 1, 1_000_000);

// [admin]

/// One for each person or program that comes in.
pub(super) const TOKENS: usize = 64;
/// One for each person or program that may change something.
pub(super) const CERTIFICATES: usize = 1_024;
/// A URI is the longest of the names in a certificate that anybody writes down.
pub(super) const CERTIFICATE_NAME_BYTES: usize = 255;
/// It stands in lines of the log.
pub(super) const TOKEN_NAME_BYTES: usize = 64;
/// What a person could make up is shorter.
pub(super) const TOKEN_BYTES: usize = 20;

// [cache]

/// Where systemd's `CacheDirectory=waypost` puts it.
pub(super) const CACHE_DIR: &str = "/var/cache/waypost";
/// Under 16 blocks eviction has no choice; 1 PiB is beyond any file system meant here.
pub(super) const CACHE_SIZE: Allowed<u64> = count(10 * GIB, 16 * MIB, 1 << 50);
/// Eight blocks at the least.
pub(super) const CACHE_MEMORY: Allowed<u64> = count(256 * MIB, 8 * MIB, 1 << 40);
/// Other programs on the same file system want to live too.
pub(super) const CACHE_MIN_FREE: Allowed<u64> = count(GIB, 0, 1 << 50);
/// Slow enough not to be felt on a disk of any kind; 200 GiB in 14 hours.
pub(super) const CACHE_SCRUB_RATE: Allowed<u64> = count(4 * MIB, 0, GIB);
/// Up to what a length is believed at all; the default is cut to the cache's size.
pub(super) const CACHE_MAX_OBJECT: Allowed<u64> = count(16 * GIB, MIB, crate::base::limits::BODY_BYTES);

// [limits]

/// More than a branch has agents; each idle one costs memory, so there is an end.
pub(super) const CONNECTIONS: Allowed<u64> = count(20_000, 1, 1_000_000);
/// A NAT gateway may stand in front of a whole floor.
pub(super) const CONNECTIONS_PER_ADDRESS: Allowed<u64> = count(256, 1, 1_000_000);
/// A handshake is the most expensive thing that a stranger can ask for.
pub(super) const HANDSHAKES: Allowed<u64> = count(256, 1, 100_000);
/// Each holds an open block of memory and a connection.
pub(super) const FILLS: Allowed<u64> = count(64, 1, 10_000);
/// Masters have limits per client as well.
pub(super) const FILLS_PER_UPSTREAM: Allowed<u64> = count(16, 1, 10_000);
/// Waiting costs little more than the connection.
pub(super) const QUEUE: Allowed<u64> = count(10_000, 0, 1_000_000);
/// Under the patience of agents, who retry.
pub(super) const QUEUE_WAIT: Allowed<Duration> = timeout(20);
pub(super) const HEAD_TIMEOUT: Allowed<Duration> = timeout(10);
pub(super) const SEND_TIMEOUT: Allowed<Duration> = timeout(30);
/// What agents and load balancers are used to.
pub(super) const IDLE_TIMEOUT: Allowed<Duration> = timeout(75);
/// Old connections end some day, so that load spreads again after a drain.
pub(super) const REQUESTS_PER_CONNECTION: Allowed<u64> = count(10_000, 1, 1_000_000_000);

// [[repository]]

/// Metrics have a series for each.
pub(super) const REPOSITORIES: usize = 1_000;
/// Every path is matched against all of them.
pub(super) const RULES: usize = 256;
/// Tried one after the other while an agent waits.
pub(super) const UPSTREAMS: usize = 16;
/// Variants multiply with each.
pub(super) const FORWARD_HEADERS: usize = 16;
/// Lists of names stay lists that a person keeps.
pub(super) const NAMES: usize = 256;
pub(super) const PRIORITY: RangeInclusive<u64> = 1..=1_000;
pub(super) const CONNECT_TIMEOUT: Allowed<Duration> = timeout(3);
pub(super) const FIRST_BYTE_TIMEOUT: Allowed<Duration> = timeout(10);
pub(super) const STALL_TIMEOUT: Allowed<Duration> = timeout(20);
/// Slower than a 9,600 baud modem is broken, not slow. 0 turns the check off.
pub(super) const MIN_RATE: Allowed<u64> = count(KIB, 0, GIB);

/// Under a second it is a load on the master, over a day nobody would call it watching.
pub(super) const CHECK_EVERY: Allowed<Duration> =
    seconds(60, Duration::from_secs(1), Duration::from_hours(24));
/// A thin WAN brings a daily content file in minutes.
pub(super) const PREPARE_WITHIN: Allowed<Duration> = seconds(600, Duration::ZERO, Duration::from_hours(24));
/// 0 is no limit.
pub(super) const PREFETCH_RATE: Allowed<u64> = count(0, 0, 100 * GIB);
/// Longer than any update session of one agent.
pub(super) const GRACE: Allowed<Duration> = seconds(1_800, Duration::from_secs(1), Duration::from_hours(168));
/// Content files are daily.
pub(super) const ALARM_AFTER: Allowed<Duration> =
    seconds(86_400, Duration::from_secs(1), Duration::from_hours(10 * 365 * 24));
/// Never, unless it is said.
pub(super) const STOP_AFTER: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(10 * 365 * 24);

/// RFC 9111 caches take a year as "for ever"; ten are beyond any product's life.
pub(super) const RULE_TIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(10 * 365 * 24);
/// A file that was missing appears with the next publication.
pub(super) const NEGATIVE_TIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);

// [control] and [agents]

/// Where systemd's `StateDirectory=waypost` puts it.
pub(super) const CONTROL_STATE_DIR: &str = "/var/lib/waypost";
/// One for each node below this one.
pub(super) const NODE_TOKENS: usize = 1_000;
/// One for each group of agents that enrols by itself; every request is compared with all of them.
pub(super) const AGENT_TOKENS: usize = 256;
/// A look at a directory of some hundred small files costs a millisecond.
pub(super) const CONTROL_CHECK_EVERY: Allowed<Duration> =
    seconds(2, Duration::from_millis(100), Duration::from_hours(1));
/// Proxies and firewalls on the way forget connections that are silent for a minute.
pub(super) const CONTROL_HOLD: Allowed<Duration> =
    seconds(25, Duration::from_secs(1), Duration::from_mins(5));
/// A branch whose WAN was down over the weekend still gets what was said on Friday.
pub(super) const COMMAND_TTL: Allowed<Duration> =
    seconds(259_200, Duration::from_secs(1), Duration::from_hours(24 * 30));

/// The agent-to-server interval that such agents are used to.
pub(super) const CHECKIN_INTERVAL: Allowed<Duration> =
    seconds(3_600, Duration::from_secs(1), Duration::from_hours(24 * 7));
/// Middleboxes forget silent connections after some minutes; more often costs agents on batteries.
pub(super) const PING_AFTER: Allowed<Duration> =
    seconds(120, Duration::from_secs(1), Duration::from_hours(1));
/// A laptop that wakes up answers within seconds.
pub(super) const PING_TIMEOUT: Allowed<Duration> = timeout(20);
/// A poll is held for 25 seconds; one that is lost must not end the tunnel.
pub(super) const SESSION_TIMEOUT: Allowed<Duration> =
    seconds(60, Duration::from_secs(30), Duration::from_hours(1));
/// A restart with updates, or a walk to a meeting.
pub(super) const KEEP_OFFLINE: Allowed<Duration> =
    seconds(1_800, Duration::ZERO, Duration::from_hours(24 * 7));
/// apt looks once a day at a time of its own; a weekend goes by.
pub(super) const KEEP_PASSIVE: Allowed<Duration> =
    seconds(259_200, Duration::from_secs(60), Duration::from_hours(24 * 90));
/// One check-in may be lost, and intervals are spread.
pub(super) const LATE_AFTER: Allowed<u64> = count(2, 1, 100);
pub(super) const OFFLINE_AFTER: Allowed<u64> = count(4, 2, 1_000);
pub(super) const STALLED_AFTER: Allowed<u64> = count(3, 1, 100);
/// Each takes some KiB of memory, by what it says of itself.
pub(super) const AGENTS: Allowed<u64> = count(100_000, 1, 1_000_000);
