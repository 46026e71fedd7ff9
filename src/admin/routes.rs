//! Every path of the admin API: one table, from which both the router and the OpenAPI document are made.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

use super::agents_api::{AgentsAsk, ForgetAsk, WakeAsk};
use super::api::{DryRun, EntriesAsk, LogAsk, Named, PinAsk, PurgeAsk, TailAsk, VerifyAsk, WarmAsk};
use super::documents;
use super::error::{ApiError, Code};
use super::extract::{AsOperator, Ask, Input};
use super::operator::Operator;
use super::{LongAnswer, Role, openapi};
use crate::telemetry::Exposition;

/// What handlers share.
pub(super) type Node = State<Arc<dyn Operator>>;

/// An answer of a handler.
type Told = Result<Response, ApiError>;

/// One path and method.
pub(super) struct Route {
    pub(super) method: &'static str,
    /// With `{name}` for what varies.
    pub(super) path: &'static str,
    pub(super) role: Role,
    pub(super) summary: &'static str,
    /// The type of the query or body, by its name among the schemas.
    pub(super) asks: Option<&'static str>,
    /// The type of the answer, or a media type.
    pub(super) answers: &'static str,
    handler: fn() -> MethodRouter<Arc<dyn Operator>>,
}

macro_rules! route {
    ($method:ident $path:literal $role:ident $asks:expr => $answers:literal, $handler:path, $summary:literal) => {
        Route {
            method: stringify!($method),
            path: $path,
            role: Role::$role,
            summary: $summary,
            asks: $asks,
            answers: $answers,
            handler: || $method($handler),
        }
    };
}

/// All of them.
pub(super) const ROUTES: &[Route] = &[
    route!(get "/livez" Viewer None => "text/plain", livez, "200 while the process lives"),
    route!(get "/readyz" Viewer None => "text/plain", readyz, "200, or 503 and why agents should not be sent here"),
    route!(get "/metrics" Viewer None => "text/plain", metrics, "Metrics for Prometheus"),
    route!(get "/v1/openapi.json" Viewer None => "Document", document, "This document"),
    route!(get "/v1/status" Viewer None => "Status", status, "What the node is doing"),
    route!(get "/v1/explain" Viewer Some("Named") => "Explanation", explain, "Why a URL is answered as it is"),
    route!(get "/v1/fills" Viewer None => "Fills", fills, "Fetches that run"),
    route!(post "/v1/fills/cancel" Operator Some("Named") => "Done", cancel_fill, "End a fetch; its readers' transfers break"),
    route!(get "/v1/entries" Viewer Some("EntriesAsk") => "Entries", entries, "What is stored"),
    route!(post "/v1/purge" Operator Some("PurgeAsk") => "Reached", purge, "Make stored files go, or stale"),
    route!(post "/v1/pin" Operator Some("PinAsk") => "Reached", pin, "Keep stored files from being evicted, or no longer"),
    route!(post "/v1/gc" Operator Some("DryRun") => "Reached", collect, "Remove blocks that nothing names"),
    route!(post "/v1/warm" Operator Some("WarmAsk") => "Job", warm, "Fetch ahead; a job"),
    route!(post "/v1/verify" Operator Some("VerifyAsk") => "Job", verify, "Read and compare every block; a job"),
    route!(get "/v1/jobs" Viewer None => "Jobs", jobs, "Jobs that run, and the last that ended"),
    route!(get "/v1/jobs/{id}" Viewer None => "Job", job, "One job"),
    route!(delete "/v1/jobs/{id}" Operator None => "Done", cancel_job, "End a job"),
    route!(post "/v1/reload" Operator Some("DryRun") => "Reloaded", reload, "Read the configuration again"),
    route!(post "/v1/log" Operator Some("LogAsk") => "Done", log, "Log more or less"),
    route!(get "/v1/agents" Viewer Some("AgentsAsk") => "Agents", agents, "Agents, and where they stand"),
    route!(get "/v1/agents/{id}" Viewer None => "AgentRow", agent, "One agent"),
    route!(post "/v1/agents/wake" Operator Some("WakeAsk") => "WakeTold", wake, "Ask agents to check in now"),
    route!(post "/v1/agents/forget" Operator Some("ForgetAsk") => "AgentsReached", forget, "Forget agents; they may come again"),
    route!(get "/v1/wakes/{id}" Viewer None => "WakeTold", wake_told, "What came of a wake-up"),
    route!(delete "/v1/wakes/{id}" Operator None => "Done", abort_wake, "Call a wake-up off"),
    route!(get "/v1/handlers" Viewer None => "Handlers", documents::handlers, "The handlers of the fleet"),
    route!(post "/v1/handlers/state" Operator Some("StateAsk") => "Done", documents::set_state, "Drain, resume or disable handlers; at the authority"),
    route!(get "/v1/agents/sitelist" Viewer Some("AgentAsk") => "SitelistShown", documents::sitelist, "The sitelist of an agent"),
    route!(get "/v1/agents/explain" Viewer Some("AgentAsk") => "AgentExplanation", documents::explain, "Why an agent gets its handlers and policies"),
    route!(get "/v1/policies" Viewer None => "Policies", documents::policies, "The policies of the fleet"),
    route!(get "/v1/policies/one" Viewer Some("PolicyAsk") => "PolicyShown", documents::policy, "One policy with its body"),
    route!(post "/v1/orders" Operator Some("OrderAsk") => "OrderTold", documents::order, "Have nodes purge or warm"),
    route!(get "/v1/orders/{id}" Viewer None => "OrderTold", documents::ordered, "What became of that, node by node"),
    route!(get "/v1/tail" Viewer Some("TailAsk") => "application/jsonl", tail, "Requests as they end"),
];

/// The router of them all.
pub(super) fn router(node: Arc<dyn Operator>) -> Router {
    let router =
        ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
    router.fallback(unknown).method_not_allowed_fallback(other_method).with_state(node)
}

async fn unknown() -> ApiError {
    ApiError::not_found("there is no such path", "GET /v1/openapi.json lists them all")
}

async fn other_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::new(Code::Method, message, "GET /v1/openapi.json lists what it takes")
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) fn json(value: &impl Serialize) -> Told {
    let body = serde_json::to_string_pretty(value)
        .map_err(|error| ApiError::new(Code::Failed, error.to_string(), "report this defect"))?;
    Ok(text(StatusCode::OK, "application/json", body + "\n"))
}

/// It answers, so it lives: dependencies are none of a supervisor's business.
async fn livez() -> Response {
    text(StatusCode::OK, PLAIN, "ok\n")
}

async fn readyz(State(node): Node) -> Response {
    match node.ready() {
        Ok(()) => text(StatusCode::OK, PLAIN, "ok\n"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{reason}\n")),
    }
}

async fn metrics(State(node): Node, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let exposition = Exposition::choose(accept);
    text(StatusCode::OK, exposition.content_type(), node.metrics(exposition))
}

async fn document() -> Told {
    json(&openapi::document())
}

async fn status(State(node): Node) -> Told {
    json(&node.status())
}

async fn explain(State(node): Node, Ask(ask): Ask<Named>) -> Told {
    json(&node.explain(&ask.url).await?)
}

async fn fills(State(node): Node) -> Told {
    json(&node.fills())
}

async fn cancel_fill(_: AsOperator, State(node): Node, Input(ask): Input<Named>) -> Told {
    json(&node.cancel_fill(&ask.url).await?)
}

async fn entries(State(node): Node, Ask(ask): Ask<EntriesAsk>) -> Told {
    json(&node.entries(ask).await?)
}

async fn purge(_: AsOperator, State(node): Node, Input(ask): Input<PurgeAsk>) -> Told {
    json(&node.purge(ask).await?)
}

async fn pin(_: AsOperator, State(node): Node, Input(ask): Input<PinAsk>) -> Told {
    json(&node.pin(ask).await?)
}

async fn collect(_: AsOperator, State(node): Node, Input(ask): Input<DryRun>) -> Told {
    json(&node.collect(ask.dry_run).await?)
}

async fn warm(_: AsOperator, State(node): Node, Input(ask): Input<WarmAsk>) -> Told {
    json(&node.warm(ask).await?)
}

async fn verify(_: AsOperator, State(node): Node, Input(ask): Input<VerifyAsk>) -> Told {
    json(&node.verify(ask).await?)
}

async fn jobs(State(node): Node) -> Told {
    json(&serde_json::json!({ "schema": super::api::SCHEMA, "jobs": node.jobs() }))
}

fn number(id: &str) -> Result<u64, ApiError> {
    id.parse().map_err(|_| ApiError::bad(format!("`{id}` is no number of a job"), "GET /v1/jobs lists them"))
}

async fn job(State(node): Node, Path(id): Path<String>) -> Told {
    let job = node.job(number(&id)?);
    json(&job.ok_or_else(|| ApiError::not_found(format!("there is no job {id}"), "GET /v1/jobs lists them"))?)
}

async fn cancel_job(_: AsOperator, State(node): Node, Path(id): Path<String>) -> Told {
    json(&node.cancel_job(number(&id)?)?)
}

async fn agents(State(node): Node, Ask(ask): Ask<AgentsAsk>) -> Told {
    json(&node.agents(ask)?)
}

async fn agent(State(node): Node, Path(id): Path<String>) -> Told {
    json(&node.agent(&id)?)
}

async fn wake(_: AsOperator, State(node): Node, Input(ask): Input<WakeAsk>) -> Told {
    json(&node.wake(ask)?)
}

async fn forget(_: AsOperator, State(node): Node, Input(ask): Input<ForgetAsk>) -> Told {
    json(&node.forget(ask)?)
}

fn wake_number(id: &str) -> Result<u64, ApiError> {
    id.parse().map_err(|_| ApiError::bad(format!("`{id}` is no number of a wake-up"), "waking says it"))
}

async fn wake_told(State(node): Node, Path(id): Path<String>) -> Told {
    json(&node.wake_told(wake_number(&id)?)?)
}

async fn abort_wake(_: AsOperator, State(node): Node, Path(id): Path<String>) -> Told {
    json(&node.abort_wake(wake_number(&id)?)?)
}

async fn reload(_: AsOperator, State(node): Node, Input(ask): Input<DryRun>) -> Told {
    json(&node.reload(ask.dry_run).await?)
}

async fn log(_: AsOperator, State(node): Node, Input(ask): Input<LogAsk>) -> Told {
    json(&node.log_level(&ask.level)?)
}

async fn tail(State(node): Node, Ask(ask): Ask<TailAsk>) -> Told {
    let mut response = text(StatusCode::OK, "application/jsonl", Body::new(Lines(node.tail(ask)?)));
    response.extensions_mut().insert(LongAnswer);
    Ok(response.into_response())
}

/// Lines as they come.
struct Lines(mpsc::Receiver<String>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(Bytes::from(line)))))
    }
}
