//! What it costs to hold a cold body against its listing: CPU a GB of a fill, by the kind of digest listed.
//!
//! `cargo bench --bench expect`. The figures include the origin in the same process, which is the same for all of them;
//! rounds take turns, and the smallest of each kind counts.

#![expect(clippy::unwrap_used, reason = "a bench that cannot set up has nothing to say")]
#![expect(clippy::print_stdout, reason = "the figures go to the terminal")]

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use waypost::base::proof::Kind;
use waypost::fill::{self, Outcome};
use waypost::repository::expectation::Expectation;
use waypost::testkit::content;
use waypost::testkit::fills::FillBench;
use waypost::upstream;

const LENGTH: usize = 128 << 20;
const ROUNDS: usize = 5;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let body = Bytes::from(vec![0x5a; LENGTH]);
    let url = serve(body.clone()).await;
    let cases = [
        ("none", None),
        ("SHA-256", Some(Kind::Sha256)),
        ("SHA-512", Some(Kind::Sha512)),
        ("SHA-1", Some(Kind::Sha1)),
        ("MD5", Some(Kind::Md5)),
    ];
    let mut best = [f64::MAX; 5];
    for _ in 0..ROUNDS {
        for ((_, kind), best) in cases.iter().zip(&mut best) {
            let expect = kind.map(|kind| Arc::new(content::listing(&body, kind)));
            let bench = FillBench::new(fill::Options::default(), vec![upstream::Options::new(&*url)]);
            let before = cpu();
            fetch(&bench, expect).await;
            *best = best.min((cpu() - before) / (LENGTH as f64 / 1e9));
        }
    }
    let [plain, ..] = best;
    for ((name, _), best) in cases.iter().zip(best) {
        println!("{name:<10} {best:>7.3} s CPU a GB   {:>+6.1} %", (best / plain - 1.0) * 100.0);
    }
}

/// One reader takes the whole body.
async fn fetch(bench: &FillBench, expect: Option<Arc<Expectation>>) {
    let mut job = bench.job("/body");
    job.expect = expect;
    let seat = bench.fills.join(job);
    let Outcome::Streaming(opened) = seat.outcome().await else { return };
    let mut follow = seat.read(0, opened.length);
    let mut length = 0;
    while let Some(bytes) = poll_fn(|cx| follow.poll_next(cx, 128 << 10)).await {
        length += bytes.unwrap().len();
    }
    assert_eq!(length, LENGTH);
}

/// An origin that costs next to nothing: one body, whatever is asked.
async fn serve(body: Bytes) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let body = body.clone();
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4096]).await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = socket.write_all(head.as_bytes()).await;
                let _ = socket.write_all(&body).await;
                let _ = socket.shutdown().await;
            });
        }
    });
    url
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    // utime and stime, in ticks of 10 ms.
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}
