//! `[agents]`, as far as it is about their presence: how often they check in, and when they are late or gone.

use std::path::PathBuf;
use std::time::Duration;

use super::ControlConfig;
use super::diagnostic::{Code, Diagnostic};
use super::files;
use super::ranges::{
    AGENTS, CHECKIN_INTERVAL, CONTROL_STATE_DIR, KEEP_OFFLINE, KEEP_PASSIVE, LATE_AFTER, OFFLINE_AFTER,
    PING_AFTER, PING_TIMEOUT, SESSION_TIMEOUT, STALLED_AFTER,
};
use super::reader::Section;
use super::values::render_duration;

/// The presence of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceConfig {
    /// Where what is known of agents is kept.
    pub state_dir: PathBuf,
    /// Between two check-ins of an agent.
    pub checkin_interval: Duration,
    /// A stream that was silent for this long is pinged.
    pub ping_after: Duration,
    /// A ping that was not answered for this long ends the stream.
    pub ping_timeout: Duration,
    /// A tunnel that was silent for this long has ended.
    pub session_timeout: Duration,
    /// How long an agent whose stream or tunnel has ended stays listed.
    pub keep_offline: Duration,
    /// Whether clients that do not check in are listed from their update traffic.
    pub passive: bool,
    /// How long they stay listed after the last of it.
    pub keep_passive: Duration,
    /// Intervals without check-in after which an agent is late.
    pub late_after: usize,
    /// Intervals without check-in after which it is offline; more than `late_after`.
    pub offline_after: usize,
    /// Intervals without check-in after which a connected agent is stalled.
    pub stalled_after: usize,
    /// Agents that are known at once.
    pub most: usize,
}

/// The keys of `[agents]` that are about presence, where there is anything about agents or nodes at all.
pub(super) fn presence(
    root: &Section<'_>,
    control: Option<&ControlConfig>,
    section: &Section<'_>,
) -> Option<PresenceConfig> {
    if !root.has("agents") && !root.has("control") {
        return None;
    }
    let state_dir = section.path("state_dir");
    if let Some(dir) = &state_dir {
        files::check_directory_to_be(section.cx, dir);
    }
    let default = control.map_or_else(|| PathBuf::from(CONTROL_STATE_DIR), |it| it.state_dir.clone());
    let config = PresenceConfig {
        state_dir: state_dir.map_or(default, |at| at.value),
        checkin_interval: section.duration_or("checkin_interval", &CHECKIN_INTERVAL),
        ping_after: section.duration_or("ping_after", &PING_AFTER),
        ping_timeout: section.duration_or("ping_timeout", &PING_TIMEOUT),
        session_timeout: section.duration_or("session_timeout", &SESSION_TIMEOUT),
        keep_offline: section.duration_or("keep_offline", &KEEP_OFFLINE),
        passive: section.flag("passive").is_some_and(|at| at.value),
        keep_passive: section.duration_or("keep_passive", &KEEP_PASSIVE),
        late_after: section.count_or("late_after", &LATE_AFTER),
        offline_after: section.count_or("offline_after", &OFFLINE_AFTER),
        stalled_after: section.count_or("stalled_after", &STALLED_AFTER),
        most: section.count_or("max", &AGENTS),
    };
    check_order(section, &config);
    Some(config)
}

fn check_order(section: &Section<'_>, config: &PresenceConfig) {
    if config.offline_after <= config.late_after
        && let Some(span) = section.key_span("offline_after").or_else(|| section.key_span("late_after"))
    {
        let message = format!(
            "an agent cannot be offline after {} intervals and late only after {}",
            config.offline_after, config.late_after
        );
        let found = Diagnostic::error(Code::Conflict, span, message);
        section.cx.report(found.help("`offline_after` has to be more than `late_after`"));
    }
    if config.ping_timeout >= config.ping_after
        && let Some(span) = section.key_span("ping_timeout").or_else(|| section.key_span("ping_after"))
    {
        let message = format!(
            "`ping_timeout`, {}, is not less than `ping_after`, {}",
            render_duration(config.ping_timeout),
            render_duration(config.ping_after)
        );
        section.cx.report(Diagnostic::warning(Code::Conflict, span, message));
    }
}
