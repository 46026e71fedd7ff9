//! Traces: a collector hears of requests and fetches, over several nodes, and nobody waits for it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop at the first broken assumption"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use waypost::testkit::content;
use waypost::testkit::node::{Home, Plan, TestNode, eventually};
use waypost::testkit::origin::Origin;
use waypost::testkit::script::Script;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Takes what is delivered, and keeps it.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Value>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let spans = Arc::<Mutex<Vec<Value>>>::default();
        let kept = Arc::clone(&spans);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, Arc::clone(&kept)));
            }
        });
        Self { address, spans, task }
    }

    /// The spans with this name.
    fn named(&self, name: &str) -> Vec<Value> {
        self.spans.lock().iter().filter(|span| span["name"] == name).cloned().collect()
    }
}

async fn take(stream: TcpStream, kept: Arc<Mutex<Vec<Value>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?.to_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        let mut body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut body).await.ok()?;
        let whole: Value = serde_json::from_slice(&body).expect("JSON");
        let resource = whole["resourceSpans"][0]["resource"].to_string();
        assert!(resource.contains("service.name") && resource.contains("waypost"), "{resource}");
        let spans = whole["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned();
        kept.lock().extend(spans.expect("spans"));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            .await
            .ok()?;
    }
}

async fn node(origin: &Origin, collector: SocketAddr, more: &str) -> TestNode {
    let plan = Plan::upstreams(&[&origin.url()])
        .with(&format!("[log]\notlp = {{ endpoint = \"http://{collector}\"{more} }}"));
    Home::new().start(&plan).await
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a Value> {
    let attributes = span["attributes"].as_array().expect("attributes");
    let found = attributes.iter().find(|it| it["key"] == key)?;
    found["value"].as_object()?.values().next()
}

#[tokio::test]
async fn a_collector_gets_the_spans_of_a_request_and_of_its_fetch() {
    let (origin, collector) = (Origin::start().await, Collector::start().await);
    origin.set("/x.bin", Script::file(1, 30_000));
    let node = node(&origin, collector.address, "").await;
    let repository = node.status().await["upstreams"][0]["repository"].as_str().expect("a name").to_owned();
    let answer = node.get("/x.bin", &[("user-agent", "agent/1")]).await;
    assert_eq!(answer.body, content::whole(1, 30_000));
    let (request, fill) = (format!("GET {repository}"), format!("fill {repository}"));
    eventually("both are told", async || {
        !collector.named(&request).is_empty() && !collector.named(&fill).is_empty()
    })
    .await;
    let (request, fill) = (&collector.named(&request)[0], &collector.named(&fill)[0]);
    assert_eq!(request["traceId"], fill["traceId"]);
    assert_eq!(fill["parentSpanId"], request["spanId"], "the fetch is part of the request that began it");
    assert_eq!(request.get("parentSpanId"), None);
    assert_eq!(attribute(request, "url.path").expect("a path"), "/x.bin");
    assert_eq!(attribute(request, "http.response.status_code").expect("a status"), "200");
    assert_eq!(attribute(request, "user_agent.original").expect("an agent"), "agent/1");
    assert_eq!(attribute(request, "waypost.result").expect("a result"), "miss");
    assert_eq!(attribute(fill, "waypost.outcome").expect("an outcome"), "complete");
    assert_eq!(attribute(fill, "waypost.bytes").expect("bytes"), "30000");
    // Upstream, which may be a node as well, goes on with the trace.
    let said = format!(
        "traceparent: 00-{}-{}-01",
        request["traceId"].as_str().expect("an id"),
        fill["spanId"].as_str().expect("an id")
    );
    let heads = origin.heads().join("\n").to_lowercase();
    assert!(heads.contains(&said), "{said} in {heads}");
    node.stop().await;
}

#[tokio::test]
async fn a_request_that_is_part_of_a_trace_is_told_about_as_that_one_is() {
    let (origin, collector) = (Origin::start().await, Collector::start().await);
    origin.set("/x.bin", Script::file(1, 300));
    // Of requests without a trace hardly any is told about: only the first.
    let node = node(&origin, collector.address, ", one_in = 1000000").await;
    for (flags, agent) in [("00", "untold"), ("01", "told")] {
        let parent = format!("00-{TRACE}-b7ad6b7169203331-{flags}");
        assert_eq!(node.get("/x.bin", &[("traceparent", &parent), ("user-agent", agent)]).await.status, 200);
    }
    for agent in ["first", "second"] {
        assert_eq!(node.get("/x.bin", &[("user-agent", agent)]).await.status, 200);
    }
    // What waits is delivered before the node has ended.
    node.stop().await;
    let spans = collector.spans.lock();
    let agents: Vec<_> = spans.iter().filter_map(|span| attribute(span, "user_agent.original")).collect();
    assert_eq!(agents, ["told", "first"]);
    let told = spans.iter().find(|span| span["traceId"] == TRACE).expect("it goes on");
    assert_eq!(told["parentSpanId"], "b7ad6b7169203331");
}

#[tokio::test]
async fn a_dead_collector_costs_spans_and_nothing_else() {
    let origin = Origin::start().await;
    origin.set("/x.bin", Script::file(1, 300));
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = closed.local_addr().expect("an address");
    drop(closed);
    let node = node(&origin, address, "").await;
    for _ in 0..20 {
        assert_eq!(node.get("/x.bin", &[]).await.body, content::whole(1, 300));
    }
    eventually("they are counted as lost", async || node.metric("waypost_trace_spans_lost_total").await > 0)
        .await;
    assert_eq!(node.get("/x.bin", &[]).await.body, content::whole(1, 300));
    node.stop().await;
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_neither_requests_nor_the_end() {
    let origin = Origin::start().await;
    origin.set("/x.bin", Script::file(1, 300));
    // Its queue takes connections, and nobody takes them from there.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let node = node(&origin, silent.local_addr().expect("an address"), "").await;
    for _ in 0..20 {
        assert_eq!(node.get("/x.bin", &[]).await.body, content::whole(1, 300));
    }
    node.stop().await;
}
