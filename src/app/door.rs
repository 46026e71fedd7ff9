//! In front of everything that agents and nodes ask: their API goes to the control side, the rest to the data plane.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::build::LISTENERS;
use crate::control::{Control, Reply};
use crate::fleet::TreePath;
use crate::presence::{self, AgentId, Asker, Presence};
use crate::protocol::caller::How;
use crate::proxy::{Answer, Plane};
use crate::server::{BoxError, Peer, Service};
use crate::telemetry::{Metrics, RouteMetrics};

/// Where the agents' API begins.
const AGENTS: &str = "/agent/v1/";
/// Where the nodes' API begins.
const NODES: &str = "/node/v1/";

/// What clients come to.
pub(super) struct Door {
    plane: Arc<Plane>,
    /// `None` where the configuration says nothing about agents or nodes: then these paths are like any other.
    control: Option<Arc<Control>>,
    presence: Option<Arc<Presence>>,
    agents: HashMap<&'static str, RouteMetrics>,
    nodes: HashMap<&'static str, RouteMetrics>,
}

impl Door {
    pub(super) fn new(
        plane: Arc<Plane>,
        control: Option<Arc<Control>>,
        presence: Option<Arc<Presence>>,
        metrics: &Metrics,
    ) -> Self {
        let routes = |name: &str| LISTENERS.map(|listener| (listener, metrics.route(listener, name))).into();
        let (agents, nodes) = match control {
            Some(_) => (routes("agents' API"), routes("nodes' API")),
            None => (HashMap::new(), HashMap::new()),
        };
        Self { plane, control, presence, agents, nodes }
    }

    async fn ask(&self, control: &Control, request: Request<Incoming>, peer: &Peer) -> Reply {
        let began = Instant::now();
        let is_head = request.method() == Method::HEAD;
        let of_agents = request.uri().path().starts_with(AGENTS);
        let mut reply = if of_agents {
            self.ask_as_agent(control, request, peer).await
        } else {
            self.ask_as_node(control, request, peer).await
        };
        let routes = if of_agents { &self.agents } else { &self.nodes };
        if let Some(route) = routes.get(peer.listener) {
            route.answered(reply.status(), began.elapsed());
        }
        if is_head {
            let length = HeaderValue::from(reply.body().len());
            reply.headers_mut().insert(http::header::CONTENT_LENGTH, length);
            *reply.body_mut() = Bytes::new();
        }
        reply
    }

    async fn ask_as_agent(&self, control: &Control, request: Request<Incoming>, peer: &Peer) -> Reply {
        let call = request.uri().path().strip_prefix(AGENTS).unwrap_or_default().to_owned();
        let caller = match (control.agent(request.headers(), peer), self.presence.as_ref()) {
            (Ok(caller), _) => caller,
            // A probe needs no identity: an agent asks it of handlers that it may never talk to.
            (Err(_), Some(presence)) if call == "probe" => {
                return presence.answer(&call, request, peer, None).await;
            }
            (Err(reply), _) => return reply,
        };
        match (&self.presence, AgentId::parse(&caller.name)) {
            (Some(presence), Ok(id)) if presence::is_call(&call) => {
                let within = match &caller.how {
                    How::Token { tree: Some(tree), .. } => TreePath::parse(tree).ok(),
                    _ => None,
                };
                presence.answer(&call, request, peer, Some(&Asker { id, within })).await
            }
            _ => control.answer_agent(&call, (request.method(), request.headers()), &caller),
        }
    }

    async fn ask_as_node(&self, control: &Control, request: Request<Incoming>, peer: &Peer) -> Reply {
        let path = request.uri().path().to_owned();
        let rest = path.strip_prefix(NODES).unwrap_or_default();
        match control.node(request.headers(), peer) {
            Ok(caller) => match &self.presence {
                Some(presence) if rest == "reports" && request.method() == Method::POST => {
                    presence.answer_report(request, &caller.name).await
                }
                _ => control.answer_node(rest, request, &caller).await,
            },
            Err(reply) => reply,
        }
    }
}

impl Service for Door {
    type Body = Told;

    async fn call(self: &Arc<Self>, request: Request<Incoming>, peer: &Arc<Peer>) -> Response<Told> {
        let path = request.uri().path();
        match &self.control {
            Some(control) if path.starts_with(AGENTS) || path.starts_with(NODES) => {
                // Boxed: the data plane's requests do not carry the size of this.
                Box::pin(self.ask(control, request, peer)).await.map(|body| Told::Said(Full::new(body)))
            }
            _ => self.plane.call(request, peer).await.map(Told::Served),
        }
    }
}

/// The body of an answer.
pub(super) enum Told {
    /// From the data plane.
    Served(Answer),
    /// From the control side.
    Said(Full<Bytes>),
}

impl Body for Told {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Served(answer) => Pin::new(answer).poll_frame(cx),
            Self::Said(text) => Pin::new(text)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Served(answer) => answer.is_end_stream(),
            Self::Said(text) => text.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Served(answer) => answer.size_hint(),
            Self::Said(text) => text.size_hint(),
        }
    }
}
