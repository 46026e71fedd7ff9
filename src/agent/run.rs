//! The agent's life: what is done when. One loop; beside it only what must not hold it up, the line to the handler and
//! the updates.

mod updates;

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::addresses::Addresses;
use super::channel::{self, Heard};
use super::core::{Agent, CheckInError, slept, uptime};
use super::desk::{Asked, Desk, Done, Order};
use super::fallback::{Cause, From, Next};
use super::pace;
use super::talk;
use super::updater::{Report, Updater};
use super::whereabouts::{Found, Whereabouts};
use crate::base::limits::AGENT_MESSAGES;
use crate::protocol::agent_api::{ActionKind, CheckedIn, Contact, Message};

/// The machine may have slept: it is looked at so often.
const TICK: Duration = Duration::from_secs(30);

/// More than a jump of clocks that are read one after the other.
const SLEPT: Duration = Duration::from_secs(2);

/// This part of the first retry (of a minute: two seconds) spreads those that lose their handler together.
const SOON: u32 = 30;

/// Agents that are told of a new sitelist come for it within this time.
const NEWS_WITHIN: Duration = Duration::from_secs(30);

/// Check-ins that are due at once have this distance at least, whatever a handler says.
const CHECKIN_LEAST: Duration = Duration::from_secs(1);

/// No handler keeps an agent away for longer: ePO's range ends at two days.
const CHECKIN_MOST: Duration = Duration::from_secs(2_880 * 60);

/// Streams that fail in a row before long polls take their place: something on the way does not let them through.
const STREAMS: u32 = 3;

/// The line to the handler.
struct Line {
    to: String,
    number: u64,
    open: bool,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What runs beside the loop, and what the loop waits for.
struct Life {
    checkin_at: Duration,
    update_at: Duration,
    line_at: Duration,
    /// Whether somebody woke the agent: what comes with the next check-in counts at once.
    woken: bool,
    /// The handler that knows the agent, by its last check-in.
    known_at: Option<String>,
    refused: u32,
    line: Option<Line>,
    lines: u64,
    line_failures: u32,
    /// The last wake-up of this handler: each counts its own.
    seen: Option<(String, u64)>,
    update: Option<JoinHandle<(Updater, Vec<Report>)>>,
    update_misses: u32,
    waiting: Vec<oneshot::Sender<Done>>,
    slept: Duration,
    whereabouts: Whereabouts,
    heard: mpsc::Receiver<(u64, Heard)>,
    tell: mpsc::Sender<(u64, Heard)>,
}

impl Agent {
    /// Lives until `stop` ends: then says good-bye.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let (_desk, mut asked) = match Desk::open(&self.options.state_dir) {
            Ok((desk, asked)) => (Some(desk), asked),
            Err(error) => {
                tracing::warn!(%error, "nobody can ask this agent: there is no socket");
                (None, mpsc::channel(1).1)
            }
        };
        let mut addresses = Addresses::watch()
            .inspect_err(|error| tracing::warn!(%error, "changes of addresses are not seen"))
            .ok();
        let mut life = Life::begin(&mut self);
        tokio::pin!(stop);
        loop {
            let worked = tokio::select! {
                biased;
                () = &mut stop => break,
                pause = life.work(&mut self) => pause,
            };
            tokio::select! {
                () = &mut stop => break,
                () = sleep(worked) => {}
                Some(asked) = asked.recv() => life.answer(&mut self, asked).await,
                Some((number, heard)) = life.heard.recv() => life.hear(&mut self, number, heard),
                done = finished(&mut life.update) => life.finish_update(&mut self, done),
                found = life.whereabouts.found() => life.find(&mut self, found),
                told = changed(&mut addresses) => match told {
                    Ok(()) => {
                        tracing::info!("an address of this machine changed");
                        let now = uptime();
                        self.fallback.look_again(Cause::AddressChanged, now);
                        // A switch that comes back gives all machines behind it their addresses at once.
                        life.checkin_at = life.checkin_at.min(now + self.soon());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "changes of addresses are not seen any more");
                        addresses = None;
                    }
                },
            }
        }
        life.line = None;
        if let Some(update) = life.update.take() {
            update.abort();
        }
        if let Some(address) = self.fallback.current().map(|it| it.address.clone()) {
            talk::bye(&mut self.link, &address).await;
        }
    }
}

impl Agent {
    /// A wait that spreads those to whom the same thing happens at the same moment.
    fn soon(&mut self) -> Duration {
        let draw = self.draw();
        pace::anywhere(self.options.pace.retry_first / SOON, self.state.seed(), draw)
    }
}

async fn changed(addresses: &mut Option<Addresses>) -> std::io::Result<()> {
    match addresses {
        Some(addresses) => addresses.changed().await,
        None => std::future::pending().await,
    }
}

async fn finished(update: &mut Option<JoinHandle<(Updater, Vec<Report>)>>) -> Option<(Updater, Vec<Report>)> {
    let Some(running) = update else { return std::future::pending().await };
    let done = running.await;
    *update = None;
    done.ok()
}

impl Life {
    fn begin(agent: &mut Agent) -> Self {
        let (tell, heard) = mpsc::channel(AGENT_MESSAGES);
        let draw = agent.draw();
        let first = pace::anywhere(agent.options.first_checkin_within, agent.state.seed(), draw);
        Self {
            checkin_at: uptime() + first,
            update_at: uptime() + first,
            line_at: uptime(),
            woken: false,
            known_at: None,
            refused: 0,
            line: None,
            lines: 0,
            line_failures: 0,
            seen: None,
            update: None,
            update_misses: 0,
            waiting: Vec::new(),
            slept: slept(),
            whereabouts: Whereabouts::default(),
            heard,
            tell,
        }
    }

    /// Does what is due, and says how long there is nothing to do.
    async fn work(&mut self, agent: &mut Agent) -> Duration {
        let asleep = slept();
        if asleep > self.slept + SLEPT {
            tracing::info!("the machine has slept");
            agent.fallback.look_again(Cause::Resumed, uptime());
        }
        self.slept = asleep;
        loop {
            let now = uptime();
            let due = now >= self.checkin_at;
            if due {
                agent.fallback.contact_begins(now);
            }
            let next = agent.settle().await;
            self.introduce(agent);
            let until = match next {
                Next::Wait { until } => {
                    self.line = None;
                    // The list may have repositories that are no handlers.
                    self.update_if_due(agent);
                    return until.saturating_sub(uptime()).min(TICK);
                }
                Next::Use { until, .. } => until,
                // `settle` has done it.
                Next::Verify(_) => continue,
            };
            if due {
                self.check_in(agent).await;
                continue;
            }
            let now = uptime();
            self.keep_line(agent, now);
            self.update_if_due(agent);
            let mut next = until.min(self.checkin_at);
            if let Some(current) = agent.fallback.current() {
                let every = agent.options.pace.retry_first;
                next = next.min(self.whereabouts.look(&current.address, now, every));
            }
            if self.update.is_none() {
                next = next.min(self.update_at);
            }
            if self.line.is_none() && agent.options.contact != Contact::Checkin {
                next = next.min(self.line_at);
            }
            return next.saturating_sub(now).min(TICK);
        }
    }

    /// A handler that the agent has come to knows nothing of it: neither its place in the tree nor what it has. It is
    /// told soon, and not by everybody at once whom the same trouble has brought there.
    fn introduce(&mut self, agent: &mut Agent) {
        let Some(address) = agent.fallback.current().map(|it| it.address.clone()) else { return };
        if self.known_at.as_ref().is_some_and(|known| *known != address) {
            let draw = agent.draw();
            let within = agent.options.pace.retry_first / SOON;
            let soon = uptime() + pace::anywhere(within, agent.state.seed(), draw);
            self.checkin_at = self.checkin_at.min(soon);
            self.known_at = Some(address);
        }
    }

    async fn check_in(&mut self, agent: &mut Agent) {
        let address = agent.fallback.current().map(|it| it.address.clone());
        let from = if std::mem::take(&mut self.woken) { From::Now } else { From::NextContact };
        let done = agent.check_in_once(from).await;
        // The next one is far off: a handler has better things to hold than idle connections.
        agent.link.close();
        let now = uptime();
        match done {
            Ok(taken) => {
                self.refused = 0;
                self.known_at = address;
                self.checkin_at = now + next_checkin(agent, &taken);
                self.act(agent, &taken, now);
            }
            Err(CheckInError::Talk { address, error }) if error.blames_handler() => {
                // The next handler has it at once; with nobody left it is due when somebody answers again.
                tracing::warn!(address, %error, "the check-in failed");
            }
            Err(error) => {
                tracing::warn!(%error, "the check-in failed");
                let pace = agent.options.pace;
                let seed = agent.state.seed();
                self.checkin_at = now + pace::retry(pace.retry_first, pace.retry_most, self.refused, seed);
                self.refused = self.refused.saturating_add(1);
            }
        }
    }

    fn act(&mut self, agent: &mut Agent, taken: &CheckedIn, now: Duration) {
        let at = agent.fallback.current().map(|it| it.address.clone());
        for action in &taken.actions {
            match action.kind {
                ActionKind::Update => self.update_at = now,
                // Who has no line, or none at that moment, is woken by the answer to its check-in: what a wake-up makes
                // happen beside one happens now. Who was told over its line has done so.
                ActionKind::Wake => {
                    let wake = at.clone().map(|at| (at, action.id));
                    if self.seen != wake {
                        self.seen = wake;
                        self.update_at = now;
                        agent.fallback.contact_begins(now);
                    }
                }
                ActionKind::Unknown => {}
            }
        }
    }

    /// The name of a handler was looked up. One that leads elsewhere is left, as if it was another one: its old machine
    /// may go on answering.
    fn find(&mut self, agent: &mut Agent, found: Found) {
        let now = uptime();
        if agent.fallback.current().is_none_or(|current| current.address != found.0)
            || !self.whereabouts.has_moved(found, now, agent.options.pace.verify_every)
        {
            return;
        }
        tracing::info!("the name of the handler leads to another machine");
        let soon = now + agent.soon();
        agent.link.close();
        self.line = None;
        (self.line_at, self.checkin_at) = (soon, soon.min(self.checkin_at));
        agent.fallback.look_again(Cause::HandlerMoved, soon);
    }

    /// Holds a line to the handler in use, where one is wanted.
    fn keep_line(&mut self, agent: &Agent, now: Duration) {
        let Some(current) = agent.fallback.current() else { return };
        if self.line.as_ref().is_some_and(|line| line.to != current.address) {
            self.line = None;
            self.line_at = now;
        }
        if self.line.is_some() || now < self.line_at || agent.options.contact == Contact::Checkin {
            return;
        }
        let streams = agent.options.contact == Contact::Stream && self.line_failures < STREAMS;
        let contact = if streams { Contact::Stream } else { Contact::Tunnel };
        self.lines += 1;
        let tell = (self.lines, self.tell.clone());
        let seen = self.seen.as_ref().filter(|(of, _)| *of == current.address).map(|(_, id)| *id);
        let held = channel::hold(agent.link.another(), current.address.clone(), contact, seen, tell);
        let task = tokio::spawn(held);
        self.line = Some(Line { to: current.address.clone(), number: self.lines, open: false, task });
    }

    fn hear(&mut self, agent: &mut Agent, number: u64, heard: Heard) {
        let Some(line) = self.line.as_mut().filter(|line| line.number == number) else { return };
        let now = uptime();
        match heard {
            Heard::Open => {
                line.open = true;
                self.line_failures = 0;
            }
            Heard::Said(Message::Wake { id }) => {
                let seen = Some((line.to.clone(), id));
                if self.seen != seen {
                    self.seen = seen;
                    (self.woken, self.checkin_at) = (true, now);
                    self.update_at = now;
                }
            }
            Heard::Said(Message::SitelistChanged) => {
                let draw = agent.draw();
                let within = NEWS_WITHIN.min(agent.options.checkin_interval);
                self.checkin_at = self.checkin_at.min(now + pace::anywhere(within, agent.state.seed(), draw));
            }
            Heard::Said(Message::Shutdown) => {
                tracing::info!(handler = line.to, "the handler is going away");
                self.line = None;
                agent.fallback.failed(now);
                // The next one is to know of us, and of all the others that were there.
                self.checkin_at = self.checkin_at.min(now + agent.soon());
            }
            Heard::Said(Message::Unknown) => {}
            Heard::Lost(why) => {
                tracing::info!(handler = line.to, why, "the line to the handler is lost");
                let opened = line.open;
                self.line = None;
                if !opened {
                    self.line_failures = self.line_failures.saturating_add(1);
                }
                let pace = agent.options.pace;
                // Who had one looks around and comes back soon, all of them not at once; who never had one has time.
                let soon = now + agent.soon();
                let (first, seed) = (pace.retry_first / 4, agent.state.seed());
                let later = now + pace::retry(first, pace.retry_most, self.line_failures, seed);
                self.line_at = if opened { soon } else { later };
                agent.fallback.look_again(Cause::Failed, soon);
            }
        }
    }

    async fn answer(&mut self, agent: &mut Agent, (order, tell): Asked) {
        let mut error = None;
        match order {
            Order::Status => {}
            Order::CheckIn => {
                agent.fallback.contact_begins(uptime());
                agent.fallback.look_again(Cause::Asked, uptime());
                match agent.check_in().await {
                    Ok(taken) => {
                        let known_at = agent.fallback.current().map(|it| it.address.clone());
                        self.known_at = known_at.or(self.known_at.take());
                        self.checkin_at = uptime() + next_checkin(agent, &taken);
                        self.act(agent, &taken, uptime());
                    }
                    Err(why) => error = Some(why.to_string()),
                }
            }
            Order::Update => {
                if matches!(agent.settle().await, Next::Wait { .. }) {
                    error = Some("No Connection".to_owned());
                } else {
                    if self.update.is_none() {
                        self.start_update(agent, uptime());
                    }
                    if self.update.is_some() {
                        self.waiting.push(tell);
                        return;
                    }
                }
            }
        }
        drop(tell.send(Done { status: self.status(agent), error, reports: Vec::new() }));
    }

    fn status(&self, agent: &Agent) -> super::status::Status {
        let open = self.line.as_ref().is_some_and(|line| line.open);
        agent.status().with_loop(open, self.checkin_at.saturating_sub(uptime()))
    }
}

/// When the handler wants to hear from the agent again. It spreads its agents itself.
fn next_checkin(agent: &mut Agent, taken: &CheckedIn) -> Duration {
    if taken.next_checkin_s == 0 {
        let draw = agent.draw();
        return pace::regular(agent.options.checkin_interval, agent.state.seed(), draw).max(CHECKIN_LEAST);
    }
    Duration::from_secs(taken.next_checkin_s).clamp(CHECKIN_LEAST, CHECKIN_MOST)
}
