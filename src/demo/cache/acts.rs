//! The story, act by act. Every act measures from outside: at the WAN, at headquarters' door, and at the agents.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::agent::{Fetched, Handler, Manner};
use super::content::{Item, digest_in};
use super::crowd::{Crowd, check, rush};
use super::progress::{Goal, show};
use super::report::{Report, Row};
use super::scene::{DELAY, Scene};
use super::witness::Seen;
use crate::base::size::render_size;
use crate::demo::print::{heading, render_time, say, time_for};

/// What TLS, heads and handshakes may add to a file on the WAN, in percent and beside it in bytes.
const OVERHEAD: (u64, u64) = (2, 64 << 10);
/// What a reset may waste: a TLS record and socket buffers on their way, and the overlap that proves the resumption.
const WASTE: u64 = 128 << 10;
/// How long the handler may need to notice that the WAN is back.
const RECOVERY: Duration = Duration::from_secs(30);

/// Plays all acts. Claims that do not hold are in `report`, not in the error.
///
/// # Errors
/// The demo itself cannot go on.
pub(super) async fn play(scene: &Scene, report: &mut Report) -> anyhow::Result<()> {
    let catalogue = catalogue(scene, report).await?;
    let trusted = |item: &Item| -> anyhow::Result<Item> {
        let digest = digest_in(&catalogue, item.path).context("the catalogue does not name a file")?;
        Ok(Item { digest, ..item.clone() })
    };
    let (dat, package) = (trusted(&scene.content.dat)?, trusted(&scene.content.package)?);
    cold_rush(scene, report, &dat).await?;
    trouble(scene, report, &package).await?;
    line_down(scene, report, &[dat, package], &trusted(&scene.content.delta)?).await
}

/// The figures of one act: what the counters say at its end less what they said at its beginning.
struct Act<'a> {
    scene: &'a Scene,
    wan_bytes: u64,
    seen: usize,
    delivered: Arc<AtomicU64>,
}

impl<'a> Act<'a> {
    fn begin(scene: &'a Scene, title: &str) -> anyhow::Result<Self> {
        say(&heading(title))?;
        let (wan_bytes, seen) = (scene.wan.received(), scene.witness.seen().len());
        Ok(Self { scene, wan_bytes, seen, delivered: Arc::default() })
    }

    fn handler(&self) -> &'a Handler {
        &self.scene.handler
    }

    fn requests(&self) -> Vec<Seen> {
        self.scene.witness.seen().split_off(self.seen)
    }

    fn wan_bytes(&self) -> u64 {
        self.scene.wan.received() - self.wan_bytes
    }

    fn row(&self, what: &str, asked: usize) -> Row {
        Row {
            what: what.to_owned(),
            asked,
            wan_requests: self.requests().len(),
            wan_bytes: self.wan_bytes(),
            delivered: self.delivered.load(Ordering::Relaxed),
        }
    }
}

/// Act 1: what every agent does first. Gives the catalogue, which the agents trust from here on.
async fn catalogue(scene: &Scene, report: &mut Report) -> anyhow::Result<String> {
    let agents = scene.options.agents;
    let act = Act::begin(scene, &format!("1. {agents} agents read the catalogue at the same moment"))?;
    let crowd =
        rush(act.handler(), &scene.content.catalogue, agents, Manner::default(), &act.delivered).await;
    say(&first_bytes(&crowd))?;
    say(&verified(report, &crowd, "the catalogue"))?;
    say(&one_request(report, &act))?;
    report.add(act.row("catalogue", agents));
    let text = crowd.verified.into_iter().next().map(|fetched| fetched.text);
    text.context("no agent could read the catalogue")
}

/// Act 2: the file that everybody wants and nobody has.
async fn cold_rush(scene: &Scene, report: &mut Report, dat: &Item) -> anyhow::Result<()> {
    let (agents, size) = (scene.options.agents, render_size(dat.size));
    let title =
        format!("2. New signatures: {agents} agents ask for {size} at the same moment, one more comes late");
    let act = Act::begin(scene, &title)?;
    let over = AtomicBool::new(false);
    let crowd = async {
        let crowd = rush(act.handler(), dat, agents, Manner::default(), &act.delivered).await;
        over.store(true, Ordering::Relaxed);
        crowd
    };
    let late = async {
        while act.wan_bytes() < dat.size / 2 && !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let joined = act.wan_bytes() * 100 / dat.size;
        (joined, act.handler().fetch_whole(dat.path, &act.delivered).await)
    };
    let goal = Goal { wan: dat.size, agents: dat.size * (agents as u64 + 1) };
    let both = async { tokio::join!(crowd, late) };
    let (crowd, (joined, late)) = show(&scene.wan, &act.delivered, goal, both).await;
    say(&first_bytes(&crowd))?;
    say(&against_ideal(scene, &crowd, dat))?;
    say(&late_agent(report, joined, late, dat))?;
    say(&verified(report, &crowd, "the signatures"))?;
    say(&one_request(report, &act))?;
    say(&wire_bytes(report, &act, dat, 0))?;
    report.add(act.row("signatures, cold", agents + 1));
    Ok(())
}

/// Act 3: an agent leaves in the middle, and the WAN resets every connection.
async fn trouble(scene: &Scene, report: &mut Report, package: &Item) -> anyhow::Result<()> {
    let (agents, size) = (scene.options.agents, render_size(package.size));
    let title = format!(
        "3. Trouble: {agents} agents ask for a package of {size}; one leaves at 25 %, the WAN breaks at 60 %"
    );
    let act = Act::begin(scene, &title)?;
    scene.wan.reset_after(package.size * 6 / 10);
    let first = Manner { leave_at: Some(package.size / 4) };
    let crowd = rush(act.handler(), package, agents, first, &act.delivered);
    let goal = Goal { wan: package.size, agents: package.size * (agents as u64 - 1) + package.size / 4 };
    let crowd = show(&scene.wan, &act.delivered, goal, crowd).await;
    say(&first_bytes(&crowd))?;
    say(&against_ideal(scene, &crowd, package))?;
    say(&report.check(crowd.left == 1, "the agent that left took nobody with it"))?;
    say(&verified(report, &crowd, "the package"))?;
    say(&resumed(report, &act.requests()))?;
    say(&wire_bytes(report, &act, package, WASTE))?;
    report.add(act.row("package, broken once", agents));
    Ok(())
}

/// Act 4: no WAN at all.
async fn line_down(
    scene: &Scene,
    report: &mut Report,
    held: &[Item; 2],
    absent: &Item,
) -> anyhow::Result<()> {
    let agents = scene.options.agents;
    let title =
        format!("4. The WAN is down: {agents} agents fetch everything again, one asks for something new");
    let act = Act::begin(scene, &title)?;
    scene.wan.set_working(false);
    let began = Instant::now();
    let mut asked = 0;
    for (item, what) in held.iter().zip(["the signatures", "the package"]) {
        let goal = Goal { wan: 0, agents: item.size * agents as u64 };
        let delivered = Arc::new(AtomicU64::new(0));
        let crowd = rush(act.handler(), item, agents, Manner::default(), &delivered);
        let crowd = show(&scene.wan, &delivered, goal, crowd).await;
        act.delivered.fetch_add(delivered.load(Ordering::Relaxed), Ordering::Relaxed);
        asked += agents;
        say(&verified(report, &crowd, what))?;
    }
    let took = began.elapsed();
    let bytes = act.delivered.load(Ordering::Relaxed);
    let rate = render_size((bytes as f64 / took.as_secs_f64().max(1e-6)) as u64);
    say(&format!("   from the handler's cache: {} in {}, {rate}/s", render_size(bytes), render_time(took)))?;
    let crossed = act.requests().is_empty() && act.wan_bytes() == 0;
    say(&report.check(crossed, "nothing crossed the WAN"))?;
    let refused = act.handler().fetch(absent.path, Manner::default(), &AtomicU64::new(0)).await;
    say(&refusal(report, refused))?;
    report.add(act.row("all again, WAN down", asked + 1));
    line_back(scene, report, absent).await
}

/// Act 5: the line is back, and nobody has to do anything about it.
async fn line_back(scene: &Scene, report: &mut Report, absent: &Item) -> anyhow::Result<()> {
    let act = Act::begin(scene, "5. The WAN is back: the agent asks again until it gets the new file")?;
    scene.wan.set_working(true);
    let (line, asked) = recovery(report, &act, absent).await;
    say(&line)?;
    report.add(act.row("a delta, WAN back", asked));
    Ok(())
}

fn first_bytes(crowd: &Crowd) -> String {
    let [half, most] = [0.5, 0.99].map(|share| render_time(crowd.first_byte(share)));
    format!("   first byte      p50 {half}, p99 {most}, handshakes included")
}

fn against_ideal(scene: &Scene, crowd: &Crowd, item: &Item) -> String {
    let ideal = time_for(item.size, scene.options.wan) + DELAY * 2;
    let last = crowd.last_byte();
    let factor = last.as_secs_f64() / ideal.as_secs_f64();
    let (last, ideal) = (render_time(last), render_time(ideal));
    format!("   last agent      {last}; the bare WAN needs {ideal} for one copy: × {factor:.2}")
}

fn late_agent(report: &mut Report, joined: u64, late: anyhow::Result<Fetched>, item: &Item) -> String {
    let outcome = late.and_then(|fetched| check(&fetched, item).map(|()| fetched));
    match outcome {
        Ok(fetched) => {
            let (first, last) = (render_time(fetched.first_byte), render_time(fetched.last_byte));
            report.check(
                true,
                format!("the late agent came at {joined} %: first byte after {first}, complete and right after {last}"),
            )
        }
        Err(error) => report.check(false, format!("the late agent gets the file: {error:#}")),
    }
}

fn verified(report: &mut Report, crowd: &Crowd, what: &str) -> String {
    let (stayed, right) = (crowd.agents - crowd.left, crowd.verified.len());
    let who = if crowd.left > 0 { "agents that stayed" } else { "agents" };
    let mut claim = format!("{right} of {stayed} {who} have {what} with the right SHA-256");
    if let Some(failure) = crowd.failures.first() {
        claim.push_str(&format!("; {} failed, one with: {failure}", crowd.failures.len()));
    }
    report.check(crowd.all_right(), claim)
}

fn one_request(report: &mut Report, act: &Act<'_>) -> String {
    let bytes = render_size(act.wan_bytes());
    match act.requests().len() {
        1 => report.check(true, format!("1 request crossed the WAN, {bytes} on the wire")),
        more => {
            report.check(false, format!("{more} requests crossed the WAN instead of 1, {bytes} on the wire"))
        }
    }
}

fn wire_bytes(report: &mut Report, act: &Act<'_>, item: &Item, waste: u64) -> String {
    let bytes = act.wan_bytes();
    let factor = bytes as f64 / item.size.max(1) as f64;
    let (percent, fixed) = OVERHEAD;
    let claim = format!("the file crossed the WAN × {factor:.3}, TLS and heads included");
    report.check(bytes <= item.size * (100 + percent) / 100 + fixed + waste, claim)
}

/// Two requests: the whole, and from where it broke.
fn resumed(report: &mut Report, requests: &[Seen]) -> String {
    let [_, Seen { range: Some(range), .. }] = requests else {
        let ranges: Vec<_> =
            requests.iter().map(|seen| seen.range.as_deref().unwrap_or("all")).take(4).collect();
        let (count, ranges) = (requests.len(), ranges.join(", "));
        let claim = format!("after the break one request for the rest; seen: {count} requests ({ranges}, …)");
        return report.check(false, claim);
    };
    let from = range.trim_start_matches("bytes=").split('-').next().and_then(|from| from.parse().ok());
    let had = render_size(from.unwrap_or(0));
    let claim = format!("after the break the handler had {had} and asked for the rest only ({range})");
    report.check(from.is_some_and(|from: u64| from > 0), claim)
}

fn refusal(report: &mut Report, refused: anyhow::Result<Fetched>) -> String {
    match refused {
        Ok(fetched) => {
            let (status, took) = (fetched.status, render_time(fetched.last_byte));
            let again =
                fetched.retry_after.map_or_else(String::new, |after| format!(", Retry-After: {after}"));
            let held = status.is_server_error();
            report.check(held, format!("something new gets a plain answer: {status}{again}, after {took}"))
        }
        Err(error) => report.check(false, format!("something new gets a plain answer: {error:#}")),
    }
}

/// The line that says how it went, and how often the agent asked.
async fn recovery(report: &mut Report, act: &Act<'_>, absent: &Item) -> (String, usize) {
    let began = Instant::now();
    for asked in 1.. {
        let fetched = act.handler().fetch_whole(absent.path, &act.delivered).await;
        let took = began.elapsed();
        match fetched.and_then(|fetched| check(&fetched, absent)) {
            Ok(()) => {
                let claim = format!("complete and right {} after the WAN came back", render_time(took));
                return (report.check(true, claim), asked);
            }
            Err(error) if took > RECOVERY => {
                return (report.check(false, format!("the new file comes: {error:#}")), asked);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    (String::new(), 0)
}
