//! What the corpora of `tests/front_door.rs` cannot say, because it is no mistake by itself: bare line ends, upgrades
//! nobody wants, and more requests at once than anybody has.

use waypost::testkit::client::{Client, End};
use waypost::testkit::content;
use waypost::testkit::node::{Home, Plan, TestNode};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::Script;

async fn scene() -> (Origin, TestNode) {
    let origin = Origin::start().await;
    let headers = vec![("cache-control".to_owned(), "max-age=1000".to_owned())];
    origin.set("/f", Script { headers, ..Script::file(1, 1_000) });
    let node = Home::new().start(&Plan::upstreams(&[&origin.url()])).await;
    (origin, node)
}

/// The head that reaches the origin, without what is random or its own address.
fn asked(origin: &Origin) -> String {
    let heads = origin.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    let lines = heads[0].lines().filter(|line| !line.starts_with("cdn-loop") && !line.starts_with("host"));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn bare_line_ends_change_nothing_that_goes_upstream() {
    let mut heads = Vec::new();
    for request in
        ["GET /f HTTP/1.1\r\nHost: localhost\r\nX: 1\r\n\r\n", "GET /f HTTP/1.1\nHost: localhost\nX: 1\n\n"]
    {
        let (origin, node) = scene().await;
        let mut client = node.client().await;
        client.send(request.as_bytes()).await.expect("it is sent");
        let answer = client.read_answer("GET").await.expect("an answer");
        assert!(matches!(answer.status, 200 | 400), "{answer:?}");
        if answer.status == 200 {
            heads.push(asked(&origin));
        }
    }
    assert!(!heads.is_empty() && heads.iter().all(|head| *head == heads[0]), "{heads:?}");
}

#[tokio::test]
async fn an_upgrade_that_nobody_wants_is_not_followed_and_hides_no_request() {
    for protocol in ["websocket", "h2c", "TLS/1.2"] {
        let (origin, node) = scene().await;
        let mut client = node.client().await;
        let upgrade = format!(
            "GET /f HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let second = "GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.send((upgrade + second).as_bytes()).await.expect("it is sent");
        let first = client.read_answer("GET").await.expect("an answer");
        assert!(first.status == 200 && first.body == content::whole(1, 1_000), "{protocol}: {first:?}");
        // The second one is a request like any other, or the connection is over: never bytes that pass.
        if let Ok(answer) = client.read_answer("GET").await {
            assert_eq!((answer.status, answer.end), (404, End::Complete), "{protocol}: {answer:?}");
        }
        let heads = origin.heads();
        assert!(heads.iter().all(|head| !head.to_lowercase().contains("upgrade")), "{protocol}: {heads:?}");
    }
}

#[tokio::test]
async fn a_thousand_requests_at_once_are_answered_in_their_order() {
    let (origin, node) = scene().await;
    assert_eq!(node.get("/f", &[]).await.status, 200);
    let requests: Vec<u8> = (0..1_000)
        .flat_map(|number| {
            format!("GET /f HTTP/1.1\r\nHost: localhost\r\nRange: bytes={number}-{number}\r\n\r\n")
                .into_bytes()
        })
        .collect();
    let tcp = tokio::net::TcpStream::connect(node.plain).await.expect("the node accepts");
    let (read, mut write) = tcp.into_split();
    let sending = tokio::spawn(async move {
        // Its buffers are bounded: it takes the next ones when it has answered some.
        tokio::io::AsyncWriteExt::write_all(&mut write, &requests).await.expect("all are taken");
        write
    });
    let mut client = Client::over(tokio::io::join(read, tokio::io::sink()));
    for number in 0..1_000 {
        let answer = client.read_answer("GET").await.expect("an answer");
        assert_eq!((answer.status, answer.body), (206, content::piece(1, number, 1)), "{number}");
    }
    drop(sending.await.expect("it ended"));
    assert_eq!(origin.counts("/f").requests, 1);
}
