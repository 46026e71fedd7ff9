//! The configuration as a JSON schema, made from the same tables as the reference: for editors.

use serde_json::{Map, Value, json};

use super::reference::{Row, sections, takes_effect};

/// Tables that stand in lists, and what the others hold below them.
const INNER: [(&str, &str); 7] = [
    ("{ url, priority } of upstreams", "upstream"),
    ("{ cert, key } of tls and client_cert", "identity"),
    ("{ name, role } of certificates", "certificate"),
    ("{ endpoint, one_in, ca } of otlp", "otlp"),
    ("{ name, role, secret } of tokens", "token"),
    ("{ name, secret } of [control] tokens", "node_token"),
    ("{ name, tree, secret } of [agents] tokens", "agent_token"),
];

/// The schema.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let mut properties = Map::new();
    for (title, _, rows) in sections() {
        let table = table(title, &rows);
        match INNER.iter().find(|(name, _)| *name == title) {
            Some((_, name)) => drop(definitions.insert((*name).to_owned(), table)),
            None => match title {
                "[[repository.rule]]" => drop(definitions.insert("rule".to_owned(), table)),
                "[[repository]]" => {
                    properties.insert(
                        "repository".to_owned(),
                        json!({ "type": "array", "items": table, "minItems": 1 }),
                    );
                }
                _ => drop(properties.insert(title.trim_matches(['[', ']']).to_owned(), table)),
            },
        }
    }
    definitions.insert("secret".to_owned(), secret());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "waypost.toml",
        "type": "object",
        "additionalProperties": false,
        "required": ["repository"],
        "properties": properties,
        "$defs": definitions,
    })
}

fn table(title: &str, rows: &[Row]) -> Value {
    let needed: Vec<&str> = rows.iter().filter(|row| row.1 == "has to be there").map(|row| row.0).collect();
    let properties: Map<String, Value> = rows.iter().map(|row| (row.0.to_owned(), key(title, row))).collect();
    let mut table = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !needed.is_empty() {
        put(&mut table, "required", json!(needed));
    }
    table
}

fn key(title: &str, (name, default, allowed, meaning): &Row) -> Value {
    let mut schema = kind(title, name, default);
    let plain = |text: &str| text.replace('`', "");
    let change = takes_effect(title, name);
    let description = format!("{meaning}. Allowed: {}. Takes effect: {change}.", plain(allowed));
    put(&mut schema, "description", json!(description));
    let default = plain(default);
    if let Ok(value @ (Value::String(_) | Value::Number(_))) = serde_json::from_str::<Value>(&default) {
        put(&mut schema, "default", value);
    }
    schema
}

/// What a key takes. What is not named is a string: quantities have their unit.
fn kind(title: &str, name: &str, default: &str) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let texts = json!({ "type": "string" });
    match (title, name) {
        (_, "tls" | "client_cert") => reference("identity"),
        (_, "secret" | "key") | ("[control]", "token") => reference("secret"),
        ("[control]", "tokens") => json!({ "type": "array", "items": reference("node_token") }),
        ("[agents]", "tokens") => json!({ "type": "array", "items": reference("agent_token") }),
        (_, "otlp") => reference("otlp"),
        (_, "certificates") => json!({ "type": "array", "items": reference("certificate") }),
        (_, "tokens") => json!({ "type": "array", "items": reference("token") }),
        (_, "rule") => json!({ "type": "array", "items": reference("rule") }),
        (_, "upstreams") => {
            let one = json!({ "anyOf": [texts, reference("upstream")] });
            json!({ "anyOf": [texts, reference("upstream"), { "type": "array", "items": one }] })
        }
        ("[server]", "listen" | "plain_listen" | "names") | (_, "forward_headers" | "redirect_hosts") => {
            json!({ "anyOf": [texts, { "type": "array", "items": texts }] })
        }
        (_, "immutable") => json!({ "type": "boolean" }),
        (_, "workers" | "priority") => json!({ "type": "integer", "minimum": 1 }),
        _ if default.trim_matches('`').parse::<u64>().is_ok() => json!({ "type": "integer", "minimum": 0 }),
        (_, "role") => json!({ "enum": ["viewer", "operator"] }),
        (_, "query") => json!({ "enum": ["refuse", "key", "drop"] }),
        (_, "level") => json!({ "enum": ["error", "warn", "info", "debug", "trace"] }),
        ("[log]", "format") => json!({ "enum": ["auto", "text", "json"] }),
        (_, "access_format") => json!({ "enum": ["json", "combined"] }),
        _ => texts,
    }
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

fn secret() -> Value {
    let text = json!({ "type": "string" });
    let one = |name: &str| json!({ "required": [name] });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": { "file": text, "env": text },
        "oneOf": [one("file"), one("env")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_every_table_and_refers_to_what_is_there() {
        let schema = schema();
        let tables: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(tables, ["admin", "agents", "cache", "control", "limits", "log", "repository", "server"]);
        let text = schema.to_string();
        for name in text.split("#/$defs/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(schema["$defs"].get(name).is_some(), "{name}");
        }
        assert_eq!(schema["properties"]["limits"]["properties"]["fills"]["type"], "integer");
        assert_eq!(schema["properties"]["cache"]["properties"]["size"]["default"], "10GiB");
    }
}
