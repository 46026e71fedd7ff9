//! A handler as an agent sees it, scripted: the agents' API over TLS, and in front of a node's plain port the
//! repositories of that node. What agents say is kept, what they are told is what the test says.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message as Frame, Role};

use super::pki::Authority;
use crate::base::digest::Digest;
use crate::protocol::agent_api::{
    Action, ActionKind, CheckIn, CheckedIn, HandlerState, Message, OldSequence, PolicyNews, Polled, Probed,
    SitelistNews,
};

/// How long a poll is held here: short, so that a test that ends does not wait for it.
const HELD: Duration = Duration::from_secs(2);

type Body = BoxBody<Bytes, hyper::Error>;

/// What a handler says and does. Everything may be changed while it runs.
#[derive(Clone, Debug)]
pub struct Script {
    /// The hops that it sees.
    pub hops: Option<u8>,
    /// Whether it is being emptied.
    pub draining: bool,
    /// The sitelist, if it has one for everybody.
    pub sitelist: Option<String>,
    /// Policies: category, name, body.
    pub policies: Vec<(String, String, String)>,
    /// When agents are to come again, in seconds.
    pub next_checkin_s: u64,
    /// Every check-in gets this status instead of an answer.
    pub refuses: Option<u16>,
    /// Whether probes are too many at the moment.
    pub probed_too_often: bool,
    /// Check-ins of an older sequence than this are old.
    pub least_sequence: u64,
    /// What agents are asked to do with their next check-in.
    pub actions: Vec<ActionKind>,
    /// A node's plain port, for everything that is not the agents' API.
    pub repositories: Option<SocketAddr>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            hops: Some(1),
            draining: false,
            sitelist: None,
            policies: Vec::new(),
            next_checkin_s: 3_600,
            refuses: None,
            probed_too_often: false,
            least_sequence: 0,
            actions: Vec::new(),
            repositories: None,
        }
    }
}

#[derive(Debug)]
struct State {
    script: Mutex<Script>,
    checkins: Mutex<Vec<CheckIn>>,
    /// Paths with their methods, as they were asked for, and the identity that came along.
    asked: Mutex<Vec<(String, String)>>,
    messages: broadcast::Sender<Message>,
}

/// A scripted handler. Dropping it cuts every connection at once, as a machine that loses its power.
#[derive(Debug)]
pub struct Handler {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Handler {
    /// On a port the kernel chooses, with a certificate of `authority` for 127.0.0.1.
    pub async fn start(authority: &Authority, script: Script) -> Self {
        Self::start_at(authority, script, 0).await
    }

    /// On a port that was in use before: a handler that comes back.
    pub async fn start_at(authority: &Authority, script: Script, port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let acceptor = authority.server(&["127.0.0.1"]).acceptor(None);
        let (messages, _) = broadcast::channel(16);
        let state = Arc::new(State {
            script: Mutex::new(script),
            checkins: Mutex::default(),
            asked: Mutex::default(),
            messages,
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| serve(Arc::clone(&state), request));
                    drop(
                        http1::Builder::new()
                            .serve_connection(TokioIo::new(tls), service)
                            .with_upgrades()
                            .await,
                    );
                });
            }
        });
        Self { address, state, task }
    }

    /// `127.0.0.1:port`
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes what it does from now on.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.state.script.lock());
    }

    /// The check-ins that it took or refused as old, in order.
    pub fn checkins(&self) -> Vec<CheckIn> {
        self.state.checkins.lock().clone()
    }

    /// How often this was asked for: method and path.
    pub fn count(&self, what: &str) -> usize {
        self.state.asked.lock().iter().filter(|(asked, _)| asked == what).count()
    }

    /// The identities that came along, in order.
    pub fn identities(&self) -> Vec<String> {
        self.state.asked.lock().iter().map(|(_, identity)| identity.clone()).collect()
    }

    /// Agents that hold a line now.
    pub fn lines(&self) -> usize {
        self.state.messages.receiver_count()
    }

    /// Says something to everybody who holds a line.
    pub fn say(&self, message: Message) {
        drop(self.state.messages.send(message));
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A sitelist of handlers in their order: name, `host:port`, order.
pub fn sitelist(version: u64, handlers: &[(&str, &str, u32)]) -> String {
    let sites: String = handlers
        .iter()
        .map(|(name, server, order)| {
            format!(
                "    <SpipeSite Type=\"master\" Name=\"{name}\" Order=\"{order}\" Server=\"{server}\" Enabled=\"1\" Local=\"0\">\
                 <RelativePath>Software</RelativePath></SpipeSite>\n"
            )
        })
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ns:SiteLists xmlns:ns=\"naSiteList\" GlobalVersion=\"{version}\" \
         LocalVersion=\"{version}\" Type=\"Client\">\n  <SiteList Default=\"1\" Name=\"SomeGUID\">\n{sites}  </SiteList>\n</ns:SiteLists>\n"
    )
}

async fn serve(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let identity = format!("{} {}", header("waypost-agent"), header("authorization")).trim().to_owned();
    state.asked.lock().push((format!("{} {path}", request.method()), identity));
    let script = state.script.lock().clone();
    let policy = path.strip_prefix("/agent/v1/policies/");
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/agent/v1/probe") if script.probed_too_often => status(StatusCode::TOO_MANY_REQUESTS),
        (&Method::GET, "/agent/v1/probe") => json(&Probed {
            node: "scripted".to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            hops: script.hops,
            ttl: None,
            load: 0.0,
            state: if script.draining { HandlerState::Draining } else { HandlerState::Active },
        }),
        (&Method::POST, "/agent/v1/checkin") => check_in(&state, &script, request).await,
        (&Method::GET, "/agent/v1/sitelist.xml") => match script.sitelist {
            Some(text) => Response::new(full(text)),
            None => status(StatusCode::NOT_FOUND),
        },
        (&Method::POST, "/agent/v1/poll") => poll(&state).await,
        (&Method::GET, "/agent/v1/channel") => upgrade(&state, request),
        (&Method::POST, "/agent/v1/bye") => status(StatusCode::NO_CONTENT),
        _ if policy.is_some() => {
            let found = script
                .policies
                .into_iter()
                .find(|(category, name, _)| policy == Some(&format!("{category}/{name}")));
            found.map_or_else(|| status(StatusCode::NOT_FOUND), |(.., body)| Response::new(full(body)))
        }
        _ => match script.repositories {
            Some(node) => forward(node, request).await.unwrap_or_else(|()| status(StatusCode::BAD_GATEWAY)),
            None => status(StatusCode::NOT_FOUND),
        },
    })
}

async fn check_in(state: &State, script: &Script, request: Request<Incoming>) -> Response<Body> {
    if let Some(refused) = script.refuses.and_then(|code| StatusCode::from_u16(code).ok()) {
        return status(refused);
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let Ok(said) = serde_json::from_slice::<CheckIn>(&body) else { return status(StatusCode::BAD_REQUEST) };
    if said.check().is_err() {
        return status(StatusCode::BAD_REQUEST);
    }
    let old = said.sequence < script.least_sequence;
    let acknowledged = said.sequence;
    let policies: Vec<PolicyNews> = script
        .policies
        .iter()
        .map(|(category, name, body)| PolicyNews {
            category: category.clone(),
            name: name.clone(),
            sha256: Digest::of(body.as_bytes()).to_string(),
        })
        .collect();
    let listed = policies.iter().map(|it| (format!("{}/{}", it.category, it.name), it.sha256.clone()));
    let changed = said.policies != listed.collect();
    let etag = script.sitelist.as_ref().map(|text| format!("\"{}\"", Digest::of(text.as_bytes())));
    let news = etag.filter(|etag| said.sitelist.as_ref() != Some(etag));
    state.checkins.lock().push(said);
    if old {
        let mut answer = json(&OldSequence { expected: script.least_sequence });
        *answer.status_mut() = StatusCode::CONFLICT;
        return answer;
    }
    let actions = std::mem::take(&mut state.script.lock().actions);
    json(&CheckedIn {
        acknowledged,
        sitelist: news.map(|etag| SitelistNews { etag, url: "/agent/v1/sitelist.xml".to_owned() }),
        policies: changed.then_some(policies),
        next_checkin_s: script.next_checkin_s,
        actions: (1..).zip(actions).map(|(id, kind)| Action { id, kind }).collect(),
    })
}

async fn poll(state: &State) -> Response<Body> {
    let mut messages = state.messages.subscribe();
    let heard = tokio::time::timeout(HELD, messages.recv()).await;
    json(&Polled { messages: heard.into_iter().flatten().collect() })
}

fn upgrade(state: &Arc<State>, mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        return status(StatusCode::BAD_REQUEST);
    };
    let mut messages = state.messages.subscribe();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(io) = upgraded.await else { return };
        let mut line = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await;
        loop {
            tokio::select! {
                said = messages.recv() => {
                    let Ok(said) = said else { return };
                    let text = serde_json::to_string(&said).unwrap_or_default();
                    if line.send(Frame::text(text)).await.is_err() {
                        return;
                    }
                }
                frame = line.next() => if !matches!(frame, Some(Ok(_))) { return },
            }
        }
    });
    let switched = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(key.as_bytes()));
    switched.body(full("")).unwrap_or_default()
}

async fn forward(node: SocketAddr, request: Request<Incoming>) -> Result<Response<Body>, ()> {
    let tcp = TcpStream::connect(node).await.map_err(drop)?;
    let (mut sender, connection) = client::handshake(TokioIo::new(tcp)).await.map_err(drop)?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(drop)?;
    Ok(answer.map(|body| body.boxed()))
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    Response::new(full(serde_json::to_vec(value).unwrap_or_default()))
}

fn status(code: StatusCode) -> Response<Body> {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = code;
    answer
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}
