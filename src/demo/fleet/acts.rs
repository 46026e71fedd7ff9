//! The days on which everything works: agents find their handler, a DAT is published, rules change. And the reckoning.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::papers::Documents;
use super::scene::{BRANCHES, DELAY, Scene};
use super::staff::{CHECK_IN, VERIFY, preferred};
use super::tell::Teller;
use super::watch::{Seen, doubles};
use super::{LIMIT, until};
use crate::base::size::render_size;
use crate::demo::print::{BOLD, PLAIN, render_rate, render_time, time_for};
use crate::protocol::agent_api::Contact;

/// The DATs of the story.
pub(super) const DATS: [u64; 3] = [11_230, 11_231, 11_232];

/// What TLS, heads, catalogues, documents and reports may add to a file on the WAN: percent, and bytes beside it.
pub(super) const OVERHEAD: (u64, u64) = (3, 512 << 10);

/// Who plays.
pub(super) fn opening(scene: &Scene) -> String {
    let options = &scene.options;
    let (agents, rate) = (options.agents, render_rate(options.wan));
    let of = |contact| (0..agents).filter(|&number| Scene::manner(number).0 == contact).count();
    let (streams, tunnels) = (of(Contact::Stream), of(Contact::Tunnel));
    let [one, two] = &scene.branches;
    format!(
        "{BOLD}waypost demo{PLAIN}: headquarters, a branch office with two handlers, {agents} agents\n\n   \
         hq        authority of the fleet, master repository    {}\n   \
         WAN       {rate}, {} ms to each handler; what crosses it is counted\n   \
         berlin-1  handler, a process of its own                {}\n   \
         berlin-2  the other one of its group                   {}\n   \
         agents    {streams} hold a stream, {tunnels} a tunnel, {} only check in\n\n   \
         So that nobody has to wait: a check-in every {} s and the handlers verified\n   \
         every {} s, where an hour is usual. To look yourself, in another terminal:\n   \
         export WAYPOST_SERVER={}",
        scene.hq.address,
        (DELAY * 2).as_millis(),
        one.node.address,
        two.node.address,
        agents - streams - tunnels,
        CHECK_IN.as_secs(),
        VERIFY.as_secs(),
        scene.file("hq.sock").display(),
    )
}

/// Act 1: everybody starts, and knows one address.
pub(super) async fn meet(scene: &mut Scene, teller: &mut Teller) -> anyhow::Result<()> {
    let (agents, [dat, ..]) = (scene.options.agents, DATS);
    let size = scene.options.size / 8;
    teller.act(&format!("1. {agents} agents start. All they were given is the address of berlin-1."))?;
    publish_files(scene, dat, size, None).await?;
    // An agent that comes before the documents do comes for them a minute later.
    handlers_follow(scene).await?;
    let began = Instant::now();
    for number in 0..agents {
        let (contact, is_till) = Scene::manner(number);
        scene.staff.hire(format!("pc-{:03}", number + 1), contact, is_till).await?;
    }
    let settled = scene
        .staff
        .each_until(
            (began, LIMIT),
            |_| true,
            |_, status| {
                let preferred = preferred(status);
                status.policies.len() == 2 && preferred.is_some() && status.handler.as_deref() == preferred
            },
        )
        .await;
    let spread = spread(scene).await;
    let (done, of, took) = (settled.done(), settled.of(), render_time(settled.slowest()));
    teller.check(
        settled.all(),
        format!("{done} of {of} have sitelist, policies and their handler after {took}"),
    )?;
    teller.line(&format!("           {spread}"))?;
    has_dat(scene, teller, dat, began).await?;
    let crossed = scene.crossed().map(render_size);
    let [one, two] = &crossed;
    teller.line(&format!("           {one} and {two} crossed the two lines for it, all included"))?;
    in_the_fleet_view(scene, teller, agents).await?;
    teller.command("fleet ls")?;
    teller.command("explain --agent pc-001")
}

/// Act 2: a DAT for everybody.
pub(super) async fn publish(scene: &mut Scene, teller: &mut Teller) -> anyhow::Result<()> {
    let ([_, dat, _], size) = (DATS, scene.options.size);
    let shown = render_size(size);
    teller
        .act(&format!("2. DAT {dat} is published, {shown}. When the handlers have it, agents are woken."))?;
    let before = scene.crossed();
    let began = Instant::now();
    publish_files(scene, dat, size, None).await?;
    let ideal = render_time(time_for(size, scene.options.wan));
    let here = handlers_have(scene, dat, &[0, 1], began).await?;
    let took = here.map_or_else(|| "never".to_owned(), render_time);
    teller
        .check(here.is_some(), format!("both handlers have it after {took}; the bare line needs {ideal}"))?;
    wake(scene, teller).await?;
    has_dat(scene, teller, dat, began).await?;
    let crossed = less(scene.crossed(), before);
    let (percent, fixed) = OVERHEAD;
    let held = crossed.iter().all(|bytes| *bytes >= size && *bytes <= size * (100 + percent) / 100 + fixed);
    let [one, two] = crossed.map(|bytes| format!("× {:.2}", bytes as f64 / size as f64));
    let what = format!("{one} and {two} of it crossed the two lines, all included");
    teller.check(held, what)?;
    teller.promise("copies of a file over each line", "× 1.00", format!("{one} and {two}"), held);
    teller.command("fleet wake -l state=live")
}

/// Act 5: the administrator changes a policy and an assignment.
pub(super) async fn rules_change(scene: &mut Scene, teller: &mut Teller) -> anyhow::Result<()> {
    teller.act("5. A policy gets stricter. Tills go to berlin-2 and update at night.")?;
    let began = Instant::now();
    scene.documents.change()?;
    scene.operator.ask("reload").await?;
    let took = handlers_follow(scene).await?;
    let shown = took.map_or_else(|| "never".to_owned(), render_time);
    teller.check(took.is_some(), format!("both handlers have the new documents after {shown}"))?;
    wake(scene, teller).await?;
    let stricter = Documents::stricter();
    let second = scene.branches[1].address();
    let followed = scene
        .staff
        .each_until(
            (began, LIMIT),
            |_| true,
            |member, status| {
                let policy = status.policies.get("antivirus/standard") == Some(&stricter);
                let night = status.policies.contains_key("updates/night") == member.is_till;
                policy && night && (!member.is_till || status.handler.as_deref() == Some(&second))
            },
        )
        .await;
    let (done, of, took) = (followed.done(), followed.of(), render_time(followed.slowest()));
    let tills = scene.staff.members.iter().filter(|member| member.is_till).count();
    teller.check(
        followed.all(),
        format!("{done} of {of} have their policies and handler after {took}, {tills} tills too"),
    )?;
    let agents = scene.staff.members.len();
    in_the_fleet_view(scene, teller, agents).await?;
    teller.command("policy resolve --agent pc-001 -o wide")
}

/// The end: what was promised, and what happened.
pub(super) async fn reckon(scene: &Scene, teller: &mut Teller, seen: Seen) -> anyhow::Result<()> {
    let installed = scene.staff.installed(scene.master.known()).await?;
    let (wrong, files, bytes) = (installed.wrong, installed.files, render_size(installed.bytes));
    teller.promise("wrong files at agents", "0", format!("{wrong} of {files}, {bytes}"), wrong == 0);
    let Seen { looks, doubles } = seen;
    let held = doubles == 0 && looks > 0;
    teller.promise("agents shown twice", "0", format!("{doubles} in {looks} looks"), held);
    let [one, two] = scene.branches.each_ref().map(|it| it.node.peak_memory());
    let told = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), render_size);
    teller.line(&format!(
        "\n   Memory at most: berlin-1 {} since its restart, berlin-2 {}",
        told(one),
        told(two)
    ))
}

/// Puts files into the master repository.
pub(super) async fn publish_files(
    scene: &mut Scene,
    dat: u64,
    size: u64,
    increment: Option<u64>,
) -> anyhow::Result<()> {
    tokio::task::block_in_place(|| scene.master.publish(dat, size, increment)).context("cannot publish")
}

/// Waits until these handlers show the catalogue of `dat`.
pub(super) async fn handlers_have(
    scene: &Scene,
    dat: u64,
    which: &[usize],
    began: Instant,
) -> anyhow::Result<Option<Duration>> {
    let dat = dat.to_string();
    let found = until(began, async || {
        for branch in which.iter().filter_map(|&number| scene.branches.get(number)) {
            let status = branch.operator.ask("status").await?;
            let shown = status.pointer("/catalogues/0/version").and_then(Value::as_str);
            if shown != Some(&dat) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    Ok(found.await?.map(|((), took)| took))
}

/// Wakes everybody who is there, from headquarters, and waits for the answers to come back to it.
pub(super) async fn wake(scene: &Scene, teller: &mut Teller) -> anyhow::Result<()> {
    let began = Instant::now();
    let told = scene.operator.ask("fleet wake -l state=live").await?;
    let number = |told: &Value, key| told.get(key).and_then(Value::as_u64).unwrap_or_default();
    let (id, total) = (number(&told, "id"), number(&told, "total"));
    let words = format!("fleet wake --result {id}");
    let done = until(began, async || {
        let told = scene.operator.ask(&words).await?;
        Ok((number(&told, "answered") == total).then_some(()))
    });
    let took = done.await?.map(|((), took)| took);
    let shown = took.map_or_else(|| "not all in time".to_owned(), render_time);
    teller.check(
        took.is_some() && total as usize == scene.staff.members.len(),
        format!("woken from headquarters: {total} agents have answered after {shown}"),
    )
}

/// Waits until everybody has `dat`, and looks at every byte of it.
pub(super) async fn has_dat(
    scene: &Scene,
    teller: &mut Teller,
    dat: u64,
    began: Instant,
) -> anyhow::Result<()> {
    let text = dat.to_string();
    let have = scene
        .staff
        .each_until((began, LIMIT), |_| true, |_, status| status.content.get("dat") == Some(&text))
        .await;
    let installed = scene.staff.installed(scene.master.known()).await?;
    let (done, of, took) = (have.done(), have.of(), render_time(have.slowest()));
    let (files, wrong) = (installed.files, installed.wrong);
    teller.check(
        have.all() && wrong == 0,
        format!("{done} of {of} have DAT {dat} after {took}; {files} files read, {wrong} wrong"),
    )
}

/// Waits until the authority lists all agents as they are: each once, where it says itself that it is.
pub(super) async fn in_the_fleet_view(
    scene: &Scene,
    teller: &mut Teller,
    agents: usize,
) -> anyhow::Result<()> {
    let alive = until(Instant::now(), async || {
        let rows = scene.operator.agents().await?;
        let mut right = rows.iter().filter(|row| row.is_there() && !row.behind).count() == agents;
        for branch in &scene.branches {
            let here = scene.staff.at(&branch.address()).await;
            let listed =
                |id: &String| rows.iter().any(|row| row.id == *id && row.handler == branch.node.name);
            right &= here.iter().all(listed);
        }
        let mut own = Vec::new();
        for branch in &scene.branches {
            own.extend(branch.operator.agents().await?);
        }
        Ok((right && doubles(&own) == 0).then_some(()))
    });
    let held = alive.await?.is_some();
    teller.check(held, format!("headquarters lists {agents} agents, each once and at the right handler"))
}

/// Who is where, as the agents say it.
pub(super) async fn spread(scene: &Scene) -> String {
    let mut parts = Vec::new();
    for (branch, name) in scene.branches.iter().zip(BRANCHES) {
        parts.push(format!("{} at {name}", scene.staff.at(&branch.address()).await.len()));
    }
    parts.join(", ")
}

/// What crossed since `before`.
pub(super) fn less(now: [u64; 2], before: [u64; 2]) -> [u64; 2] {
    let ([one, two], [first, second]) = (now, before);
    [one.saturating_sub(first), two.saturating_sub(second)]
}

/// Waits until both handlers have the documents that the authority has.
async fn handlers_follow(scene: &Scene) -> anyhow::Result<Option<Duration>> {
    let version = document_version(&scene.operator.ask("status").await?);
    let here = until(Instant::now(), async || {
        for branch in &scene.branches {
            if document_version(&branch.operator.ask("status").await?) != version {
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    Ok(here.await?.map(|((), took)| took))
}

fn document_version(status: &Value) -> Option<u64> {
    status.pointer("/control/version").and_then(Value::as_u64)
}
