//! Spans as OTLP writes them in JSON: ids as hexadecimal digits, 64-bit numbers as strings (protocol, "JSON Protobuf
//! Encoding"). Names of attributes are those of the semantic conventions for HTTP, and `waypost.*` for what is ours.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::AccessRecord;
use super::super::trace::{FillRecord, Span, hex};
use crate::base::clock::Timestamp;

/// `SPAN_KIND_SERVER` and `SPAN_KIND_CLIENT`.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// Letters of a value that a client chose, beyond which it is cut.
const FIELD_CHARS: usize = 512;

/// A span, ready to be sent.
#[derive(Debug)]
pub(super) struct SpanLine(Value);

/// What all spans of this process have in common.
pub(super) struct Batch {
    resource: Value,
    scope: Value,
}

impl Batch {
    pub(super) fn new(node: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let attributes = [
            text("service.name", "waypost"),
            text("service.instance.id", node),
            text("service.version", version),
        ];
        Self {
            resource: json!({ "attributes": attributes }),
            scope: json!({ "name": "waypost", "version": version }),
        }
    }

    /// The body of one delivery.
    pub(super) fn render(&self, lines: &[SpanLine]) -> Vec<u8> {
        let spans: Vec<&Value> = lines.iter().map(|line| &line.0).collect();
        let scoped = json!([{ "scope": self.scope, "spans": spans }]);
        let whole = json!({ "resourceSpans": [{ "resource": self.resource, "scopeSpans": scoped }] });
        whole.to_string().into_bytes()
    }
}

impl SpanLine {
    pub(super) fn of_request(span: &Span, record: &AccessRecord<'_>) -> Self {
        let (path, query) = record.target.split_once('?').unwrap_or((record.target, ""));
        // The convention for methods that are not among the known ones: a client must not make up names of spans.
        let method = if matches!(record.method, "GET" | "HEAD") { record.method } else { "_OTHER" };
        let mut attributes = vec![
            text("http.request.method", method),
            text("url.path", path),
            number("http.response.status_code", record.status.into()),
            number("http.response.body.size", record.bytes),
            text("network.protocol.version", record.version.trim_start_matches("HTTP/")),
            text("client.address", &record.client.ip().to_string()),
            number("client.port", record.client.port().into()),
            text("waypost.listener", record.listener),
            text("waypost.request_id", record.request_id),
            text("waypost.result", record.result),
            text("waypost.verdict", record.verdict),
            json!({ "key": "waypost.complete", "value": { "boolValue": record.complete } }),
            json!({
                "key": "waypost.first_byte_ms",
                "value": { "doubleValue": record.first_byte.as_secs_f64() * 1e3 },
            }),
        ];
        let optional = [
            ("waypost.repository", record.repository),
            ("user_agent.original", record.agent),
            ("http.request.header.range", record.range),
            ("url.query", Some(query).filter(|it| !it.is_empty())),
        ];
        attributes.extend(optional.into_iter().filter_map(|(name, value)| Some(text(name, value?))));
        let name = format!("{method} {}", record.repository.unwrap_or("(no repository)"));
        let failed = record.status >= 500 || !record.complete;
        let times = (record.time, record.duration);
        Self(line(span, (SERVER, &name), times, (attributes, failed)))
    }

    pub(super) fn of_fill(span: &Span, record: &FillRecord<'_>) -> Self {
        let attributes = vec![
            text("url.path", record.path),
            text("waypost.repository", record.repository),
            text("waypost.outcome", record.word),
            number("waypost.bytes", record.bytes),
        ];
        let times = (record.began, record.ended.since(record.began));
        let failed = record.word != "complete";
        Self(line(span, (CLIENT, &format!("fill {}", record.repository)), times, (attributes, failed)))
    }
}

fn line(
    span: &Span,
    (kind, name): (u8, &str),
    (began, took): (Timestamp, Duration),
    (attributes, failed): (Vec<Value>, bool),
) -> Value {
    let start = u128::from(began.0) * 1_000_000;
    let mut line = json!({
        "traceId": hex(&span.trace),
        "spanId": hex(&span.id),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": start.to_string(),
        "endTimeUnixNano": (start + took.as_nanos()).to_string(),
        "attributes": attributes,
        "status": if failed { json!({ "code": ERROR }) } else { json!({}) },
    });
    if let (Some(parent), Some(fields)) = (span.parent, line.as_object_mut()) {
        fields.insert("parentSpanId".to_owned(), hex(&parent).into());
    }
    line
}

fn text(key: &str, value: &str) -> Value {
    let value: String = value.chars().take(FIELD_CHARS).collect();
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_fetch_are_two_spans_of_one_trace() {
        let request = Span { trace: [1; 16], id: [2; 8], parent: None };
        let fill = Span { trace: [1; 16], id: [3; 8], parent: Some([2; 8]) };
        let record = AccessRecord {
            time: Timestamp(1_000),
            client: "192.0.2.7:4711".parse().unwrap(),
            listener: "https",
            request_id: "01",
            method: "BREW",
            target: "/o/x?y=1",
            version: "HTTP/2.0",
            status: 504,
            bytes: 7,
            complete: true,
            first_byte: Duration::from_millis(2),
            duration: Duration::from_micros(1_500),
            repository: Some("o"),
            result: "error",
            verdict: "upstream-down",
            range: None,
            agent: None,
        };
        let record_of_fill = FillRecord {
            repository: "o",
            path: "/o/x",
            began: Timestamp(1_000),
            ended: Timestamp(3_000),
            bytes: 0,
            word: "upstream-down",
        };
        let lines = [SpanLine::of_request(&request, &record), SpanLine::of_fill(&fill, &record_of_fill)];
        let whole: Value = serde_json::from_slice(&Batch::new("branch").render(&lines)).unwrap();
        let spans = &whole["resourceSpans"][0]["scopeSpans"][0]["spans"];
        let said = |span: &Value, key: &str| {
            let found = span["attributes"].as_array().unwrap().iter().find(|it| it["key"] == key).cloned();
            found.map(|it| it["value"].clone())
        };
        assert_eq!(spans[0]["traceId"], "01".repeat(16));
        assert_eq!((&spans[0]["name"], &spans[0]["kind"]), (&json!("_OTHER o"), &json!(2)));
        assert_eq!(spans[0]["endTimeUnixNano"], "1001500000");
        assert_eq!(spans[0].get("parentSpanId"), None);
        assert_eq!(spans[0]["status"]["code"], 2);
        assert_eq!(said(&spans[0], "http.response.status_code"), Some(json!({ "intValue": "504" })));
        assert_eq!(said(&spans[0], "url.path"), Some(json!({ "stringValue": "/o/x" })));
        assert_eq!(said(&spans[0], "url.query"), Some(json!({ "stringValue": "y=1" })));
        assert_eq!((&spans[1]["parentSpanId"], &spans[1]["kind"]), (&json!("02".repeat(8)), &json!(3)));
        assert_eq!(spans[1]["endTimeUnixNano"], "3000000000");
        let resource = &whole["resourceSpans"][0]["resource"];
        assert_eq!(said(resource, "service.instance.id"), Some(json!({ "stringValue": "branch" })));
    }
}
