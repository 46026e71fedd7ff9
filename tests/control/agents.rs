//! Who gets what: identity, privacy, conditional requests.

use waypost::testkit::node::Plan;

use super::fixtures::*;

#[tokio::test]
async fn an_agent_gets_what_is_its_own_and_anothers_is_like_nothing() {
    let home = home_with_documents();
    let node = home.start(&authority_plan(&home)).await;
    let own = ask(&node, "pc-berlin", "policies/av/berlin").await;
    assert_eq!((own.status, text(&own).as_str()), (200, "{\"of\":\"berlin\"}\n"));
    let digest = own.header("etag").expect("a tag").trim_matches('"').to_owned();
    assert_eq!(ask(&node, "pc-berlin", &format!("policies/{digest}")).await.body, own.body);
    let nothing = ask(&node, "pc-berlin", "policies/av/nothing").await;
    for other in [
        ask(&node, "pc-berlin", "policies/av/lisbon").await,
        ask(&node, "pc-lisbon", &format!("policies/{digest}")).await,
        ask(&node, "pc-new", &format!("policies/{digest}")).await,
        ask(&node, "pc-berlin", "policies/../../fleet.toml").await,
    ] {
        assert!(matches!(other.status, 400 | 404), "{other:?}");
        if other.status == 404 {
            assert_eq!(
                (&other.body, other.header("content-type")),
                (&nothing.body, nothing.header("content-type"))
            );
        }
    }
    assert_eq!(node.get("/agent/v1/sitelist.xml", &[]).await.status, 401);
    assert_eq!(node.get("/agent/v1/sitelist.xml", &[("waypost-agent", "a b")]).await.status, 401);
    assert_eq!(ask(&node, "pc-berlin", "nothing").await.status, 404);
    assert_eq!(node.get("/node/v1/bundle", &[]).await.status, 401);
    assert_eq!(node.get("/node/v1/bundle", &[("waypost-agent", "pc-berlin")]).await.status, 401);
    // The data plane is as open as ever.
    assert_eq!(node.get("/a.txt", &[]).await.status, 200);
}

#[tokio::test]
async fn an_unchanged_sitelist_costs_no_body() {
    let home = home_with_documents();
    let node = home.start(&authority_plan(&home)).await;
    for path in ["sitelist.xml", "policies", "policies/av/berlin"] {
        let first = ask(&node, "pc-berlin", path).await;
        let tag = first.header("etag").expect("a tag").to_owned();
        assert!(first.status == 200 && tag.starts_with('"'), "{path}: {first:?}");
        let target = format!("/agent/v1/{path}");
        let headers = [("waypost-agent", "pc-berlin"), ("if-none-match", tag.as_str())];
        let again = node.get(&target, &headers).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
        let stale = [("waypost-agent", "pc-berlin"), ("if-none-match", "\"other\"")];
        assert_eq!(node.get(&target, &stale).await.status, 200);
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_part_of_the_tree() {
    let home = home_with_documents();
    home.write("berlin.token", "token-of-the-agents-of-berlin\n");
    home.write("branch.token", "token-of-the-node-in-the-branch\n");
    let tokens = "tokens = [{ name = \"branch\", secret = { file = \"branch.token\" } }]\n\
                  [agents]\ntokens = [{ name = \"b\", tree = \"/berlin\", secret = { file = \"berlin.token\" } }]\n";
    let plan: Plan = authority_plan(&home).with(tokens);
    let node = home.start(&plan).await;
    let with = async |path: &str, agent: &str, token: &str| {
        let token = format!("Bearer {token}");
        let headers = [("waypost-agent", agent), ("waypost-node", agent), ("authorization", token.as_str())];
        node.get(path, &headers).await
    };
    const BERLIN: &str = "token-of-the-agents-of-berlin";
    let policies = with("/agent/v1/policies", "pc-berlin", BERLIN).await;
    assert!(policies.status == 200 && text(&policies).contains("berlin"));
    // Nobody knows it yet: it belongs where its token belongs.
    let new = with("/agent/v1/policies", "pc-new", BERLIN).await;
    assert!(new.status == 200 && text(&new).contains("berlin"));
    assert_eq!(with("/agent/v1/policies", "pc-lisbon", BERLIN).await.status, 403);
    assert_eq!(with("/agent/v1/policies", "pc-berlin", "token-of-nobody-at-all").await.status, 401);
    assert_eq!(ask(&node, "pc-berlin", "policies").await.status, 401, "this machine alone is not enough now");
    assert_eq!(with("/node/v1/bundle", "branch", BERLIN).await.status, 401);
    const BRANCH: &str = "token-of-the-node-in-the-branch";
    assert_eq!(with("/node/v1/bundle", "branch", BRANCH).await.status, 200);
    assert_eq!(with("/node/v1/bundle", "other", BRANCH).await.status, 403);
    assert_eq!(with("/agent/v1/policies", "branch", BRANCH).await.status, 401);
}
