//! The agents: many in this process, a few as the real program. All of them choose, fall back, check in, hold their
//! lines and update by the product's own code, and all of them are asked at the socket that people ask at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use waypost::agent::link::{Identity, Patience};
use waypost::agent::{Agent, Options, Order, Status, ask, update};
use waypost::protocol::agent_api::Contact;
use waypost::repository::preset::preset_named;
use waypost::testkit::publisher::CURRENT;

use crate::pace;
use crate::world::{PLACES, World};

/// One agent.
pub(crate) struct Member {
    pub(crate) id: String,
    /// Its place, a number of [`PLACES`].
    pub(crate) place: usize,
    pub(crate) contact: Contact,
    dir: PathBuf,
    running: Running,
}

enum Running {
    Not,
    Here(oneshot::Sender<()>, JoinHandle<()>),
    Program(Child),
}

impl Member {
    /// Its state directory.
    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Where programs read what it keeps up to date.
    pub(crate) fn installed(&self) -> PathBuf {
        self.dir.join("dat").join("current")
    }

    /// What it says of itself.
    pub(crate) async fn status(&self) -> Option<Status> {
        ask(&self.state(), Order::Status).await.ok().flatten().map(|done| done.status)
    }

    /// An operator has it verify its list and check in.
    async fn look_again(&self) {
        // One that does not answer has no handler either; that is seen elsewhere.
        drop(ask(&self.state(), Order::CheckIn).await);
    }

    /// An operator has it do what it has to do besides.
    async fn update(&self) {
        drop(ask(&self.state(), Order::Update).await);
    }
}

/// All of them.
pub(crate) struct Crowd(pub(crate) Vec<Member>);

impl Crowd {
    /// So many that are part of this process, and `programs` more; none of them runs yet.
    pub(crate) fn new(world: &World, here: usize, programs: usize) -> Self {
        let member = |number: usize| {
            // Tenths: most hold a stream, as in the field.
            let contact = match number % 10 {
                0..6 => Contact::Stream,
                6..8 => Contact::Tunnel,
                _ => Contact::Checkin,
            };
            let place = [0, 1, 0, 2, 0, 1, 0][number % 7];
            let program = number >= here;
            let id = if program { format!("real-{}", number - here) } else { format!("pc-{number}") };
            let dir = world.path("agents").join(&id);
            Member { id, place, contact, dir, running: Running::Not }
        };
        Self((0..here + programs).map(member).collect())
    }

    /// Who is where, for the documents.
    pub(crate) fn places(&self) -> Vec<(String, usize)> {
        self.0.iter().map(|member| (member.id.clone(), member.place)).collect()
    }

    /// Starts all of them; they know one handler, the authority. Those in this process are as patient as agents are,
    /// and more so on a machine that is too slow for that: says which.
    pub(crate) async fn start(&mut self, world: &World) -> bool {
        let installed_with = world.nodes[0].address();
        let slow = is_slow(world, &self.0, &installed_with).await;
        for member in &mut self.0 {
            fs::create_dir_all(&member.dir).expect("a directory");
            member.running = if member.id.starts_with("real") {
                Running::Program(program(world, member, &installed_with))
            } else {
                let mut options = options(world, member, &installed_with);
                if slow {
                    options.patience = patient();
                }
                let agent = Agent::open(options).expect("it can begin");
                let (stop, stopped) = oneshot::channel::<()>();
                Running::Here(stop, tokio::spawn(agent.run(async { drop(stopped.await) })))
            };
        }
        slow
    }

    /// Ends all of them in order: each says good-bye.
    pub(crate) async fn stop(&mut self) {
        for member in &mut self.0 {
            match std::mem::replace(&mut member.running, Running::Not) {
                Running::Not => {}
                Running::Here(stop, task) => {
                    drop(stop);
                    task.await.expect("it ends in order");
                }
                Running::Program(mut child) => {
                    let id = child.id().and_then(|id| i32::try_from(id).ok());
                    let id = id.and_then(rustix::process::Pid::from_raw).expect("it runs");
                    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it is ours");
                    let ended = child.wait().await.expect("it can be waited for");
                    assert!(ended.success(), "{}: {ended}", member.id);
                }
            }
        }
    }

    /// What all of them say of themselves, by id.
    pub(crate) async fn statuses(&self) -> BTreeMap<String, Status> {
        let all = join_all(self.0.iter().map(async |it| Some((it.id.clone(), it.status().await?)))).await;
        all.into_iter().flatten().collect()
    }

    /// Operators have agents verify their lists and check in, one after the other without waiting for them.
    pub(crate) async fn look_again(&self, which: impl Fn(&Member) -> bool) {
        let wanted = self.0.iter().filter(|it| which(it));
        join_all(wanted.zip(0_u32..).map(async |(member, number)| {
            tokio::time::sleep(pace::APART * number).await;
            member.look_again().await;
        }))
        .await;
    }

    /// Operators have these do all that they do.
    pub(crate) async fn nudge(&self, ids: &BTreeSet<&str>) {
        self.look_again(|it| ids.contains(&*it.id)).await;
        join_all(self.0.iter().filter(|it| ids.contains(&*it.id)).map(Member::update)).await;
    }

    /// How long those that are at `address` take to be elsewhere: time and contact of each that is by the time that all
    /// are, or that `patience` is over. To a fifth of a second.
    pub(crate) async fn leave(&self, address: &str, patience: Duration) -> Vec<(Duration, Contact)> {
        let began = Instant::now();
        let leaves = async |member: &Member| {
            while began.elapsed() < patience {
                let status = member.status().await;
                if status.and_then(|it| it.handler).is_some_and(|it| it != address) {
                    return Some((began.elapsed(), member.contact));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            None
        };
        join_all(self.0.iter().map(leaves)).await.into_iter().flatten().collect()
    }
}

/// How patient agents are where nothing is as fast as it should be.
fn patient() -> Patience {
    let all = Duration::from_secs(40);
    Patience { connect: all, answer: all, stall: all, probe: all, check_in: all }
}

/// Whether some who ask at the same time have to wait for what should take milliseconds.
async fn is_slow(world: &World, members: &[Member], handler: &str) -> bool {
    let began = Instant::now();
    let ask = async |member: &Member| {
        let mut options = options(world, member, handler);
        options.patience = patient();
        drop(Agent::probe(&options).await);
    };
    join_all(members.iter().take(20).map(ask)).await;
    began.elapsed() > Duration::from_millis(500)
}

fn options(world: &World, member: &Member, handler: &str) -> Options {
    let mut options = Options::new(member.id.clone(), member.state(), vec![handler.to_owned()]);
    options.identity = Identity {
        trust: Some(world.authority.pem().into_bytes()),
        id: member.id.clone(),
        ..Identity::default()
    };
    options.contact = member.contact;
    options.host = member.id.clone();
    options.tags = vec![PLACES[member.place].to_owned()];
    options.first_checkin_within = Duration::from_secs(2);
    options.update_interval = pace::UPDATE;
    options.pace.verify_every = pace::VERIFY;
    options.pace.retry_first = pace::RETRY;
    options.pace.retry_most = pace::RETRY;
    options.pace.grace = pace::GRACE;
    options.updates = vec![update::Options {
        name: "dat".to_owned(),
        path: "/Software/".to_owned(),
        folder: CURRENT.to_owned(),
        preset: preset_named("epo").expect("it is one"),
        directory: member.dir.join("dat"),
    }];
    options
}

fn program(world: &World, member: &Member, handler: &str) -> Child {
    let write = |name: &str, text: &str| fs::write(member.dir.join(name), text).expect("it can be written");
    write("ca.pem", &world.authority.pem());
    let Member { id, place, contact, .. } = member;
    let seconds = |time: Duration| time.as_secs();
    let (verify, update, retry) = (seconds(pace::VERIFY), seconds(pace::UPDATE), seconds(pace::RETRY));
    write(
        "agent.toml",
        &format!(
            "[agent]\nid = {id:?}\nhandlers = {handler:?}\nca = \"ca.pem\"\nstate_dir = \"state\"\n\
             contact = \"{}\"\ntags = {:?}\nfirst_checkin = \"2s\"\nverify_interval = \"{verify}s\"\n\
             update_interval = \"{update}s\"\nretry = \"{retry}s\"\n\n\
             [[update]]\nname = \"dat\"\npath = \"/Software/\"\nfolder = {CURRENT:?}\npreset = \"epo\"\n\
             directory = \"dat\"\n",
            contact.as_str(),
            PLACES[*place],
        ),
    );
    Command::new(env!("CARGO_BIN_EXE_waypost"))
        .args(["agent", "run", "-c", "agent.toml"])
        .current_dir(&member.dir)
        .env_remove("WAYPOST_CONFIG")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts")
}
