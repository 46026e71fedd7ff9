//! What happens, act by act; after each of them everything has to be right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use waypost::protocol::agent_api::Contact;
use waypost::testkit::process::Dice;

use crate::crowd::{Crowd, Member};
use crate::pace;
use crate::settle::{Orders, agents_are_right, fleet_is_right, orders, settles, spread};
use crate::world::{Health, World, documents};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A handler of the branch is killed, and started again.
    Kill,
    /// … is stopped in the middle of everything, and goes on.
    Freeze,
    /// … is cut off without anybody being told, and is back.
    Cut,
    /// … is drained, and resumed.
    Drain,
    /// The authority is killed, and started again.
    KillAuthority,
    /// The documents give agents other handlers.
    Reassign,
}

impl Act {
    /// All of them, in an order that the dice say.
    pub(crate) fn shuffled(dice: &mut Dice) -> Vec<Self> {
        let mut all =
            vec![Self::Kill, Self::Freeze, Self::Cut, Self::Drain, Self::KillAuthority, Self::Reassign];
        for last in (1..all.len()).rev() {
            all.swap(last, usize::try_from(dice.below(last as u64 + 1)).expect("it is small"));
        }
        all
    }
}

/// All that takes part.
pub(crate) struct Story {
    world: World,
    crowd: Crowd,
    /// Whether the documents are the second ones.
    turned: bool,
    orders: Orders,
    began: Instant,
}

impl Story {
    /// Everything is started, and calm.
    pub(crate) async fn begin((agents, programs): (usize, usize)) -> Self {
        let began = Instant::now();
        let world = World::begin("").await;
        let crowd = Crowd::new(&world, agents, programs);
        world.document("fleet.toml", &documents(&world.addresses(), &crowd.places(), false));
        world.nodes[0].operate(&["reload"]).await;
        let mut story = Self { world, crowd, turned: false, orders: Orders::new(), began };
        story.edition_is_everywhere().await;
        let slow = story.crowd.start(&story.world).await;
        story.say(if slow { "this machine is slow: agents are patient" } else { "agents are as they are" });
        // The list that comes with the first check-in counts from the next one on.
        settles(&story.world, "everybody has checked in", async || {
            let statuses = story.crowd.statuses().await;
            let new = |it: &&Member| statuses.get(&it.id).is_none_or(|status| status.check_ins == 0);
            story.crowd.0.iter().filter(new).map(|it| it.id.clone()).collect()
        })
        .await;
        story.crowd.look_again(|_| true).await;
        story.calm("all have found their handlers").await;
        story
    }

    pub(crate) fn say(&self, words: &str) {
        eprintln!("{:6.1} s  {words}", self.began.elapsed().as_secs_f64());
    }

    /// One act: what happens, what has to be right meanwhile, how it ends, and what has to be right then.
    pub(crate) async fn play(&mut self, act: Act, dice: &mut Dice) {
        let place = 1 + usize::try_from(dice.below(2)).expect("it is small");
        let given_up = self.given_up().await;
        let hasty = dice.below(2) == 0;
        let publisher = self.publish(hasty, dice.split());
        match act {
            Act::Kill => self.trouble(place, Health::Dead, publisher).await,
            Act::Freeze => self.trouble(place, Health::Frozen, publisher).await,
            Act::Cut => self.trouble(place, Health::Cut, publisher).await,
            Act::KillAuthority => self.trouble(0, Health::Dead, publisher).await,
            Act::Drain => self.drain(place, publisher).await,
            Act::Reassign => self.reassign(publisher).await,
        }
        if matches!(act, Act::Drain | Act::Reassign) {
            assert_eq!(self.given_up().await, given_up, "nobody lost a line that was not harmed");
        }
    }

    /// Somebody publishes the next edition, file by file.
    fn publish(&mut self, hasty: bool, mut dice: Dice) -> JoinHandle<()> {
        let (before, next) = self.world.next_edition();
        let master = Arc::clone(&self.world.master);
        tokio::spawn(async move { next.publish_badly(&master, &before, hasty, &mut dice).await })
    }

    /// A node is harmed, agents go elsewhere, and come back when it is well.
    async fn trouble(&mut self, place: usize, harm: Health, publisher: JoinHandle<()>) {
        let (name, address) = (self.world.nodes[place].name, self.world.nodes[place].address());
        let due = spread(&self.world, &self.orders).get(name).copied().unwrap_or_default();
        self.world.nodes[place].suffer(harm);
        let began = Instant::now();
        // A line that breaks is noticed. Where nothing breaks, and without a line, it takes something to say.
        let silent = |it: &Member| harm != Health::Dead || it.contact == Contact::Checkin;
        let leave = self.crowd.leave(&address, Duration::from_secs(240));
        let (mut left, ()) = tokio::join!(leave, self.crowd.look_again(silent));
        // Those that were elsewhere all the time have left at once.
        left.sort_unstable_by_key(|(time, _)| *time);
        let left = left.split_off(left.len().saturating_sub(due));
        self.say(&format!("{name} is {harm:?}: {}", times(&left)));
        assert_eq!(left.len(), due, "everybody has found another one\n{}", self.world.logs());
        if place > 0 {
            publisher.await.expect("it publishes");
            // The authority is well: the others have what is new, and all that it knows of them.
            self.wake().await;
            self.say("all that are well show what is new, and everybody is woken");
            let nudges = agents_are_right(&self.world, &self.crowd, &self.orders).await;
            fleet_is_right(&self.world, &self.crowd, &self.orders).await;
            let took = began.elapsed().as_secs_f64();
            self.say(&format!("all is right without {name} after {took:.1} s, {nudges} nudges"));
            self.world.nodes[place].recover().await;
        } else {
            // Nothing comes from above meanwhile; agents are served all the same.
            self.world.nodes[place].recover().await;
            publisher.await.expect("it publishes");
            self.wake().await;
        }
        self.crowd.look_again(|_| true).await;
        self.calm(&format!("{name} is back")).await;
    }

    /// An operator empties a handler, and takes it back into use.
    async fn drain(&mut self, place: usize, publisher: JoinHandle<()>) {
        let name = self.world.nodes[place].name;
        self.world.nodes[0].operate(&["handlers", "drain", name]).await;
        publisher.await.expect("it publishes");
        self.documents_are_everywhere().await;
        self.wake().await;
        self.calm(&format!("{name} is drained")).await;
        self.world.nodes[0].operate(&["handlers", "resume", name]).await;
        self.documents_are_everywhere().await;
        self.wake().await;
        self.calm(&format!("{name} is resumed")).await;
    }

    /// The documents change, and the agents hear of it.
    async fn reassign(&mut self, publisher: JoinHandle<()>) {
        self.turned = !self.turned;
        let text = documents(&self.world.addresses(), &self.crowd.places(), self.turned);
        self.world.document("fleet.toml", &text);
        self.world.nodes[0].operate(&["reload"]).await;
        publisher.await.expect("it publishes");
        self.documents_are_everywhere().await;
        self.wake().await;
        self.calm("agents have other handlers").await;
    }

    /// All nodes that are well show the newest edition.
    async fn edition_is_everywhere(&self) {
        let World { nodes, authority, edition, .. } = &self.world;
        settles(&self.world, "the edition is at all nodes", async || {
            let mut behind = Vec::new();
            for node in nodes.iter().filter(|node| node.health == Health::Well) {
                if !node.shows(edition.number, authority).await {
                    behind.push(node.name.to_owned());
                }
            }
            behind
        })
        .await;
    }

    /// Everybody is woken when there is something new: by its line, or with its next check-in, which somebody brings
    /// about.
    async fn wake(&self) {
        self.edition_is_everywhere().await;
        let over = format!("{}s", (pace::APART * u32::try_from(self.crowd.0.len()).expect("few")).as_secs());
        self.world.nodes[0].operate(&["fleet", "wake", "-l", "id=*", "--over", &over]).await;
        // Whether the order is at their handlers before they are is not to be relied upon.
        let without = self.crowd.0.iter().filter(|it| it.contact == Contact::Checkin);
        self.crowd.nudge(&without.map(|it| &*it.id).collect()).await;
    }

    /// All is well, and becomes right.
    async fn calm(&mut self, what: &str) {
        let began = Instant::now();
        self.documents_are_everywhere().await;
        self.orders = orders(&self.world, &self.crowd).await;
        let (one, order) = self.orders.first_key_value().expect("there are agents");
        let told = self.world.nodes[0].operate(&["handlers", "order", "--agent", one]).await;
        let told = told.as_array().cloned().unwrap_or_default();
        let told: Vec<&str> = told.iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(*order, told, "people are told the same");
        let nudges = agents_are_right(&self.world, &self.crowd, &self.orders).await;
        fleet_is_right(&self.world, &self.crowd, &self.orders).await;
        let spread = spread(&self.world, &self.orders);
        let took = began.elapsed().as_secs_f64();
        self.say(&format!("{what}: right after {took:.1} s, {nudges} nudges; {spread:?}"));
    }

    async fn documents_are_everywhere(&self) {
        let documents = self.world.nodes[0].ask("/v1/status").await["control"]["version"].clone();
        settles(&self.world, "the documents are at all nodes", async || {
            let mut behind = Vec::new();
            for node in &self.world.nodes {
                let version = node.ask("/v1/status").await["control"]["version"].clone();
                if version != documents || version.is_null() {
                    behind.push(format!("{} has {version}", node.name));
                }
            }
            behind
        })
        .await;
    }

    /// Lines that nodes have given up although nobody closed them, since they were started.
    async fn given_up(&self) -> BTreeMap<&'static str, f64> {
        let mut all = BTreeMap::new();
        for node in &self.world.nodes {
            all.insert(node.name, node.given_up().await);
        }
        all
    }

    /// Everybody leaves.
    pub(crate) async fn end(&mut self) {
        self.crowd.stop().await;
    }
}

/// How long agents took to be elsewhere.
fn times(left: &[(Duration, Contact)]) -> String {
    let of = |contact: Contact| {
        let mut times: Vec<f64> =
            left.iter().filter(|(_, it)| *it == contact).map(|(time, _)| time.as_secs_f64()).collect();
        times.sort_unstable_by(f64::total_cmp);
        let (middle, last) = (times.get(times.len() / 2)?, times.last()?);
        Some(format!("{} by {}: p50 {middle:.1} s, last {last:.1} s", times.len(), contact.as_str()))
    };
    Contact::ALL.into_iter().filter_map(of).collect::<Vec<_>>().join("; ")
}
