//! The admin API as an OpenAPI 3.1 document, made from the table of routes and examples of the types.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::agents_api::{AgentRow, Agents, AgentsAsk, AgentsReached, ForgetAsk, WakeAsk, WakeTold, WokenRow};
use super::api::{
    Change, Done, DryRun, Entries, EntriesAsk, EntryRow, Explanation, Job, JobFailure, JobItem, JobState,
    LogAsk, Named, PinAsk, PurgeAsk, Reached, Reloaded, SCHEMA, TailAsk, VerifyAsk, WarmAsk,
};
use super::documents;
use super::error::{ApiError, Code, ErrorBody, ErrorFields};
use super::routes::{ROUTES, Route};

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let place = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(place) = place.as_object_mut() {
            place.insert(route.method.to_owned(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "waypost admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "HTTP/1.1 on a Unix socket (peer credentials) and, where configured, on TLS (bearer token or client certificate). Every JSON answer has `schema`; fields are only ever added.",
        },
        "security": [{ "token": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let content = if route.answers.contains('/') {
        json!({ route.answers: { "schema": { "type": "string" } } })
    } else {
        json!({ "application/json": { "schema": reference(route.answers) } })
    };
    let problem = json!({
        "description": "what is wrong, and what to do next",
        "content": { "application/json": { "schema": reference("Error") } },
    });
    let mut operation = json!({
        "summary": route.summary,
        "x-role": route.role,
        "responses": { "200": { "description": route.summary, "content": content }, "default": problem },
    });
    let mut parameters: Vec<Value> = route
        .path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if let Some(name) = route.asks {
        if route.method == "get" {
            parameters.extend(query(name));
        } else {
            let content = json!({ "application/json": { "schema": reference(name) } });
            put(&mut operation, "requestBody", json!({ "required": true, "content": content }));
        }
    }
    if !parameters.is_empty() {
        put(&mut operation, "parameters", Value::Array(parameters));
    }
    operation
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The fields of a type, as parameters of a query.
fn query(name: &str) -> Vec<Value> {
    let schemas = schemas();
    let schema = schemas.get(name).cloned().unwrap_or_default();
    let fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    fields
        .into_iter()
        .map(|(name, schema)| json!({ "name": name, "in": "query", "schema": schema }))
        .collect()
}

/// The types, each by an example that has every field.
fn schemas() -> Map<String, Value> {
    let text = || Some("x".to_owned());
    let texts = || vec!["x".to_owned()];
    let row = EntryRow {
        key: "x".to_owned(),
        bytes: 1,
        received: 1,
        stale: false,
        pinned: false,
        sha256: "x".to_owned(),
    };
    let job = Job {
        schema: SCHEMA,
        id: 1,
        kind: "warm".to_owned(),
        state: JobState::Running,
        total: 1,
        finished: 1,
        changed: 1,
        bytes: 1,
        running: vec![JobItem { path: "x".to_owned(), bytes: 1, length: Some(1) }],
        failed: vec![JobFailure { path: "x".to_owned(), why: "x".to_owned() }],
        failures: 1,
        seconds: 1,
    };
    let change = Change { what: "x".to_owned(), how: "changed".to_owned(), restart: false };
    let error = ApiError::bad("x", "x");
    let error = ErrorFields { code: Code::BadRequest, message: error.message, help: error.help };
    let mut all = Map::new();
    let mut add = |name: &str, example: Value| drop(all.insert(name.to_owned(), shape(&example)));
    add("Named", of(&Named { url: "x".to_owned() }));
    add("EntriesAsk", of(&EntriesAsk { pattern: text(), limit: Some(1), after: text() }));
    add("Entries", of(&Entries { schema: SCHEMA, entries: vec![row], next: text() }));
    add(
        "PurgeAsk",
        of(&PurgeAsk { patterns: texts(), all: false, soft: false, older_than: Some(1), dry_run: false }),
    );
    add("Reached", of(&Reached { first: texts(), ..Reached::default() }));
    add("PinAsk", of(&PinAsk { patterns: texts(), pinned: true }));
    add("DryRun", of(&DryRun { dry_run: false }));
    add(
        "WarmAsk",
        of(&WarmAsk {
            patterns: texts(),
            catalog: false,
            jobs: Some(1),
            limit_rate: Some(1),
            dry_run: false,
        }),
    );
    add("VerifyAsk", of(&VerifyAsk { repair: false, limit_rate: Some(1) }));
    add("Job", of(&job));
    add("Jobs", json!({ "schema": SCHEMA, "jobs": [of(&job)] }));
    add("Reloaded", of(&Reloaded { changes: vec![change], warnings: texts(), ..Reloaded::default() }));
    add("LogAsk", of(&LogAsk { level: "x".to_owned() }));
    add("Done", of(&Done::CHANGED));
    add("TailAsk", of(&TailAsk { misses: false, errors: false, pattern: text() }));
    add(
        "Explanation",
        of(&Explanation {
            schema: SCHEMA,
            path: "x".to_owned(),
            repository: text(),
            key: text(),
            verdict: "hit".to_owned(),
            words: texts(),
            facts: json!({}),
        }),
    );
    add("Error", of(&ErrorBody { schema: SCHEMA, error }));
    of_agents(&mut all);
    let mut add = |name: &str, example: Value| drop(all.insert(name.to_owned(), shape(&example)));
    for (name, example) in documents::examples() {
        add(name, example);
    }
    for open in ["Status", "Fills", "Document", "AgentExplanation"] {
        all.insert(open.to_owned(), json!({ "type": "object" }));
    }
    all
}

fn of_agents(all: &mut Map<String, Value>) {
    let (text, texts) = (|| Some("x".to_owned()), || vec!["x".to_owned()]);
    let row = AgentRow {
        schema: SCHEMA,
        behind: texts(),
        addresses: texts(),
        tree: text(),
        tags: texts(),
        sitelist: text(),
        ..AgentRow::default()
    };
    let ask = WakeAsk {
        agents: texts(),
        selector: text(),
        group: text(),
        over: 1,
        attempts: Some(1),
        spacing: Some(1),
    };
    let woken = WokenRow { answered: Some(1), ..WokenRow::default() };
    let mut add = |name: &str, example: Value| drop(all.insert(name.to_owned(), shape(&example)));
    add("AgentsAsk", of(&AgentsAsk { selector: text(), limit: Some(1), after: text() }));
    add("Agents", of(&Agents { schema: SCHEMA, agents: vec![row.clone()], next: text() }));
    add("AgentRow", of(&row));
    add("WakeAsk", of(&ask));
    add("WakeTold", of(&WakeTold { agents: vec![woken], ..WakeTold::default() }));
    add("ForgetAsk", of(&ForgetAsk { agents: texts() }));
    add("AgentsReached", of(&AgentsReached::default()));
}

fn of(example: &impl Serialize) -> Value {
    serde_json::to_value(example).unwrap_or_default()
}

/// The schema of an example.
fn shape(example: &Value) -> Value {
    match example {
        Value::Null => json!({}),
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::String(_) => json!({ "type": "string" }),
        Value::Array(items) => {
            json!({ "type": "array", "items": items.first().map_or_else(|| json!({}), shape) })
        }
        Value::Object(fields) => {
            let properties: Map<String, Value> =
                fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect();
            json!({ "type": "object", "properties": properties })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_referred_to_is_there() {
        let schemas = schemas();
        for route in ROUTES {
            for name in route.asks.into_iter().chain([route.answers]).filter(|name| !name.contains('/')) {
                assert!(schemas.contains_key(name), "{name} of {}", route.path);
            }
        }
    }

    #[test]
    fn queries_are_told_field_by_field() {
        let document = document();
        let parameters = &document["paths"]["/v1/entries"]["get"]["parameters"];
        let names: Vec<_> =
            parameters.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["after", "limit", "pattern"]);
        assert!(document["paths"]["/v1/purge"]["post"]["requestBody"]["required"].as_bool().unwrap());
    }
}
