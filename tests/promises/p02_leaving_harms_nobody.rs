//! Agents leave at any byte, the first one included, and nobody else notices.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use waypost::testkit::client::Client;
use waypost::testkit::content;
use waypost::testkit::process::Dice;

use super::crowd::{MIB, all, fetch, narrow, readers, reset, stage, turn};

const LENGTH: u64 = 5 * MIB + 123;

/// Where an agent leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// When it has asked and before it has seen anything.
    AtOnce,
    /// In the middle of its request.
    Asking,
    /// After so many bytes of the body.
    After(u64),
}

/// Asks for `path` and leaves as it is told to, by a reset where `rude`.
async fn leave(node: SocketAddr, path: String, leaves: Leaves, rude: bool) {
    let mut tcp = narrow(node).await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let part = if matches!(leaves, Leaves::Asking) { request.len() / 2 } else { request.len() };
    tcp.write_all(&request.as_bytes()[..part]).await.expect("it is sent");
    if let Leaves::After(bytes) = leaves {
        // With its head, which is some hundred bytes long.
        let mut taken = vec![0; usize::try_from(bytes).expect("small") + 1];
        tcp.read_exact(&mut taken).await.expect("so much comes");
    }
    if rude { reset(tcp) } else { drop(tcp) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_leave_at_any_byte_and_the_others_finish_from_the_one_fetch() {
    let _turn = turn().await;
    let mut dice = Dice::seeded(2);
    let stage = stage("").await;
    let (path, gate) = stage.held(5, LENGTH, LENGTH / 2);
    let node = stage.site.start().await;
    // The one that begins the fill is gone before its first byte is here.
    let mut first = Client::connect(node.address).await.expect("the node accepts");
    first.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.expect("sent");
    readers(&node, 1.0).await;
    drop(first);
    let whole = content::whole(5, usize::try_from(LENGTH).expect("small"));
    let mut stayers = JoinSet::new();
    for _ in 0..20 {
        stayers.spawn(fetch(node.address, path.clone(), whole.clone()));
    }
    readers(&node, 20.0).await;
    let mut leavers = |least: u64, most: u64| {
        let mut leavers = JoinSet::new();
        for number in 0..40 {
            let leaves = match number % 8 {
                0 => Leaves::AtOnce,
                1 => Leaves::Asking,
                _ => Leaves::After(least + dice.below(most - least)),
            };
            leavers.spawn(leave(node.address, path.clone(), leaves, dice.below(2) == 0));
        }
        leavers
    };
    // Some while the first half is here, some while the rest comes.
    all(leavers(0, LENGTH / 2)).await;
    readers(&node, 20.0).await;
    let late = leavers(LENGTH / 2, LENGTH);
    gate.open();
    all(late).await;
    all(stayers).await;
    let counts = stage.origin.counts(&path);
    assert_eq!((counts.requests, counts.body_bytes), (1, LENGTH), "nobody's leaving cost a byte");
    node.stop().await;
}
