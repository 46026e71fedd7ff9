//! Check-ins, lists, policies, lines, and handlers that come and go.

use waypost::agent::{Agent, CheckInError, Order, ask};
use waypost::protocol::agent_api::{ActionKind, Contact, Message};
use waypost::testkit::handler::{Handler, Script, sitelist};
use waypost::testkit::node::eventually;

use crate::scene::{Running, Scene};

async fn handler(scene: &Scene) -> Handler {
    Handler::start(&scene.authority, Script::default()).await
}

#[tokio::test]
async fn a_check_in_brings_the_list_and_the_policies_and_the_next_one_says_so() {
    let scene = Scene::new();
    let one = handler(&scene).await;
    let list = sitelist(1, &[("one", &one.authority(), 1)]);
    one.change(|script| {
        script.sitelist = Some(list);
        script.policies = vec![
            ("av".into(), "base".into(), "scan = true\n".into()),
            ("..".into(), "evil".into(), "x".into()),
        ];
    });
    let mut agent = Agent::open(scene.options(&[one.authority()])).unwrap();
    agent.check_in().await.unwrap();
    agent.check_in().await.unwrap();
    let said = one.checkins();
    assert_eq!((said[0].sequence, said[1].sequence), (1, 2));
    assert_eq!((said[0].sitelist.is_some(), said[1].sitelist.is_some()), (false, true));
    assert_eq!(said[1].policies.keys().collect::<Vec<_>>(), ["av/base"]);
    assert_eq!(std::fs::read_to_string(scene.path("state/policies/av/base")).unwrap(), "scan = true\n");
    assert!(!scene.path("state/evil").exists());
    assert!(one.identities().iter().all(|it| it == "pc-17"), "{:?}", one.identities());

    one.change(|script| script.policies.clear());
    agent.check_in().await.unwrap();
    assert!(!scene.path("state/policies/av/base").exists());
    drop(agent);
    let mut again = Agent::open(scene.options(&["127.0.0.1:1".to_owned()])).unwrap();
    again.check_in().await.unwrap();
    assert_eq!(one.checkins().len(), 4, "the list is known after a restart");
    assert_ne!(one.checkins()[3].boot, said[0].boot);
    assert_eq!(one.count("GET /agent/v1/sitelist.xml"), 1);
}

#[tokio::test]
async fn a_token_goes_along_and_a_refusal_is_no_reason_to_go_elsewhere() {
    let scene = Scene::new();
    let (one, two) = (handler(&scene).await, handler(&scene).await);
    let mut options = scene.options(&[one.authority(), two.authority()]);
    options.identity.token = Some("secret".to_owned());
    one.change(|script| script.refuses = Some(403));
    two.change(|script| script.refuses = Some(403));
    let mut agent = Agent::open(options).unwrap();
    assert!(matches!(agent.check_in().await, Err(CheckInError::Talk { .. })));
    let refused = one.count("POST /agent/v1/checkin") + two.count("POST /agent/v1/checkin");
    assert_eq!(refused, 1);
    assert!(one.identities().iter().chain(&two.identities()).all(|it| it == "pc-17 Bearer secret"));
}

#[tokio::test]
async fn a_check_in_counts_although_a_policy_cannot_be_had_at_the_moment() {
    let scene = Scene::new();
    let one = handler(&scene).await;
    // The scripted handler knows names as they are, and the agent asks for them as paths: this one is not there.
    one.change(|script| script.policies = vec![("av".into(), "not there".into(), "x".into())]);
    let mut agent = Agent::open(scene.options(&[one.authority()])).unwrap();
    let taken = agent.check_in().await.unwrap();
    assert_eq!((taken.acknowledged, taken.next_checkin_s), (1, 60));
    assert_eq!(agent.status().handler, Some(one.authority()));
}

#[tokio::test]
async fn an_old_sequence_is_caught_up_with_at_once() {
    let scene = Scene::new();
    let one = handler(&scene).await;
    one.change(|script| script.least_sequence = 41);
    let mut agent = Agent::open(scene.options(&[one.authority()])).unwrap();
    assert_eq!(agent.check_in().await.unwrap().acknowledged, 41);
    assert_eq!(agent.check_in().await.unwrap().acknowledged, 42);
}

#[tokio::test]
async fn when_a_handler_fails_the_next_of_the_list_has_the_check_in_and_the_first_gets_it_back() {
    let scene = Scene::new();
    let (one, two) = (handler(&scene).await, handler(&scene).await);
    let list = sitelist(1, &[("one", &one.authority(), 1), ("two", &two.authority(), 2)]);
    let mut options = scene.options(&[one.authority()]);
    options.pace.verify_every = std::time::Duration::from_millis(300);
    for it in [&one, &two] {
        it.change(|script| (script.sitelist, script.next_checkin_s) = (Some(list.clone()), 1));
    }
    let agent = Running::start(options);
    eventually("it checks in with the first", async || one.checkins().len() > 1).await;
    one.change(|script| script.refuses = Some(500));
    eventually("it goes to the second", async || !two.checkins().is_empty()).await;
    let (port, script) =
        (one.port(), Script { sitelist: Some(list), next_checkin_s: 1, ..Script::default() });
    drop(one);
    let seen = two.checkins().len();
    eventually("it stays there", async || two.checkins().len() > seen).await;
    let one = Handler::start_at(&scene.authority, script, port).await;
    eventually("it comes back", async || !one.checkins().is_empty()).await;
    let handler = one.authority();
    eventually("it says so", async || agent.status().await.handler == Some(handler.clone())).await;
    agent.stop().await;
    assert_eq!(one.count("POST /agent/v1/bye"), 1);
}

#[tokio::test]
async fn without_any_handler_there_is_no_connection_and_with_one_there_is_again() {
    let scene = Scene::new();
    let one = handler(&scene).await;
    let (port, authority) = (one.port(), one.authority());
    one.change(|script| script.next_checkin_s = 1);
    let agent = Running::start(scene.options(&[authority]));
    eventually("it checks in", async || !one.checkins().is_empty()).await;
    drop(one);
    eventually("it has none", async || agent.status().await.state == "No Connection").await;
    let listed = agent.status().await.list;
    assert!(listed.iter().all(|it| it.reason.starts_with("no answer: ")), "{listed:?}");
    let one = Handler::start_at(&scene.authority, Script::default(), port).await;
    eventually("it is back", async || agent.status().await.state == "Connected").await;
    eventually("it checks in again", async || !one.checkins().is_empty()).await;
}

#[tokio::test]
async fn a_new_list_counts_from_the_next_check_in_and_at_once_after_a_wake_up() {
    let scene = Scene::new();
    let (one, two) = (handler(&scene).await, handler(&scene).await);
    let both = |first: &Handler, second: &Handler| {
        sitelist(1, &[("a", &first.authority(), 1), ("b", &second.authority(), 2)])
    };
    let mut options = scene.options(&[one.authority()]);
    options.contact = Contact::Tunnel;
    let list = both(&one, &two);
    for it in [&one, &two] {
        it.change(|script| script.sitelist = Some(list.clone()));
    }
    let agent = Running::start(options);
    eventually("it holds a line", async || agent.status().await.channel_open || one.lines() > 0).await;
    assert!(two.checkins().is_empty());
    let turned = both(&two, &one);
    for it in [&one, &two] {
        it.change(|script| script.sitelist = Some(turned.clone()));
    }
    assert_eq!(one.checkins().len(), 1, "the next check-in is in an hour");
    eventually("it is woken", async || {
        one.say(Message::Wake { id: 7 });
        one.checkins().len() > 1
    })
    .await;
    eventually("it holds its line to the other", async || two.lines() > 0).await;
}

#[tokio::test]
async fn a_stream_brings_wake_ups_and_a_shutdown_moves_the_agent_on() {
    let scene = Scene::new();
    let (one, two) = (handler(&scene).await, handler(&scene).await);
    let list = sitelist(1, &[("one", &one.authority(), 1), ("two", &two.authority(), 2)]);
    let mut options = scene.options(&[one.authority()]);
    options.contact = Contact::Stream;
    options.pace.grace = std::time::Duration::from_secs(600);
    for it in [&one, &two] {
        it.change(|script| script.sitelist = Some(list.clone()));
    }
    let agent = Running::start(options);
    eventually("the stream is open", async || agent.status().await.channel_open).await;
    let before = one.checkins().len();
    one.say(Message::Wake { id: 1 });
    eventually("it checks in", async || one.checkins().len() > before).await;
    one.say(Message::Shutdown);
    eventually("the other has its check-in and its stream", async || {
        !two.checkins().is_empty() && two.lines() == 1 && one.lines() == 0
    })
    .await;
}

#[tokio::test]
async fn who_loses_its_handler_introduces_itself_to_the_next_long_before_its_check_in_is_due() {
    let scene = Scene::new();
    let (one, two) = (handler(&scene).await, handler(&scene).await);
    let list = sitelist(1, &[("one", &one.authority(), 1), ("two", &two.authority(), 2)]);
    let mut options = scene.options(&[one.authority()]);
    options.contact = Contact::Stream;
    for it in [&one, &two] {
        it.change(|script| script.sitelist = Some(list.clone()));
    }
    let agent = Running::start(options);
    eventually("the stream is open", async || agent.status().await.channel_open).await;
    assert!(two.checkins().is_empty());
    drop(one);
    eventually("the other knows what it is", async || !two.checkins().is_empty() && two.lines() == 1).await;
    let status = agent.status().await;
    assert_eq!((status.check_ins, status.handler), (status.check_ins_sent, Some(two.authority())));
    assert_eq!(two.checkins().len(), 1, "the next one is in an hour");
}

#[tokio::test]
async fn a_handler_that_is_asked_by_too_many_at_once_is_there_all_the_same() {
    let scene = Scene::new();
    let one = handler(&scene).await;
    one.change(|script| script.probed_too_often = true);
    let lines = Agent::probe(&scene.options(&[one.authority()])).await.unwrap();
    assert_eq!(lines[0].reason.to_string(), "chosen: no other answers");
    let mut agent = Agent::open(scene.options(&[one.authority()])).unwrap();
    agent.check_in().await.unwrap();
}

#[tokio::test]
async fn a_wake_up_that_comes_with_a_check_in_makes_a_new_list_count_at_once() {
    let scene = Scene::new();
    let (one, two) = (handler(&scene).await, handler(&scene).await);
    let list = sitelist(1, &[("one", &one.authority(), 1), ("two", &two.authority(), 2)]);
    one.change(|script| (script.sitelist, script.next_checkin_s) = (Some(list), 1));
    let agent = Running::start(scene.options(&[one.authority()]));
    eventually("it checks in", async || one.checkins().len() > 1).await;
    let turned = sitelist(2, &[("two", &two.authority(), 1), ("one", &one.authority(), 2)]);
    for it in [&one, &two] {
        it.change(|script| (script.sitelist, script.next_checkin_s) = (Some(turned.clone()), 3_600));
    }
    one.change(|script| script.actions = vec![ActionKind::Wake]);
    eventually("it goes to the other", async || {
        agent.status().await.handler == Some(two.authority()) && !two.checkins().is_empty()
    })
    .await;
}

#[tokio::test]
async fn people_ask_the_agent_that_runs() {
    let scene = Scene::new();
    let one = handler(&scene).await;
    let agent = Running::start(scene.options(&[one.authority()]));
    eventually("it checks in", async || !one.checkins().is_empty()).await;
    let before = one.checkins().len();
    let done = ask(&scene.path("state"), Order::CheckIn).await.unwrap().unwrap();
    assert_eq!((done.error, done.status.handler), (None, Some(one.authority())));
    assert_eq!(one.checkins().len(), before + 1);
    one.change(|script| script.actions = vec![ActionKind::Unknown, ActionKind::Update]);
    assert!(ask(&scene.path("state"), Order::CheckIn).await.unwrap().unwrap().error.is_none());
    agent.stop().await;
    assert!(ask(&scene.path("state"), Order::CheckIn).await.unwrap().is_none());
}

#[tokio::test]
async fn the_nearest_is_chosen_where_the_agent_is_to_look_for_it() {
    let scene = Scene::new();
    let (far, near) = (handler(&scene).await, handler(&scene).await);
    far.change(|script| script.hops = Some(9));
    let mut options = scene.options(&[far.authority(), near.authority()]);
    options.method = waypost::agent::select::Method::Nearest;
    let lines = Agent::probe(&options).await.unwrap();
    let told: Vec<_> =
        lines.iter().map(|it| (it.candidate.address.clone(), it.hops(), it.reason.to_string())).collect();
    let expected = [
        (near.authority(), Some(1), "chosen: fewest hops".to_owned()),
        (far.authority(), Some(9), "more hops".to_owned()),
    ];
    assert_eq!(told, expected);
    near.change(|script| script.draining = true);
    let lines = Agent::probe(&options).await.unwrap();
    assert_eq!(lines[0].candidate.address, far.authority());
    assert_eq!(lines[1].reason.to_string(), "draining");
    assert!(!scene.path("state").exists(), "looking changes nothing");
}
