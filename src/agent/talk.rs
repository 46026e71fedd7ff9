//! The agents' API as the agent speaks it: each call a question, a bounded answer, and what it means.

use std::time::Duration;

use http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::link::{Ask, Link, TalkError};
use super::select::{Candidate, Method, Observed, Seen, asking_order};
use crate::base::digest::Digest;
use crate::base::limits::{AGENT_ANSWER_BYTES, POLICY_BYTES, PROBED, PROBED_AT_ONCE};
use crate::fleet::sitelist::{Sitelist, parse};
use crate::protocol::agent_api::{
    CheckIn, CheckedIn, HandlerState, OldSequence, PolicyNews, Poll, Polled, Probed, SitelistNews,
};
use crate::protocol::target::path_of_name;

const PREFIX: &str = "/agent/v1/";

/// How long a poll is held by a handler (25 s), and what a thin line adds.
const POLL: Duration = Duration::from_secs(40);

/// Nobody waits for a good-bye.
const BYE: Duration = Duration::from_secs(2);

/// What a check-in came to.
#[derive(Debug)]
pub(super) enum CheckInAnswer {
    /// Taken, and durable.
    Taken(CheckedIn),
    /// The handler knows a later one of this boot.
    Old(OldSequence),
}

/// Tells the handler how the agent is.
pub(super) async fn check_in(link: &mut Link, to: &str, said: &CheckIn) -> Result<CheckInAnswer, TalkError> {
    let body = serde_json::to_vec(said).map_err(|error| TalkError::NotUnderstood(error.to_string()))?;
    let mut ask = Ask::post("/agent/v1/checkin", body);
    ask.answer_within = Some(link.patience().check_in);
    let mut answer = link.ask(to, ask).await?;
    let status = answer.status;
    let body = answer.read(AGENT_ANSWER_BYTES).await?;
    match status {
        StatusCode::OK => Ok(CheckInAnswer::Taken(understood(&body)?)),
        StatusCode::CONFLICT => Ok(CheckInAnswer::Old(understood(&body)?)),
        status => Err(TalkError::Status(status.as_u16())),
    }
}

/// The agent's sitelist, as text and as what it means.
pub(super) async fn sitelist(
    link: &mut Link,
    from: &str,
    news: &SitelistNews,
) -> Result<(Vec<u8>, Sitelist), TalkError> {
    // A handler says where on itself it is, and nowhere else.
    let below = news.url.strip_prefix(PREFIX).filter(|path| !path.contains(".."));
    let path = below.map(|path| format!("{PREFIX}{path}"));
    let path = path.ok_or_else(|| TalkError::NotUnderstood("a sitelist is elsewhere".to_owned()))?;
    let text = link.ask(from, Ask::get(&path)).await?.whole(AGENT_ANSWER_BYTES).await?;
    let list = parse(&text).map_err(|error| TalkError::NotUnderstood(error.to_string()))?;
    Ok((text, list))
}

/// The body of a policy, which is what its digest says.
pub(super) async fn policy(link: &mut Link, from: &str, news: &PolicyNews) -> Result<Vec<u8>, TalkError> {
    let not_understood = |why: &str| TalkError::NotUnderstood(why.to_owned());
    let path = path_of_name(&format!("{}/{}", news.category, news.name));
    let path = path.map_err(|_| not_understood("a policy has no name"))?;
    let path = format!("{PREFIX}policies/{path}");
    let body = link.ask(from, Ask::get(&path)).await?.whole(POLICY_BYTES).await?;
    let listed: Result<Digest, _> = news.sha256.parse();
    if listed.is_ok_and(|digest| digest == Digest::of(&body)) {
        Ok(body)
    } else {
        Err(not_understood("a policy is not the one that is listed"))
    }
}

/// Waits for messages; an empty answer is one, too.
pub(super) async fn poll(link: &mut Link, to: &str, seen: Option<u64>) -> Result<Polled, TalkError> {
    let body =
        serde_json::to_vec(&Poll { seen }).map_err(|error| TalkError::NotUnderstood(error.to_string()))?;
    let mut ask = Ask::post("/agent/v1/poll", body);
    ask.answer_within = Some(POLL);
    understood(&link.ask(to, ask).await?.whole(AGENT_ANSWER_BYTES).await?)
}

/// Says good-bye. Nothing hangs on it.
pub(super) async fn bye(link: &mut Link, to: &str) {
    let mut ask = Ask::post("/agent/v1/bye", b"{}".to_vec());
    ask.answer_within = Some(BYE);
    drop(link.ask(to, ask).await);
}

/// Asks candidates who they are: all of them where the nearest is looked for; in order until one is of use otherwise.
pub(super) async fn observe(
    link: &Link,
    method: Method,
    candidates: &[Candidate],
    seed: u64,
    failed_lately: impl Fn(&str) -> bool,
) -> Vec<Observed> {
    let mut observed: Vec<Observed> = Vec::new();
    let mut found = false;
    let order = asking_order(method, candidates, seed);
    for (number, few) in order.chunks(PROBED_AT_ONCE).enumerate() {
        let enough = (found && method == Method::Ordered) || number * PROBED_AT_ONCE >= PROBED;
        let mut asked = JoinSet::new();
        for candidate in few {
            let (candidate, mut link) = (candidate.clone(), link.another());
            asked.spawn(async move {
                let seen = if enough { Seen::NotAsked } else { probe(&mut link, &candidate.address).await };
                (candidate, seen)
            });
        }
        for (candidate, seen) in asked.join_all().await {
            let failed_lately = failed_lately(&candidate.address);
            let it = Observed { candidate, seen, failed_lately };
            found |= is_of_use(&it);
            observed.push(it);
        }
    }
    observed
}

fn is_of_use(it: &Observed) -> bool {
    let active = matches!(it.seen, Seen::Answered { draining: false, .. });
    active && !it.failed_lately && !it.candidate.draining
}

async fn probe(link: &mut Link, address: &str) -> Seen {
    let mut ask = Ask::get("/agent/v1/probe");
    ask.answer_within = Some(link.patience().probe);
    let asked = async {
        let (answer, latency) = link.ask_timed(address, ask).await?;
        // Everybody behind this address asks at the same time: it is there, and busy with exactly that.
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return Ok((None, latency));
        }
        let probed: Probed = understood(&answer.whole(AGENT_ANSWER_BYTES).await?)?;
        Ok::<_, TalkError>((Some(probed), latency))
    };
    match asked.await {
        Ok((probed, latency)) => Seen::Answered {
            hops: probed.as_ref().and_then(|probed| probed.hops),
            latency,
            draining: probed.is_some_and(|probed| probed.state == HandlerState::Draining),
        },
        Err(error) => Seen::Silent(error.to_string()),
    }
}

fn understood<T: DeserializeOwned>(body: &[u8]) -> Result<T, TalkError> {
    serde_json::from_slice(body).map_err(|error| TalkError::NotUnderstood(error.to_string()))
}
