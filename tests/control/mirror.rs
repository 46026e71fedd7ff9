//! Documents from node to node.

use waypost::testkit::node::eventually;

use super::fixtures::*;

#[tokio::test]
async fn what_the_authority_says_is_at_agents_two_nodes_below_after_a_reload() {
    let (at_hq, at_region, at_branch) = (home_with_documents(), home(), home());
    let hq = at_hq.start(&authority_plan(&at_hq)).await;
    let first = version(&hq).await;
    assert!(first > 0);
    let region = at_region.start(&mirror_plan(&at_region, "region", hq.plain.port())).await;
    let branch = at_branch.start(&mirror_plan(&at_branch, "branch", region.plain.port())).await;
    has_version(&branch, first).await;
    let sitelist = ask(&branch, "pc-berlin", "sitelist.xml").await;
    assert_eq!((sitelist.status, text(&sitelist).contains("branch.example")), (200, true), "{sitelist:?}");
    let policies = ask(&branch, "pc-berlin", "policies").await;
    assert!(text(&policies).contains("\"berlin\"") && !text(&policies).contains("lisbon"));

    change(&at_hq, "policies/av/berlin.json", "berlin", "Berlin");
    assert_eq!(reload(&hq).await["changed"], true);
    has_version(&hq, first + 1).await;
    has_version(&branch, first + 1).await;
    let body = ask(&branch, "pc-berlin", "policies/av/berlin").await;
    assert_eq!(text(&body), "{\"of\":\"Berlin\"}\n");
    // Only a policy changed: agents keep their sitelists.
    assert_eq!(ask(&branch, "pc-berlin", "sitelist.xml").await.header("etag"), sitelist.header("etag"));

    change(&at_hq, "fleet.toml", "branch.example", "filiale.example");
    reload(&hq).await;
    has_version(&branch, first + 2).await;
    let changed = ask(&branch, "pc-berlin", "sitelist.xml").await;
    assert!(text(&changed).contains("filiale.example"));
    assert_ne!(changed.header("etag"), sitelist.header("etag"));
    assert_eq!(reload(&hq).await["changed"], false, "nothing is different");
    assert_eq!(version(&hq).await, first + 2);
}

#[tokio::test]
async fn a_reload_tells_status_and_metrics_what_it_thinks_of_the_documents() {
    let at_hq = home_with_documents();
    let hq = at_hq.start(&authority_plan(&at_hq)).await;
    let first = version(&hq).await;
    assert_eq!((hq.metric("waypost_bundle_well").await, trouble(&hq).await), (1, None));

    change(&at_hq, "fleet.toml", "[[handler]]", "[[handler");
    assert_eq!(reload(&hq).await["error"]["code"], "config-invalid");
    assert_eq!(trouble(&hq).await.as_deref(), Some("invalid"));
    assert_eq!((hq.metric("waypost_bundle_well").await, version(&hq).await), (0, first));

    change(&at_hq, "fleet.toml", "[[handler", "[[handler]]");
    assert_eq!(reload(&hq).await["changed"], false, "they are what they were");
    assert_eq!((hq.metric("waypost_bundle_well").await, trouble(&hq).await), (1, None));
}

#[tokio::test]
async fn a_bad_set_changes_nothing_and_is_told_with_its_line() {
    let home = home_with_documents();
    let hq = home.start(&authority_plan(&home)).await;
    let first = version(&hq).await;
    let before = ask(&hq, "pc-berlin", "sitelist.xml").await;
    change(&home, "fleet.toml", "\"branch\", \"region\", \"hq\"]\n", "\"branch\", \"regoin\"]\n");
    let answer = reload(&hq).await;
    assert_eq!(answer["error"]["code"], "config-invalid");
    let told = answer["error"]["message"].as_str().expect("a message");
    assert!(told.contains("regoin") && told.contains("fleet.toml:"), "{told}");
    assert_eq!(version(&hq).await, first);
    assert_eq!(ask(&hq, "pc-berlin", "sitelist.xml").await.body, before.body);
    change(&home, "fleet.toml", "regoin", "region");
    assert_eq!(reload(&hq).await["changed"], true);
    assert_eq!((version(&hq).await, trouble(&hq).await), (first + 1, None));
}

#[tokio::test]
async fn an_authority_sees_a_change_by_itself_and_tells_what_is_wrong_with_it() {
    let home = home_with_documents();
    let plan = authority_plan(&home);
    let plan = waypost::testkit::node::Plan {
        repositories: plan.repositories.replace("\"1h\"", "\"100ms\""),
        ..plan
    };
    let hq = home.start(&plan).await;
    let first = version(&hq).await;
    change(&home, "fleet.toml", "hq.example", "zentrale.example");
    has_version(&hq, first + 1).await;
    change(&home, "fleet.toml", "[[group]]", "[[gruop]]");
    eventually("it is told", async || trouble(&hq).await.as_deref() == Some("invalid")).await;
    assert_eq!((version(&hq).await, hq.metric("waypost_bundle_well").await), (first + 1, 0));
    change(&home, "fleet.toml", "[[gruop]]", "[[group]]");
    eventually("it is well again", async || trouble(&hq).await.is_none()).await;
    assert_eq!(version(&hq).await, first + 1, "the documents are what they were");
}

#[tokio::test]
async fn a_dead_authority_and_a_restart_change_nothing_for_agents() {
    let (at_hq, at_region) = (home_with_documents(), home());
    let hq = at_hq.start(&authority_plan(&at_hq)).await;
    let (first, port) = (version(&hq).await, hq.plain.port());
    let region = at_region.start(&mirror_plan(&at_region, "region", port)).await;
    has_version(&region, first).await;
    let before = ask(&region, "pc-berlin", "sitelist.xml").await;
    let at_hq = hq.stop().await;
    let at_region = region.stop().await;
    let region = at_region.start(&mirror_plan(&at_region, "region", port)).await;
    // At once: nothing is waited for.
    let after = ask(&region, "pc-berlin", "sitelist.xml").await;
    assert_eq!((after.status, &after.body), (200, &before.body));
    assert_eq!(text(&ask(&region, "pc-lisbon", "policies/av/lisbon").await), "{\"of\":\"lisbon\"}\n");
    eventually("it is told", async || trouble(&region).await.as_deref() == Some("unreachable")).await;
    change(&at_hq, "fleet.toml", "hq.example", "zentrale.example");
    let hq = at_hq.start_at(&authority_plan(&at_hq), port).await;
    has_version(&hq, first + 1).await;
    has_version(&region, first + 1).await;
    eventually("it is well again", async || trouble(&region).await.is_none()).await;
}

#[tokio::test]
async fn a_node_that_is_its_own_upstream_is_told_so() {
    let (home, port) = (home(), free_port());
    let node = home.start_at(&mirror_plan(&home, "loop", port), port).await;
    eventually("it is told", async || trouble(&node).await.is_some()).await;
    let status = node.status().await;
    let detail = status["control"]["trouble"]["detail"].as_str().expect("a text");
    assert!(detail.contains("this node itself"), "{detail}");
    assert_eq!(ask(&node, "pc", "sitelist.xml").await.status, 503);
}
