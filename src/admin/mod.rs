//! The operator's way in: HTTP on a Unix socket that only the node's user may open.
//!
//! For now what a supervisor and a scraper need; it holds nothing and decides nothing.

mod socket;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::telemetry::Exposition;

pub use socket::{AdminError, AdminSocket};

/// Where the answers come from: the node.
pub trait StatusSource: Send + Sync + 'static {
    /// Whether agents should be sent here; if not, why (`starting`, `draining`, …). Never an upstream's trouble.
    ///
    /// # Errors
    /// The reason, one word or a short sentence.
    fn ready(&self) -> Result<(), String>;

    /// All metrics as text.
    fn metrics(&self, exposition: Exposition) -> String;

    /// What the node is doing, for people and tools.
    fn status(&self) -> serde_json::Value;
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

type Answer = Response<Full<Bytes>>;

/// Answers one request. Paths are exact; what is not here is 404.
fn answer<B>(source: &impl StatusSource, request: &Request<B>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        // It answers, so it lives: dependencies are none of a supervisor's business.
        "/livez" => plain(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match source.ready() {
            Ok(()) => plain(StatusCode::OK, TEXT, "ok\n"),
            Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
        },
        "/metrics" => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let exposition = Exposition::choose(accept);
            plain(StatusCode::OK, exposition.content_type(), source.metrics(exposition))
        }
        "/v1/status" => plain(StatusCode::OK, JSON, format!("{:#}\n", source.status())),
        _ => plain(StatusCode::NOT_FOUND, TEXT, "there is /livez, /readyz, /metrics and /v1/status\n"),
    }
}

fn plain(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

async fn answer_one<S: StatusSource>(
    source: Arc<S>,
    request: Request<hyper::body::Incoming>,
) -> Result<Answer, Infallible> {
    Ok(answer(&*source, &request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    struct Node(Result<(), String>);

    impl StatusSource for Node {
        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }

        fn metrics(&self, exposition: Exposition) -> String {
            format!("{exposition:?}")
        }

        fn status(&self) -> serde_json::Value {
            serde_json::json!({ "phase": "run" })
        }
    }

    async fn ask(node: &Node, request: http::request::Builder) -> (u16, String, String) {
        let answer = answer(node, &request.body(()).unwrap());
        let (parts, body) = answer.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (parts.status.as_u16(), parts.headers[CONTENT_TYPE].to_str().unwrap().to_owned(), body)
    }

    #[tokio::test]
    async fn readiness_is_not_liveness() {
        let node = Node(Err("draining".to_owned()));
        assert_eq!(ask(&node, Request::get("/livez")).await.0, 200);
        let (status, _, body) = ask(&node, Request::get("/readyz")).await;
        assert_eq!((status, &*body), (503, "draining\n"));
        assert_eq!(ask(&Node(Ok(())), Request::get("/readyz")).await.0, 200);
    }

    #[tokio::test]
    async fn scrapers_get_the_format_they_ask_for() {
        let (_, kind, body) = ask(&Node(Ok(())), Request::get("/metrics")).await;
        assert_eq!((&*body, kind.starts_with("text/plain; version=0.0.4")), ("Classic", true));
        let open = Request::get("/metrics").header(ACCEPT, "application/openmetrics-text;version=1.0.0");
        let (_, kind, body) = ask(&Node(Ok(())), open).await;
        assert_eq!((&*body, kind.starts_with("application/openmetrics-text")), ("OpenMetrics", true));
    }

    #[tokio::test]
    async fn paths_and_methods_are_exact() {
        let node = Node(Ok(()));
        assert_eq!(ask(&node, Request::get("/v1/status")).await.2, "{\n  \"phase\": \"run\"\n}\n");
        for path in ["/", "/livez/", "/v1", "/metrics/x"] {
            assert_eq!(ask(&node, Request::get(path)).await.0, 404, "{path}");
        }
        assert_eq!(ask(&node, Request::post("/livez")).await.0, 405);
    }
}
