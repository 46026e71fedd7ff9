//! A node of straw behind the real API, and what the table of routes promises.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::agents_api::*;
use super::api::*;
use super::routes::{ROUTES, router};
use super::{Access, Admin, ApiError, ErrorBody, Operator, Role, Soon, Who, openapi};
use crate::telemetry::Exposition;

struct Straw(Result<(), String>);

fn no<T>() -> Result<T, ApiError> {
    Err(ApiError::not_found("straw", "nothing"))
}

fn soon<'a, T: Send + 'a>() -> Soon<'a, T> {
    Box::pin(async { no() })
}

impl Operator for Straw {
    fn ready(&self) -> Result<(), String> {
        self.0.clone()
    }
    fn metrics(&self, exposition: Exposition) -> String {
        format!("{exposition:?}")
    }
    fn status(&self) -> Value {
        json!({ "phase": "run" })
    }
    fn fills(&self) -> Value {
        json!({})
    }
    fn explain<'a>(&'a self, _: &'a str) -> Soon<'a, Explanation> {
        soon()
    }
    fn cancel_fill<'a>(&'a self, _: &'a str) -> Soon<'a, Done> {
        soon()
    }
    fn entries(&self, _: EntriesAsk) -> Soon<'_, Entries> {
        soon()
    }
    fn purge(&self, _: PurgeAsk) -> Soon<'_, Reached> {
        soon()
    }
    fn pin(&self, _: PinAsk) -> Soon<'_, Reached> {
        soon()
    }
    fn collect(&self, _: bool) -> Soon<'_, Reached> {
        soon()
    }
    fn warm(&self, _: WarmAsk) -> Soon<'_, Job> {
        soon()
    }
    fn verify(&self, _: VerifyAsk) -> Soon<'_, Job> {
        soon()
    }
    fn jobs(&self) -> Vec<Job> {
        Vec::new()
    }
    fn job(&self, _: u64) -> Option<Job> {
        None
    }
    fn cancel_job(&self, _: u64) -> Result<Done, ApiError> {
        no()
    }
    fn reload(&self, _: bool) -> Soon<'_, Reloaded> {
        soon()
    }
    fn log_level(&self, _: &str) -> Result<Done, ApiError> {
        no()
    }
    fn agents(&self, _: AgentsAsk) -> Result<Agents, ApiError> {
        no()
    }
    fn agent(&self, _: &str) -> Result<AgentRow, ApiError> {
        no()
    }
    fn wake(&self, _: WakeAsk) -> Result<WakeTold, ApiError> {
        no()
    }
    fn wake_told(&self, _: u64) -> Result<WakeTold, ApiError> {
        no()
    }
    fn abort_wake(&self, _: u64) -> Result<Done, ApiError> {
        no()
    }
    fn forget(&self, _: ForgetAsk) -> Result<AgentsReached, ApiError> {
        no()
    }
    fn tail(&self, _: TailAsk) -> Result<mpsc::Receiver<String>, ApiError> {
        no()
    }
}

/// An API in front of a node that does nothing.
pub(super) fn quiet() -> Admin {
    Admin::new(Arc::new(Straw(Ok(()))), Access::default())
}

async fn ask_of(
    straw: Straw,
    role: Role,
    request: http::request::Builder,
    body: &str,
) -> (StatusCode, String, String) {
    let router = TowerToHyperService::new(router(Arc::new(straw)));
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    request.extensions_mut().insert(Who { name: "test".to_owned(), role });
    let (parts, body) = router.call(request).await.unwrap().into_parts();
    let kind =
        parts.headers.get("content-type").map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
    (parts.status, kind, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn ask(role: Role, request: http::request::Builder, body: &str) -> (StatusCode, String) {
    let (status, _, body) = ask_of(Straw(Ok(())), role, request, body).await;
    (status, body)
}

fn error(body: &str) -> ErrorBody {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[tokio::test]
async fn readiness_is_not_liveness() {
    let draining = || Straw(Err("draining".to_owned()));
    assert_eq!(ask_of(draining(), Role::Viewer, Request::get("/livez"), "").await.0, 200);
    let (status, _, body) = ask_of(draining(), Role::Viewer, Request::get("/readyz"), "").await;
    assert_eq!((status.as_u16(), &*body), (503, "draining\n"));
    assert_eq!(ask(Role::Viewer, Request::get("/readyz"), "").await.0, 200);
}

#[tokio::test]
async fn scrapers_get_the_format_they_ask_for() {
    let (_, kind, body) = ask_of(Straw(Ok(())), Role::Viewer, Request::get("/metrics"), "").await;
    assert_eq!((&*body, kind.starts_with("text/plain; version=0.0.4")), ("Classic", true));
    let open = Request::get("/metrics").header("accept", "application/openmetrics-text;version=1.0.0");
    let (_, kind, body) = ask_of(Straw(Ok(())), Role::Viewer, open, "").await;
    assert_eq!((&*body, kind.starts_with("application/openmetrics-text")), ("OpenMetrics", true));
}

/// The document is made from the table, and the table is what the router was made from: each path of the document
/// answers by its method, and by no other.
#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let document = openapi::document();
    let paths = document["paths"].as_object().unwrap();
    let told: usize = paths.values().map(|methods| methods.as_object().unwrap().len()).sum();
    assert_eq!(told, ROUTES.len());
    for (path, methods) in paths {
        let concrete = path.replace("{id}", "7");
        for method in ["get", "post", "put", "patch", "delete"] {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(&concrete);
            let (status, body) = ask(Role::Operator, request, "").await;
            let there = methods.get(method).is_some();
            assert_eq!(status != StatusCode::METHOD_NOT_ALLOWED, there, "{method} {path}: {status}");
            assert!(!body.contains("no such path"), "{method} {path}");
        }
    }
    let (status, body) = ask(Role::Operator, Request::get("/v1/nothing"), "").await;
    assert_eq!((status.as_u16(), error(&body).error.help.contains("openapi")), (404, true));
    for path in ["/", "/livez/", "/v1", "/metrics/x"] {
        assert_eq!(ask(Role::Operator, Request::get(path), "").await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn viewers_change_nothing() {
    for route in ROUTES {
        let request = Request::builder()
            .method(route.method.to_uppercase().as_str())
            .uri(route.path.replace("{id}", "7"))
            .header("content-type", "application/json");
        let (status, body) = ask(Role::Viewer, request, "{}").await;
        let refused = status == StatusCode::FORBIDDEN;
        assert_eq!(refused, route.role == Role::Operator, "{} {}: {status}", route.method, route.path);
        assert_eq!(route.role == Role::Operator, route.method != "get", "what only looks is GET");
        if refused {
            assert!(error(&body).error.help.contains("operator"));
        }
    }
}

#[tokio::test]
async fn bad_bodies_are_told_what_is_wrong_with_them() {
    let post = |kind: &str| Request::post("/v1/purge").header("content-type", kind);
    for (kind, body, status, word) in [
        ("text/plain", "{}", 415, "Content-Type"),
        ("application/x-www-form-urlencoded", "all=true", 415, "Content-Type"),
        ("application/json", "{", 400, "openapi"),
        ("application/json", "[]", 400, "openapi"),
        ("application/json", r#"{"al":true}"#, 400, "openapi"),
        ("application/json", r#"{"all":"yes"}"#, 400, "openapi"),
        ("application/json; charset=utf-8", r#"{"all":true}"#, 404, "nothing"),
    ] {
        let (found, answer) = ask(Role::Operator, post(kind), body).await;
        let told = error(&answer).error;
        assert_eq!((found.as_u16(), told.help.contains(word)), (status, true), "{kind} {body}: {told:?}");
    }
    let long = format!("{{\"patterns\":[\"{}\"]}}", "x".repeat(2 << 20));
    let (status, answer) = ask(Role::Operator, post("application/json"), &long).await;
    assert_eq!((status.as_u16(), error(&answer).error.message.contains("KiB")), (413, true));
    let (status, answer) = ask(Role::Viewer, Request::get("/v1/explain"), "").await;
    assert_eq!((status.as_u16(), error(&answer).error.message.contains("url")), (400, true), "{answer}");
    let (status, _) = ask(Role::Viewer, Request::get("/v1/jobs/x"), "").await;
    assert_eq!(status, 400);
}
