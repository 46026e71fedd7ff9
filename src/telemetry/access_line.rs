//! One request as a line. At full rate a line is made for each request, so it is written by hand: number by number and
//! field by field, into a buffer that is there.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::calendar::Calendar;
use crate::base::clock::Timestamp;

/// Bytes of a value that a client chose, beyond which it is cut: a log is not a place to put things.
const FIELD_BYTES: usize = 512;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// A JSON object.
    #[default]
    Json,
    /// NCSA combined, for tools that know nothing else.
    Combined,
}

/// One request, at its end.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When its head had arrived.
    pub time: Timestamp,
    /// Who asked.
    pub client: SocketAddr,
    /// The listener it came through.
    pub listener: &'a str,
    /// Its id, as sent to the client.
    pub request_id: &'a str,
    /// The method.
    pub method: &'a str,
    /// The target as the client wrote it.
    pub target: &'a str,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the body that were handed to the network.
    pub bytes: u64,
    /// Whether the answer was complete; false if the client left or we broke it off.
    pub complete: bool,
    /// From the head to the first byte of the answer.
    pub first_byte: Duration,
    /// From the head to the end of the answer.
    pub duration: Duration,
    /// The repository, if it is one's.
    pub repository: Option<&'a str>,
    /// How the cache answered, as in the metrics.
    pub result: &'a str,
    /// The word of the verdict, as in `Cache-Status` and the metrics.
    pub verdict: &'a str,
    /// The `Range` that was asked for.
    pub range: Option<&'a str>,
    /// The client's `User-Agent`.
    pub agent: Option<&'a str>,
}

impl AccessRecord<'_> {
    /// Appends its line, with the line feed.
    pub(super) fn render(&self, format: AccessFormat, line: &mut Vec<u8>) {
        match format {
            AccessFormat::Json => self.render_json(line),
            // A buffer takes whatever is written.
            AccessFormat::Combined => drop(self.render_combined(line)),
        }
        line.push(b'\n');
    }

    fn render_json(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"time\":\"");
        Calendar::of(self.time).push_rfc3339(line);
        line.extend_from_slice(b"\",\"client\":\"");
        push_address(line, self.client);
        push_word(line, b"\",\"listener\":", self.listener);
        push_word(line, b",\"request_id\":", self.request_id);
        push_text(line, b",\"method\":", self.method);
        push_text(line, b",\"target\":", self.target);
        push_word(line, b",\"version\":", self.version);
        line.extend_from_slice(b",\"status\":");
        push_number(line, self.status.into());
        line.extend_from_slice(b",\"bytes\":");
        push_number(line, self.bytes);
        line.extend_from_slice(if self.complete { b",\"complete\":true" } else { b",\"complete\":false" });
        line.extend_from_slice(b",\"first_byte_ms\":");
        push_milliseconds(line, self.first_byte);
        line.extend_from_slice(b",\"duration_ms\":");
        push_milliseconds(line, self.duration);
        if let Some(repository) = self.repository {
            push_word(line, b",\"repository\":", repository);
        }
        push_word(line, b",\"result\":", self.result);
        push_word(line, b",\"verdict\":", self.verdict);
        if let Some(range) = self.range {
            push_text(line, b",\"range\":", range);
        }
        if let Some(agent) = self.agent {
            push_text(line, b",\"agent\":", agent);
        }
        line.push(b'}');
    }

    fn render_combined(&self, line: &mut Vec<u8>) -> io::Result<()> {
        let agent = self.agent.map_or_else(|| "-".to_owned(), quoted);
        let (client, time) = (self.client.ip(), Calendar::of(self.time).ncsa());
        let (method, target, version) = (quoted(self.method), quoted(self.target), self.version);
        let (status, bytes) = (self.status, self.bytes);
        write!(
            line,
            "{client} - - [{time}] \"{method} {target} {version}\" {status} {bytes} \"-\" \"{agent}\""
        )
    }
}

/// A word of ours or of the configuration, in which nothing has to be escaped.
fn push_word(line: &mut Vec<u8>, key: &[u8], word: &str) {
    line.extend_from_slice(key);
    line.push(b'"');
    line.extend_from_slice(word.as_bytes());
    line.push(b'"');
}

/// A client's text: cut where it is too long, and escaped where it has to be.
fn push_text(line: &mut Vec<u8>, key: &[u8], text: &str) {
    let text = shorten(text);
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        return push_word(line, key, text);
    }
    line.extend_from_slice(key);
    // A buffer takes whatever is written, and a text can always be.
    let _ = serde_json::to_writer(line, text);
}

fn push_address(line: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [first, rest @ ..] = ip.octets();
            push_number(line, first.into());
            for octet in rest {
                line.push(b'.');
                push_number(line, octet.into());
            }
        }
        IpAddr::V6(ip) => drop(write!(line, "[{ip}]")),
    }
    line.push(b':');
    push_number(line, address.port().into());
}

/// Milliseconds with three places.
fn push_milliseconds(line: &mut Vec<u8>, time: Duration) {
    let micros = u64::try_from(time.as_nanos().div_ceil(500) / 2).unwrap_or(u64::MAX);
    push_number(line, micros / 1_000);
    line.push(b'.');
    push_digits(line, micros % 1_000, 3);
}

fn push_number(line: &mut Vec<u8>, number: u64) {
    let width = number.checked_ilog10().map_or(1, |digits| digits + 1);
    push_digits(line, number, width);
}

/// So many digits of a number, zeros in front where it has fewer.
pub(super) fn push_digits(line: &mut Vec<u8>, number: u64, width: u32) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    for digit in digits.iter_mut().rev().take(width as usize) {
        // The remainder of ten fits.
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    line.extend_from_slice(digits.get(digits.len().saturating_sub(width as usize)..).unwrap_or_default());
}

fn shorten(text: &str) -> &str {
    if text.len() <= FIELD_BYTES {
        return text;
    }
    text.get(..text.floor_char_boundary(FIELD_BYTES)).unwrap_or(text)
}

/// A client's text inside quotes of a line: quotes, backslashes and everything that is not plain ASCII escaped, so
/// that it can end neither the value nor the line, nor command a terminal (CVE-2025-58160).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in shorten(text).bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request with something in every field.
    pub(in crate::telemetry) fn record(target: &'static str) -> AccessRecord<'static> {
        AccessRecord {
            time: Timestamp(971_186_136_001),
            client: "192.0.2.7:4711".parse().unwrap(),
            listener: "agents",
            request_id: "01-ab",
            method: "GET",
            target,
            version: "HTTP/1.1",
            status: 206,
            bytes: 4_096,
            complete: true,
            first_byte: Duration::from_micros(1_500),
            duration: Duration::from_millis(20),
            repository: Some("software"),
            result: "hit",
            verdict: "hit",
            range: Some("bytes=0-4095"),
            agent: Some("agent/1 \"x\"\u{1b}[31m"),
        }
    }

    fn line_of(record: &AccessRecord<'_>, format: AccessFormat) -> Vec<u8> {
        let mut line = Vec::new();
        record.render(format, &mut line);
        line
    }

    #[test]
    fn a_line_of_json_has_all_that_is_known() {
        let line = line_of(&record("/Software/a.zip"), AccessFormat::Json);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["time"], "2000-10-10T13:55:36.001Z");
        assert_eq!(value["client"], "192.0.2.7:4711");
        assert_eq!(value["first_byte_ms"], 1.5);
        assert_eq!(value["duration_ms"], 20.0);
        assert_eq!(
            (&value["status"], &value["bytes"], &value["complete"]),
            (&206.into(), &4_096.into(), &true.into())
        );
        assert_eq!(
            (&value["agent"], &value["range"]),
            (&"agent/1 \"x\"\u{1b}[31m".into(), &"bytes=0-4095".into())
        );
        assert_eq!(value["verdict"], "hit");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn a_line_for_ncsa_tools_cannot_be_forged_by_a_client() {
        let line = line_of(&record("/a\" 200 1\n10.0.0.1 - -"), AccessFormat::Combined);
        let want = "192.0.2.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a\\\" 200 1\\x0a10.0.0.1 - - HTTP/1.1\" 206 4096 \
                    \"-\" \"agent/1 \\\"x\\\"\\x1b[31m\"\n";
        assert_eq!(String::from_utf8(line).unwrap(), want);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long: &'static str = Box::leak("é".repeat(400).into_boxed_str());
        let value: serde_json::Value =
            serde_json::from_slice(&line_of(&record(long), AccessFormat::Json)).unwrap();
        assert_eq!(value["target"].as_str().unwrap().len(), FIELD_BYTES);
    }

    proptest! {
        #[test]
        fn every_line_is_json_and_says_what_was_meant(
            target in "\\PC{0,40}|[\\x00-\\x7f]{0,40}",
            client in any::<std::net::SocketAddr>(),
            (bytes, micros, time) in (any::<u64>(), 0_u64..1 << 50, 0_u64..1 << 42),
        ) {
            let record = AccessRecord {
                time: Timestamp(time),
                client,
                target: &target,
                bytes,
                first_byte: Duration::from_micros(micros),
                duration: Duration::from_micros(micros),
                ..record("")
            };
            let line = line_of(&record, AccessFormat::Json);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(&value["target"], target.as_str());
            let said: SocketAddr = value["client"].as_str().unwrap().parse().unwrap();
            prop_assert_eq!((said.ip(), said.port()), (client.ip(), client.port()));
            prop_assert_eq!(&value["bytes"], bytes);
            prop_assert_eq!(value["time"].as_str().unwrap(), Calendar::of(Timestamp(time)).to_string());
            let want = micros as f64 / 1e3;
            prop_assert!((value["duration_ms"].as_f64().unwrap() - want).abs() <= want * 1e-12);
        }
    }
}
