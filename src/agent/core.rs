//! The agent: what it knows, and the few things it does, each once. When it does them is the loop's ([`super::run`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::addresses::local_addresses;
use super::fallback::{Fallback, From, Next, Pace};
use super::link::{Identity, IdentityError, Link, Patience, TalkError};
use super::papers::Papers;
use super::places;
use super::select::{Line, Method, evaluate};
use super::shelf::ShelfError;
use super::state::{PolicyName, State, StateError};
use super::status::Status;
use super::talk::{self, CheckInAnswer};
use super::update;
use super::updater::{Report, Updater};
use crate::base::clock::{Clock, Timestamp};
use crate::protocol::agent_api::{CheckIn, CheckedIn, Contact, PolicyNews, Properties, SitelistNews};

/// What an agent is and does. Durations have their usual values in [`Options::new`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Its id.
    pub id: String,
    /// Where it keeps what it knows.
    pub state_dir: PathBuf,
    /// Whom it trusts and how it shows who it is.
    pub identity: Identity,
    /// Where that is read again, so that it may be replaced while the agent runs.
    pub papers: Option<Papers>,
    /// The handlers it was installed with, `host:port`.
    pub handlers: Vec<String>,
    /// How it chooses among handlers, where the sitelist does not say.
    pub method: Method,
    /// How it stays in contact.
    pub contact: Contact,
    /// Its host name.
    pub host: String,
    /// Its operating system.
    pub os: String,
    /// Its place in the system tree, if it is told by its machine.
    pub tree: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Between two check-ins, where the handler does not say.
    pub checkin_interval: Duration,
    /// The first check-in comes within this time of the start.
    pub first_checkin_within: Duration,
    /// What it keeps up to date.
    pub updates: Vec<update::Options>,
    /// Between two updates.
    pub update_interval: Duration,
    /// How often the list is verified, and how fast it gives up and comes back.
    pub pace: Pace,
    /// How long it waits for others.
    pub patience: Patience,
}

impl Options {
    /// With everything as usual.
    pub fn new(id: impl Into<String>, state_dir: impl Into<PathBuf>, handlers: Vec<String>) -> Self {
        let id = id.into();
        Self {
            identity: Identity { id: id.clone(), ..Identity::default() },
            papers: None,
            id,
            state_dir: state_dir.into(),
            handlers,
            method: Method::default(),
            contact: Contact::Stream,
            host: String::new(),
            os: String::new(),
            tree: None,
            tags: Vec::new(),
            checkin_interval: Duration::from_secs(3_600),
            first_checkin_within: Duration::from_secs(45),
            updates: Vec::new(),
            update_interval: Duration::from_secs(3_600),
            pace: Pace::default(),
            patience: Patience::default(),
        }
    }
}

/// The agent cannot begin. The administrator's.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Certificates or token.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The directory of an update.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The system gives no chance.
    #[error("the system has no random numbers: {0}")]
    Random(String),
}

/// Why a check-in did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum CheckInError {
    /// No handler answers.
    #[error("No Connection: none of {0} handlers answers")]
    NoConnection(usize),
    /// The handler in use did not do it.
    #[error("{address}: {error}")]
    Talk {
        /// Whom it was asked of.
        address: String,
        /// Why not.
        error: TalkError,
    },
    /// What came could not be kept. Ours.
    #[error(transparent)]
    State(#[from] StateError),
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    pub(super) options: Options,
    pub(super) link: Link,
    pub(super) state: State,
    pub(super) fallback: Fallback,
    /// Away while it runs.
    pub(super) updater: Option<Updater>,
    pub(super) content: BTreeMap<String, String>,
    pub(super) last_checkin: Option<Timestamp>,
    pub(super) last_error: Option<String>,
    /// Check-ins since the start: sent, and acknowledged.
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) reports: Vec<Report>,
    boot: String,
    sequence: u64,
    draws: u64,
    clock: Clock,
}

impl Agent {
    /// Takes the state directory and the directories of its updates. Blocks on the file system.
    ///
    /// # Errors
    /// [`AgentError`]
    pub fn open(options: Options) -> Result<Self, AgentError> {
        let mut drawn = [0; 16];
        getrandom::fill(&mut drawn).map_err(|error| AgentError::Random(error.to_string()))?;
        let drawn = u128::from_ne_bytes(drawn);
        let link = Link::new(&options.identity, options.patience)?;
        let state = State::open(&options.state_dir, u64::try_from(drawn >> 64).unwrap_or_default())?;
        let updater = Updater::open(link.another(), options.updates.clone())?;
        let method = places::method(state.sitelist(), options.method);
        let candidates = places::candidates(state.sitelist(), &options.handlers);
        Ok(Self {
            fallback: Fallback::new(method, options.pace, state.seed(), candidates, uptime()),
            content: updater.versions(),
            updater: Some(updater),
            link,
            state,
            options,
            last_checkin: None,
            last_error: None,
            sent: 0,
            acknowledged: 0,
            reports: Vec::new(),
            boot: format!("{drawn:032x}"),
            sequence: 0,
            draws: 0,
            clock: Clock::system(),
        })
    }

    /// Asks the handlers of the list who they are, as [`Agent::open`] would find it, beside an agent that runs: changes
    /// nothing and takes no lock.
    ///
    /// # Errors
    /// [`AgentError::Identity`]
    pub async fn probe(options: &Options) -> Result<Vec<Line>, AgentError> {
        let link = Link::new(&options.identity, options.patience)?;
        let state = State::look(&options.state_dir);
        let method = places::method(state.sitelist(), options.method);
        let candidates = places::candidates(state.sitelist(), &options.handlers);
        let observed = talk::observe(&link, method, &candidates, state.seed(), |_| false).await;
        Ok(evaluate(method, observed, state.seed()))
    }

    /// How it is.
    pub fn status(&self) -> Status {
        Status::of(self)
    }

    /// The evaluated list, as it was asked last.
    pub fn lines(&self) -> &[Line] {
        self.fallback.lines()
    }

    /// Checks in with the first handler that takes it.
    ///
    /// # Errors
    /// [`CheckInError`]: the last one there was.
    pub async fn check_in(&mut self) -> Result<CheckedIn, CheckInError> {
        let mut last = None;
        // Each handler twice at most: it fails, and is asked once more when it is all there is.
        for _ in 0..=2 * self.fallback.candidates().len() {
            if matches!(self.settle().await, Next::Wait { .. }) {
                break;
            }
            match self.check_in_once(From::Now).await {
                Err(CheckInError::Talk { address, error }) if error.blames_handler() => {
                    last = Some(CheckInError::Talk { address, error });
                }
                done => return done,
            }
        }
        Err(last.unwrap_or(CheckInError::NoConnection(self.fallback.candidates().len())))
    }

    /// Brings the directories up to date. Empty while they are being brought up to date already.
    pub async fn update(&mut self) -> Vec<Report> {
        self.settle().await;
        let Some(mut updater) = self.updater.take() else { return Vec::new() };
        let reports = {
            let sources = |options: &update::Options| self.sources(options);
            updater.run(sources).await
        };
        self.updated(updater, reports.clone());
        reports
    }

    /// An update has come to its end.
    pub(super) fn updated(&mut self, updater: Updater, reports: Vec<Report>) {
        self.content = updater.versions();
        self.updater.insert(updater).use_link(self.link.another());
        self.reports = reports;
    }

    /// Where an update may come from now.
    pub(super) fn sources(&self, options: &update::Options) -> Vec<update::Source> {
        places::sources(self.fallback.current(), self.fallback.lines(), self.state.sitelist(), options)
    }

    /// Verifies the list as long as that is what is to be done next.
    pub(super) async fn settle(&mut self) -> Next {
        loop {
            match self.fallback.next(uptime()) {
                Next::Verify(cause) => {
                    tracing::debug!(cause = cause.as_str(), "asking the handlers of the list");
                    self.verify().await;
                }
                next => return next,
            }
        }
    }

    async fn verify(&mut self) {
        self.renew();
        let before = self.fallback.current().map(|it| it.address.clone());
        let fallback = &self.fallback;
        let now = uptime();
        let failed = |address: &str| fallback.failed_lately(address, now);
        let (method, candidates) = (fallback.method(), fallback.candidates());
        let observed = talk::observe(&self.link, method, candidates, self.state.seed(), failed).await;
        self.fallback.verified(observed, uptime());
        let after = self.fallback.current().map(|it| it.address.clone());
        if before != after {
            self.link.close();
            match &after {
                Some(address) => tracing::info!(%address, "this handler is used from now on"),
                None => tracing::warn!(
                    handlers = self.fallback.candidates().len(),
                    "No Connection: no handler answers"
                ),
            }
        }
    }

    /// One check-in with the handler in use, and what follows from its answer: sitelist and policies. A list that came
    /// counts from `from` on.
    pub(super) async fn check_in_once(&mut self, from: From) -> Result<CheckedIn, CheckInError> {
        self.renew();
        let handlers = self.fallback.candidates().len();
        let current = self.fallback.current().ok_or(CheckInError::NoConnection(handlers))?;
        let address = current.address.clone();
        let done = self.exchange(&address, from).await;
        match &done {
            Ok(_) => {
                self.fallback.answered();
                self.last_checkin = Some(self.clock.now());
                self.last_error = None;
            }
            Err(error) => {
                self.last_error = Some(error.to_string());
                if matches!(error, CheckInError::Talk { error, .. } if error.blames_handler()) {
                    self.link.close();
                    self.fallback.failed(uptime());
                }
            }
        }
        done
    }

    async fn exchange(&mut self, address: &str, from: From) -> Result<CheckedIn, CheckInError> {
        let talk = |error| CheckInError::Talk { address: address.to_owned(), error };
        let mut said = self.report();
        self.sent += 1;
        let mut answer = talk::check_in(&mut self.link, address, &said).await.map_err(talk)?;
        // Our answer to an earlier one was lost, or the machine was set back: what is expected is said.
        if let CheckInAnswer::Old(old) = answer {
            self.sequence = old.expected;
            said.sequence = old.expected;
            self.sent += 1;
            answer = talk::check_in(&mut self.link, address, &said).await.map_err(talk)?;
        }
        let CheckInAnswer::Taken(mut taken) = answer else { return Err(talk(TalkError::Status(409))) };
        self.acknowledged += 1;
        let policies = taken.policies.clone().unwrap_or_default();
        let applied = if taken.policies.is_some() { self.apply(address, &policies).await } else { Ok(()) };
        let listed = match taken.sitelist.clone().filter(|news| Some(&*news.etag) != self.state.etag()) {
            Some(news) => self.take_sitelist(address, &news, from).await,
            None => Ok(()),
        };
        for followed in [applied, listed] {
            match followed {
                Ok(()) => {}
                // The documents change at this moment, or are not in force yet: the check-in counts, and the rest comes
                // with the next one, soon.
                Err(CheckInError::Talk {
                    error: error @ (TalkError::Status(_) | TalkError::NotUnderstood(_)),
                    ..
                }) => {
                    tracing::warn!(address, %error, "what is new could not be fetched");
                    taken.next_checkin_s = match taken.next_checkin_s {
                        0 => NEWS_AGAIN_S,
                        seconds => seconds.min(NEWS_AGAIN_S),
                    };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    async fn take_sitelist(
        &mut self,
        address: &str,
        news: &SitelistNews,
        from: From,
    ) -> Result<(), CheckInError> {
        let talk = |error| CheckInError::Talk { address: address.to_owned(), error };
        let (text, list) = talk::sitelist(&mut self.link, address, news).await.map_err(talk)?;
        let candidates = places::candidates(Some(&list), &self.options.handlers);
        let method = places::method(Some(&list), self.options.method);
        self.state.keep_sitelist(&text, list, &news.etag)?;
        self.fallback.take_list(method, candidates, from, uptime());
        Ok(())
    }

    /// Puts the policies in place that are listed, fetching what is not there as it should be.
    async fn apply(&mut self, address: &str, policies: &[PolicyNews]) -> Result<(), CheckInError> {
        let talk = |error| CheckInError::Talk { address: address.to_owned(), error };
        let mut stay = Vec::with_capacity(policies.len());
        for news in policies {
            let Some(name) = PolicyName::of(&news.category, &news.name) else {
                tracing::warn!(category = ?news.category, name = ?news.name, "no file may be called like this policy");
                continue;
            };
            let there = self.state.policies().get(name.as_str());
            if there.is_none_or(|there| there.to_string() != news.sha256.to_ascii_lowercase()) {
                let body = talk::policy(&mut self.link, address, news).await.map_err(talk)?;
                self.state.keep_policy(&name, &body)?;
                tracing::info!(policy = name.as_str(), "a policy is in place");
            }
            stay.push(name);
        }
        Ok(self.state.drop_policies(&stay)?)
    }

    /// What is said in a check-in.
    fn report(&mut self) -> CheckIn {
        self.sequence += 1;
        let Options { host, os, tree, tags, contact, .. } = &self.options;
        // Without them the handler still sees one.
        let addresses = local_addresses().unwrap_or_default();
        CheckIn {
            sequence: self.sequence,
            boot: self.boot.clone(),
            properties: Properties {
                host: host.clone(),
                os: os.clone(),
                addresses: addresses.into_iter().take(ADDRESSES).collect(),
                tree: tree.clone(),
                tags: tags.clone(),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            content: self.catalogues(),
            sitelist: self.state.etag().map(str::to_owned),
            policies: self.state.policies().iter().map(|(name, it)| (name.clone(), it.to_string())).collect(),
            contact: *contact,
        }
    }

    /// What is installed, by the catalogue that it came from.
    fn catalogues(&self) -> BTreeMap<String, String> {
        let updates = self.options.updates.iter();
        updates.filter_map(|it| Some((it.catalogue(), self.content.get(&it.name)?.clone()))).collect()
    }

    /// Another draw, for a wait.
    pub(super) const fn draw(&mut self) -> u64 {
        self.draws += 1;
        self.draws
    }
}

/// What could not be fetched after a check-in is tried again after so many seconds.
const NEWS_AGAIN_S: u64 = 60;

/// Addresses that are told: a check-in with more would be refused.
const ADDRESSES: usize = 32;

/// Time since the machine started, sleep included.
pub(super) fn uptime() -> Duration {
    since_start(ClockId::Boottime)
}

/// How long the machine has slept since it started.
pub(super) fn slept() -> Duration {
    since_start(ClockId::Boottime).saturating_sub(since_start(ClockId::Monotonic))
}

fn since_start(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
