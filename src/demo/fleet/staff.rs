//! The agents of the story: the reference agent as a library, many in this process. What is said of them here is what
//! they say themselves, and what lies in their directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::master::{DATS, Known};
use crate::agent::link::Identity;
use crate::agent::{Agent, Options, Order, Status, ask, update};
use crate::base::digest::Digest;
use crate::protocol::agent_api::Contact;
use crate::repository::preset::preset_named;

/// Instead of an hour each. Retries keep their minute: a fallback takes here what it takes everywhere.
pub(super) const CHECK_IN: Duration = Duration::from_secs(3);
const LOOK_AT_REPOSITORY: Duration = Duration::from_secs(10);
pub(super) const VERIFY: Duration = Duration::from_secs(4);
/// Instead of five minutes.
const GRACE: Duration = Duration::from_secs(2);

/// Between two questions to an agent; a large fleet is asked more rarely.
const EVERY: Duration = Duration::from_millis(200);
/// One that is busy answers the next time.
const ANSWER: Duration = Duration::from_secs(2);

/// What an installer gives to every agent.
pub(super) struct Terms {
    pub(super) folder: PathBuf,
    pub(super) ca: String,
    pub(super) token: String,
    /// The one handler it is told of.
    pub(super) handler: String,
}

/// One agent.
pub(super) struct Member {
    pub(super) id: String,
    pub(super) contact: Contact,
    pub(super) is_till: bool,
    state_dir: PathBuf,
    content: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All of them.
pub(super) struct Staff {
    terms: Terms,
    pub(super) members: Vec<Member>,
}

/// When which agents were as it was waited for.
#[derive(Debug, Default)]
pub(super) struct Waited {
    times: Vec<Duration>,
    /// Who was not, in the end.
    pub(super) missing: Vec<String>,
}

impl Waited {
    pub(super) const fn all(&self) -> bool {
        self.missing.is_empty()
    }

    pub(super) const fn done(&self) -> usize {
        self.times.len()
    }

    pub(super) const fn of(&self) -> usize {
        self.times.len() + self.missing.len()
    }

    pub(super) fn slowest(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// What lies in the agents' directories.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Installed {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Files that nobody published so.
    pub(super) wrong: u64,
}

impl Staff {
    pub(super) const fn new(terms: Terms) -> Self {
        Self { terms, members: Vec::new() }
    }

    /// Installs an agent and starts it.
    pub(super) async fn hire(&mut self, id: String, contact: Contact, is_till: bool) -> anyhow::Result<()> {
        let home = self.terms.folder.join(&id);
        fs::create_dir_all(&home)?;
        let (state_dir, content) = (home.join("state"), home.join("dat"));
        let mut options = Options::new(&*id, &state_dir, vec![self.terms.handler.clone()]);
        options.identity = Identity {
            trust: Some(self.terms.ca.clone().into_bytes()),
            certificate: None,
            token: Some(self.terms.token.clone()),
            id: id.clone(),
        };
        options.host.clone_from(&id);
        "demo".clone_into(&mut options.os);
        options.contact = contact;
        options.tree = Some("/Berlin".to_owned());
        options.tags = if is_till { vec!["till".to_owned()] } else { Vec::new() };
        options.first_checkin_within = Duration::from_secs(1);
        options.checkin_interval = CHECK_IN;
        options.update_interval = LOOK_AT_REPOSITORY;
        options.pace.verify_every = VERIFY;
        options.pace.grace = GRACE;
        options.updates = vec![update::Options {
            name: "dat".to_owned(),
            path: "/Software/".to_owned(),
            folder: DATS.to_owned(),
            preset: preset_named("epo").context("there is such a preset")?,
            directory: content.clone(),
        }];
        let agent = tokio::task::spawn_blocking(move || Agent::open(options)).await??;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(agent.run(async { drop(stopped.await) }));
        self.members.push(Member { id, contact, is_till, state_dir, content, stop: Some(stop), task });
        Ok(())
    }

    /// Asks those of `who` until each is as `fits` says, for `limit` at most. Times are from `began`.
    pub(super) async fn each_until(
        &self,
        (began, limit): (Instant, Duration),
        who: impl Fn(&Member) -> bool,
        fits: impl Fn(&Member, &Status) -> bool,
    ) -> Waited {
        let mut left: Vec<&Member> = self.members.iter().filter(|member| who(member)).collect();
        let every = EVERY.max(Duration::from_millis(left.len() as u64));
        let mut waited = Waited::default();
        loop {
            let mut asked = JoinSet::new();
            for (number, member) in left.iter().enumerate() {
                let dir = member.state_dir.clone();
                asked.spawn(async move { (number, status(&dir).await, began.elapsed()) });
            }
            let mut done = Vec::new();
            while let Some(answer) = asked.join_next().await {
                let Ok((number, Some(status), at)) = answer else { continue };
                if left.get(number).is_some_and(|member| fits(member, &status)) {
                    done.push(number);
                    waited.times.push(at);
                }
            }
            let mut number = 0;
            left.retain(|_| {
                number += 1;
                !done.contains(&(number - 1))
            });
            if left.is_empty() || began.elapsed() > limit {
                waited.missing = left.iter().map(|member| member.id.clone()).collect();
                return waited;
            }
            tokio::time::sleep(every).await;
        }
    }

    /// How many of them use which handler now.
    pub(super) async fn at(&self, address: &str) -> Vec<String> {
        let mut asked = JoinSet::new();
        for member in &self.members {
            let (id, dir) = (member.id.clone(), member.state_dir.clone());
            asked.spawn(async move { (id, status(&dir).await) });
        }
        let all = asked.join_all().await.into_iter();
        let here = |status: &Status| status.handler.as_deref() == Some(address);
        all.filter(|(_, status)| status.as_ref().is_some_and(here)).map(|(id, _)| id).collect()
    }

    /// Reads every installed file and holds it against what was published.
    pub(super) async fn installed(&self, known: &Known) -> anyhow::Result<Installed> {
        let places: Vec<PathBuf> = self.members.iter().map(|it| it.content.join("current")).collect();
        let known = known.clone();
        Ok(tokio::task::spawn_blocking(move || check(&places, &known)).await??)
    }

    /// Lets all of them say good-bye.
    pub(super) async fn dismiss(&mut self) {
        for member in &mut self.members {
            drop(member.stop.take());
        }
        let ends = async {
            for member in &mut self.members {
                let _ = (&mut member.task).await;
            }
        };
        // Who hangs is dropped with the rest.
        let _ = tokio::time::timeout(Duration::from_secs(5), ends).await;
    }
}

fn check(places: &[PathBuf], known: &Known) -> io::Result<Installed> {
    let mut all = Installed::default();
    for place in places {
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            let body = fs::read(entry.path())?;
            all.files += 1;
            all.bytes += body.len() as u64;
            let published = known.get(&*entry.file_name().to_string_lossy());
            all.wrong += u64::from(!published.is_some_and(|it| it.contains(&Digest::of(&body))));
        }
    }
    Ok(all)
}

async fn status(state_dir: &Path) -> Option<Status> {
    let asked = tokio::time::timeout(ANSWER, ask(state_dir, Order::Status)).await.ok()?;
    asked.ok()?.map(|done| done.status)
}

/// The first handler of the agent's own sitelist.
pub(super) fn preferred(status: &Status) -> Option<&str> {
    let listed = status.list.iter().filter(|it| it.class != "installed");
    listed.min_by_key(|it| it.priority).map(|it| &*it.address)
}
