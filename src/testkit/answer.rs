//! What a scripted origin answers to one request: status, head, and which bytes follow.

use super::script::{Framing, Ranges, Script};

/// The head of an answer and which bytes follow.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) start: u64,
    pub(super) end: u64,
    place: Option<String>,
}

impl Answer {
    pub(super) fn of(script: &Script, head: &str) -> Self {
        let whole = Self { status: script.status, start: 0, end: script.length, place: None };
        if script.status != 200 {
            return whole;
        }
        let same = |field_name: &str, value: &Option<String>| {
            value.is_some() && field(head, field_name).map(str::to_owned) == *value
        };
        if same("if-none-match", &script.etag) || same("if-modified-since", &script.last_modified) {
            return Self { status: 304, end: 0, ..whole };
        }
        let Some((start, end)) = field(head, "range").and_then(|range| parse_range(range, script.length))
        else {
            return whole;
        };
        let condition = field(head, "if-range").map(str::to_owned);
        let fits = condition.is_none()
            || condition == script.etag
            || condition == script.last_modified
            || script.ranges == Ranges::IgnoreCondition;
        if script.ranges == Ranges::Ignore || !fits {
            return whole;
        }
        if start >= script.length {
            return Self { status: 416, start: 0, end: 0, place: Some(format!("bytes */{}", script.length)) };
        }
        let end = if let Ranges::AtMost(most) = script.ranges { end.min(start + most) } else { end };
        let place = |start: u64, end: u64, total: String| Some(format!("bytes {start}-{}/{total}", end - 1));
        let place = match script.ranges {
            Ranges::Shifted(by) => place(start + by, end + by, (script.length + by).to_string()),
            Ranges::Total(total) => place(start, end, total.to_string()),
            Ranges::UnknownTotal => place(start, end, "*".to_owned()),
            Ranges::Unplaced => None,
            _ => place(start, end, script.length.to_string()),
        };
        Self { status: 206, start, end, place }
    }

    pub(super) const fn bodyless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    pub(super) fn render(&self, script: &Script) -> String {
        let mut lines = vec![format!("HTTP/1.1 {} Scripted", self.status)];
        let mut add = |name: &str, value: &str| lines.push(format!("{name}: {value}"));
        match script.framing {
            _ if self.bodyless() => {}
            Framing::Length => add("content-length", &(self.end - self.start).to_string()),
            Framing::WrongLength(length) => add("content-length", &length.to_string()),
            Framing::Chunked => add("transfer-encoding", "chunked"),
            Framing::Close => add("connection", "close"),
        }
        let optional = [
            ("etag", &script.etag),
            ("last-modified", &script.last_modified),
            ("content-range", &self.place),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                add(name, value);
            }
        }
        for (name, value) in &script.headers {
            add(name, value);
        }
        lines.push("\r\n".to_owned());
        lines.join("\r\n")
    }
}

/// One range as half-open bytes of a file; the end may lie behind it.
fn parse_range(value: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return Some((length.saturating_sub(last.parse().ok()?), length));
    }
    let end = if last.is_empty() { length } else { last.parse::<u64>().ok()?.saturating_add(1).min(length) };
    Some((first.parse().ok()?, end))
}

/// The value of a header field in a raw head.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
