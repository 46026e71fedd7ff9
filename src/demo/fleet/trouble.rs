//! The days on which something dies: a handler, and the WAN.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::acts::{
    DATS, OVERHEAD, handlers_have, has_dat, in_the_fleet_view, less, publish_files, spread, wake,
};
use super::scene::Scene;
use super::staff::preferred;
use super::tell::Teller;
use super::{LIMIT, until};
use crate::base::size::render_size;
use crate::demo::print::render_time;
use crate::protocol::agent_api::Contact;

/// How long a fallback may take.
const FALLBACK: Duration = Duration::from_secs(5);
/// The WAN is gone for this long at least.
const OUTAGE: Duration = Duration::from_secs(5);

/// Act 3: one of the two handlers is killed, and comes back.
pub(super) async fn handler_dies(scene: &mut Scene, teller: &mut Teller) -> anyhow::Result<()> {
    let ([_, _, dat], size) = (DATS, scene.options.size);
    let [one, two] = scene.branches.each_ref().map(|branch| branch.address());
    teller.act("3. berlin-1 is killed (kill -9). A DAT comes while it is gone. It returns.")?;
    let orphans = scene.staff.at(&one).await;
    scene.branches[0].node.kill().await?;
    let (began, since) = (Instant::now(), now_ms());
    let moved = scene
        .staff
        .each_until(
            (began, LIMIT),
            |member| orphans.contains(&member.id),
            |member, status| {
                let checked_in = status.last_checkin_ms.is_some_and(|at| at > since);
                let in_contact =
                    if member.contact == Contact::Checkin { checked_in } else { status.channel_open };
                status.handler.as_ref() == Some(&two) && in_contact
            },
        )
        .await;
    let (done, of) = (moved.done(), moved.of());
    let (median, slowest) = (render_time(moved.median()), render_time(moved.slowest()));
    teller.check(
        moved.all(),
        format!("{done} of {of} of its agents are at berlin-2, half of them after {median}"),
    )?;
    teller.check_time(moved.slowest() <= FALLBACK, format!("the slowest of them after {slowest}"))?;
    teller.promise_time("fallback when a handler dies", FALLBACK, moved.slowest(), moved.all());
    in_the_fleet_view_of_one(scene, teller).await?;

    let before = scene.crossed();
    let began = Instant::now();
    let increment = (size / 16).max(1 << 10);
    publish_files(scene, dat, size, Some(increment)).await?;
    let here = handlers_have(scene, dat, &[1], began).await?;
    let took = here.map_or_else(|| "never".to_owned(), render_time);
    teller.check(here.is_some(), format!("berlin-2 has DAT {dat} after {took}"))?;
    wake(scene, teller).await?;
    has_dat(scene, teller, dat, began).await?;
    let [dead, crossed] = less(scene.crossed(), before);
    let (percent, fixed) = OVERHEAD;
    let most = (size + increment) * (100 + percent) / 100 + fixed;
    let (shown, step) = (render_size(crossed), render_size(increment));
    teller.check(
        crossed <= most && dead == 0,
        format!("agents took an increment of {step}; berlin-2 fetched {shown} in all"),
    )?;

    let began = Instant::now();
    scene.branches[0].node.start_again().await?;
    let back = scene
        .staff
        .each_until(
            (began, LIMIT),
            |_| true,
            |_, status| status.handler.is_some() && status.handler.as_deref() == preferred(status),
        )
        .await;
    let (spread, took) = (spread(scene).await, render_time(back.slowest()));
    teller.check(back.all(), format!("berlin-1 is back, and {took} later so are its agents"))?;
    teller.line(&format!("           {spread}"))?;
    let agents = scene.staff.members.len();
    in_the_fleet_view(scene, teller, agents).await?;
    teller.command("fleet ls -l handler=berlin-1")?;
    teller.command("handlers order --agent pc-001")
}

async fn in_the_fleet_view_of_one(scene: &Scene, teller: &mut Teller) -> anyhow::Result<()> {
    let agents = scene.staff.members.len();
    let alive = until(Instant::now(), async || {
        let rows = scene.operator.agents().await?;
        let there = |row: &&super::operator::Row| row.is_there() && row.handler == "berlin-2";
        Ok((rows.iter().filter(there).count() == agents).then_some(()))
    });
    let held = alive.await?.is_some();
    teller.check(held, format!("headquarters lists {agents} agents, each once and at berlin-2"))
}

/// Act 4: no WAN at all, for both handlers.
pub(super) async fn wan_dies(scene: &mut Scene, teller: &mut Teller) -> anyhow::Result<()> {
    teller.act("4. The WAN dies. Agents go on, and a new machine is set up.")?;
    let before = scene.crossed();
    for branch in &scene.branches {
        branch.wan.set_working(false);
    }
    let (began, since) = (Instant::now(), now_ms());
    let agents = scene.staff.members.len();
    let went_on = scene
        .staff
        .each_until((began, LIMIT), |_| true, |_, status| status.last_checkin_ms.is_some_and(|at| at > since))
        .await;
    let (done, of) = (went_on.done(), went_on.of());
    teller.check(went_on.all(), format!("{done} of {of} agents have checked in since, at their handlers"))?;

    let ([_, _, dat], hired) = (DATS, Instant::now());
    scene.staff.hire("pc-new".to_owned(), Contact::Stream, true).await?;
    let dat = dat.to_string();
    let equipped = scene
        .staff
        .each_until(
            (hired, LIMIT),
            |member| member.id == "pc-new",
            |_, status| {
                let has_papers = status.sitelist.is_some() && status.policies.len() == 2;
                has_papers && status.content.get("dat") == Some(&dat)
            },
        )
        .await;
    let took = render_time(equipped.slowest());
    teller.check(
        equipped.all(),
        format!("the new machine has sitelist, policies and DAT {dat} after {took}"),
    )?;

    tokio::time::sleep(OUTAGE.saturating_sub(began.elapsed())).await;
    let (mut truthful, mut lost, mut connected) = (true, 0, 0);
    let mut ages = String::new();
    for branch in &scene.branches {
        let gone = began.elapsed().as_secs();
        let status = branch.operator.ask("status").await?;
        let age = |path| status.pointer(path).and_then(Value::as_u64);
        let told = [age("/control/age_seconds"), age("/catalogues/0/age_seconds")];
        // What is told in whole seconds may be one short.
        truthful &= told.iter().all(|age| age.is_some_and(|age| age + 1 >= gone));
        if let [Some(documents), Some(catalogue)] = told {
            ages = format!("documents {documents} s, repository {catalogue} s");
        }
        for row in branch.operator.agents().await?.iter().filter(|row| row.id != "pc-new") {
            connected += usize::from(row.is_there());
            lost += usize::from(row.since * 1_000 > since + 1_000);
        }
    }
    teller.check(truthful, format!("the handlers tell how old that is: {ages}"))?;
    teller.check(
        lost == 0 && connected == agents,
        format!("{connected} of {agents} agents in contact the whole time, {lost} taken for lost"),
    )?;
    teller.promise("agents wrongly taken for lost", "0", lost.to_string(), lost == 0 && connected == agents);
    let silent = less(scene.crossed(), before).iter().all(|bytes| *bytes <= 64 << 10);
    let served = went_on.all() && equipped.all() && silent;
    let happened = format!("{done} agents and a new one");
    teller.promise("served without a WAN", "everything", happened, served);

    let began = Instant::now();
    for branch in &scene.branches {
        branch.wan.set_working(true);
    }
    let known = until(began, async || {
        let rows = scene.operator.agents().await?;
        Ok(rows.iter().any(|row| row.id == "pc-new" && row.is_there()).then_some(()))
    });
    let took = known.await?.map(|((), took)| took);
    let shown = took.map_or_else(|| "never".to_owned(), render_time);
    teller.check(
        took.is_some(),
        format!("the WAN is back: headquarters knows the new machine {shown} later"),
    )?;
    teller.command("-s …/berlin-1.sock status")
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
