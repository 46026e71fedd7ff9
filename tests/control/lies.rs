//! An upstream that offers what must not be taken.

use bytes::Bytes;
use serde_json::json;
use waypost::base::clock::Timestamp;
use waypost::control::Bundle;
use waypost::fleet::Documents;
use waypost::testkit::node::eventually;
use waypost::testkit::origin::Origin;
use waypost::testkit::script::Script;

use super::fixtures::*;

fn bundle(version: u64, fleet: &str) -> Bundle {
    let mut documents = Documents::default();
    documents.insert("fleet.toml", Bytes::from(fleet.to_owned())).expect("it is a document");
    Bundle::issue(documents, version, Timestamp(1), None)
}

fn offer(origin: &Origin, bundle: &Bundle) {
    for item in &bundle.index().documents {
        let digest = item.sha256.parse().expect("a digest");
        let body = bundle.body(&digest).expect("its own").clone();
        origin.set(&format!("/node/v1/documents/{digest}"), Script::bytes(body));
    }
    origin.set("/node/v1/bundle", Script::bytes(serde_json::to_vec(bundle.index()).expect("JSON")));
}

#[tokio::test]
async fn older_torn_and_altered_bundles_are_refused_and_the_last_good_one_serves() {
    let origin = Origin::start().await;
    let good = bundle(10, FLEET);
    offer(&origin, &good);
    let home = home();
    let port = origin.url().trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
    let node = home.start(&mirror_plan(&home, "region", port.expect("a port"))).await;
    has_version(&node, 10).await;
    let before = ask(&node, "pc-berlin", "sitelist.xml").await;
    let refused = async |what: &str| {
        eventually(what, async || trouble(&node).await.is_some_and(|it| it != "unreachable")).await;
        assert_eq!(version(&node).await, 10, "{what}");
        assert_eq!(ask(&node, "pc-berlin", "sitelist.xml").await.body, before.body, "{what}");
        offer(&origin, &good);
        eventually("it is well again", async || trouble(&node).await.is_none()).await;
    };
    let other = FLEET.replace("hq.example", "evil.example");
    offer(&origin, &bundle(9, &other));
    refused("an older one is refused").await;
    offer(&origin, &bundle(10, &other));
    refused("another one of the same version is refused").await;

    let next = bundle(11, &other);
    let sha256 = next.index().documents[0].sha256.clone();
    offer(&origin, &next);
    origin.set(&format!("/node/v1/documents/{sha256}"), Script::bytes(other.replace("evil", "vile")));
    refused("an altered document is refused").await;
    offer(&origin, &next);
    let short = other.as_bytes()[..other.len() - 9].to_vec();
    origin.set(&format!("/node/v1/documents/{sha256}"), Script::bytes(short));
    refused("a torn document is refused").await;
    let mut index = serde_json::to_value(next.index()).expect("JSON");
    index["version"] = json!(12);
    origin.set("/node/v1/bundle", Script::bytes(index.to_string()));
    refused("an altered index is refused").await;
    origin.set("/node/v1/bundle", Script::bytes("<html>log in to the WLAN</html>"));
    refused("something else is refused").await;
    offer(&origin, &bundle(11, "[[handler]]\nname = \"broken\n"));
    refused("documents with errors are refused").await;

    offer(&origin, &next);
    has_version(&node, 11).await;
    assert!(text(&ask(&node, "pc-berlin", "sitelist.xml").await).contains("evil.example"));
}
