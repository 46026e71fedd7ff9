//! What no honest side sends: requests for a front door, replies for the upstream gate.
//!
//! The ids are those of the attack list (A: framing, C: targets and hosts, D: open proxy; B: lying upstream).

/// A request as raw bytes, and what a front door may do with it.
#[derive(Debug, Clone)]
pub struct RequestCase {
    /// Id in the attack list, and which variant.
    pub id: &'static str,
    /// The bytes, with `localhost` as the host that is ours.
    pub bytes: Vec<u8>,
    /// What may come back; any of them.
    pub allowed: &'static [Outcome],
}

/// What may come back for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This status, then the connection closes.
    Close(u16),
    /// This status; the connection may stay.
    Status(u16),
    /// The connection closes without an answer.
    Silence,
}

/// A reply as raw bytes, and what the upstream gate says.
#[derive(Debug, Clone)]
pub struct ReplyCase {
    /// Id in the attack list, and which variant.
    pub id: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The request that is answered.
    pub asked: Question,
    /// The connection is closed behind them.
    pub close: bool,
    /// What must come of it.
    pub outcome: ReplyOutcome,
}

/// The request that a reply case answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A plain GET.
    Plain,
    /// A GET of bytes 10 (inclusive) to 20 (exclusive).
    Range,
    /// A GET with `If-None-Match`.
    Conditional,
}

/// What must come of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyOutcome {
    /// The head is refused with this word of `protocol::reply::Lie`.
    Lie(&'static str),
    /// There is no head: this word of `FetchError::blame`.
    NoHead(&'static str),
    /// The head passes, the body breaks with this word of `BodyError::blame`.
    Body(&'static str),
    /// The head passes and the body ends, but unproven: never complete.
    Unproven,
    /// All is well, but the connection must not be used again.
    OnceOnly,
    /// All is well.
    Good,
}

use Outcome::{Close, Silence, Status};

/// Refused, in whichever way ends the connection.
const REFUSED: &[Outcome] = &[Close(400), Silence];

fn request(id: &'static str, text: impl Into<Vec<u8>>, allowed: &'static [Outcome]) -> RequestCase {
    RequestCase { id, bytes: text.into(), allowed }
}

fn get(id: &'static str, lines: &str, allowed: &'static [Outcome]) -> RequestCase {
    request(id, format!("GET /f HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"), allowed)
}

fn target(id: &'static str, target: &str, allowed: &'static [Outcome]) -> RequestCase {
    request(id, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"), allowed)
}

/// Requests that must not have any effect. `/f` may exist or not.
pub fn requests() -> Vec<RequestCase> {
    let mut all = framing_requests();
    all.extend(target_requests());
    all.extend(host_requests());
    all
}

fn framing_requests() -> Vec<RequestCase> {
    let mut all = vec![
        get(
            "A1 length and chunked",
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
            REFUSED,
        ),
        get("A2 two lengths", "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", REFUSED),
        get("A2 list of lengths", "Content-Length: 3, 3\r\n\r\nabc", REFUSED),
        get("A2 plus", "Content-Length: +3\r\n\r\nabc", REFUSED),
        get("A2 hex", "Content-Length: 0x3\r\n\r\nabc", REFUSED),
        get("A2 negative", "Content-Length: -1\r\n", REFUSED),
        get("A2 empty", "Content-Length:\r\n", REFUSED),
        get("A2 2^64", "Content-Length: 18446744073709551616\r\n", REFUSED),
        get("A3 equal lengths", "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", REFUSED),
        get("A3 leading zeros", "Content-Length: 003\r\n\r\nabc", REFUSED),
        get("A4 xchunked", "Transfer-Encoding: xchunked\r\n", REFUSED),
        get("A4 chunked, identity", "Transfer-Encoding: chunked, identity\r\n", REFUSED),
        get("A4 vertical tab", "Transfer-Encoding: \x0bchunked\r\n", REFUSED),
        get("A4 space before colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n", REFUSED),
        get("A5 gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n", REFUSED),
        get("A5 twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", REFUSED),
        get("A6 obs-fold", "X: a\r\n b\r\n", REFUSED),
        get("A6 bare CR", "X: a\rb\r\n", REFUSED),
        get("A6 NUL", "X: a\0b\r\n", REFUSED),
        request("A6 leading space", "GET /f HTTP/1.1\r\n Host: localhost\r\n\r\n", REFUSED),
        get("A8 chunk size 0x1", "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n", REFUSED),
        get(
            "A8 chunk size of 17 digits",
            "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\na\r\n0\r\n",
            REFUSED,
        ),
        get("A8 signed chunk size", "Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n", REFUSED),
        get("A8 no CRLF behind a chunk", "Transfer-Encoding: chunked\r\n\r\n1\r\naX\r\n0\r\n", REFUSED),
        get(
            "A9 length in a trailer",
            "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n",
            REFUSED,
        ),
        get("A10 fat GET", "Content-Length: 3\r\n\r\nabc", REFUSED),
        get("A13 expect", "Expect: 100-continue\r\n", &[Close(417), Status(417), Close(400)]),
        request("A12 HTTP/0.9", "GET /f\r\n\r\n", REFUSED),
        request(
            "A12 HTTP/1.2",
            "GET /f HTTP/1.2\r\nHost: localhost\r\n\r\n",
            &[Close(400), Close(505), Silence],
        ),
        request(
            "A12 HTTP/1.0 with chunks",
            "GET /f HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            REFUSED,
        ),
    ];
    let many: String = (0..200).map(|number| format!("x{number}: 1\r\n")).collect();
    let too_much = &[Close(431), Silence, Close(400)];
    all.push(get("A14 200 headers", &many, too_much));
    all.push(get("A14 64 KiB header", &format!("X: {}\r\n", "a".repeat(64 << 10)), too_much));
    all.push(get("A14 500 KB header", &format!("X: {}\r\n", "a".repeat(500_000)), too_much));
    let long = format!("/{}", "a".repeat(70_000));
    all.push(target("A14 70 KB target", &long, &[Close(414), Close(431), Close(400), Silence]));
    all
}

fn target_requests() -> Vec<RequestCase> {
    const TARGETS: [(&str, &str); 22] = [
        ("C1 dot dot", "/a/../../x"),
        ("C1 dot", "/a/./b"),
        ("C1 double slash", "//host/x"),
        ("C1 inner double slash", "/a//b"),
        ("C1 dots at the end", "/a/.."),
        ("C1 dots at the front", "/../x"),
        ("C2 encoded control", "/a%01b"),
        ("C2 encoded DEL", "/a%7fb"),
        ("C2 encoded dots and slash", "/a/%2e%2e%2fx"),
        ("C2 encoded dots", "/a/%2e%2E/x"),
        ("C2 half encoded dots", "/a/.%2e/x"),
        ("C2 encoded slash", "/a%2fb"),
        ("C2 encoded backslash", "/a%5cb"),
        ("C2 backslash", "/a\\b"),
        ("C2 encoded NUL", "/a%00b"),
        ("C2 double encoding", "/a%252e%252e/b"),
        ("C2 overlong", "/a%c0%ae/b"),
        ("C2 invalid UTF-8", "/a%ff/b"),
        ("C2 no hex", "/a%zz"),
        ("C2 cut hex", "/a%4"),
        ("C2 encoded CR LF", "/a%0d%0aX:b"),
        ("C2 raw UTF-8", "/ä"),
    ];
    TARGETS.iter().map(|(id, text)| target(id, text, REFUSED)).collect()
}

fn host_requests() -> Vec<RequestCase> {
    const MISDIRECTED: &[Outcome] = &[Close(400), Close(421), Status(421)];
    const METHOD: &[Outcome] = &[Status(405), Close(405), Close(400)];
    vec![
        request(
            "C4 other authority",
            "GET http://evil.example/f HTTP/1.1\r\nHost: localhost\r\n\r\n",
            MISDIRECTED,
        ),
        request("C4 other scheme", "GET ftp://localhost/f HTTP/1.1\r\nHost: localhost\r\n\r\n", MISDIRECTED),
        request("C5 authority form", "GET evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", REFUSED),
        request("C5 asterisk", "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", METHOD),
        request("C5 connect", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", METHOD),
        request("C6 no host", "GET /f HTTP/1.1\r\n\r\n", REFUSED),
        request("C6 two hosts", "GET /f HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", REFUSED),
        request("C6 strange host", "GET /f HTTP/1.1\r\nHost: a/b@c\r\n\r\n", MISDIRECTED),
        request("C7 lower case", "get /f HTTP/1.1\r\nHost: localhost\r\n\r\n", METHOD),
        request("C7 unknown", "FOO /f HTTP/1.1\r\nHost: localhost\r\n\r\n", METHOD),
        request("C7 purge", "PURGE /f HTTP/1.1\r\nHost: localhost\r\n\r\n", METHOD),
        request("C7 post", "POST /f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", METHOD),
        request("C7 delete", "DELETE /f HTTP/1.1\r\nHost: localhost\r\n\r\n", METHOD),
        request("C7 trace", "TRACE /f HTTP/1.1\r\nHost: localhost\r\n\r\n", METHOD),
        request(
            "D1 proxy request",
            "GET http://127.0.0.1:22/ HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
            &[Close(400), Close(421), Status(421), Status(404)],
        ),
    ]
}

fn reply(id: &'static str, bytes: impl Into<Vec<u8>>, outcome: ReplyOutcome) -> ReplyCase {
    ReplyCase { id, bytes: bytes.into(), asked: Question::Plain, close: false, outcome }
}

fn lie(id: &'static str, head: &str, word: &'static str) -> ReplyCase {
    reply(id, format!("HTTP/1.1 {head}\r\n\r\nabc"), ReplyOutcome::Lie(word))
}

impl ReplyCase {
    const fn to(mut self, asked: Question) -> Self {
        self.asked = asked;
        self
    }

    const fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

/// Replies, most of them lies, and what must come of each. A refused one must leave no usable connection behind.
pub fn replies() -> Vec<ReplyCase> {
    let mut all = framing_replies();
    all.extend(body_replies());
    all.extend(part_replies());
    all.extend(head_replies());
    all
}

fn framing_replies() -> Vec<ReplyCase> {
    let both = "200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked";
    vec![
        reply("B0 good", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", ReplyOutcome::Good),
        reply(
            "B0 good chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ReplyOutcome::Good,
        ),
        lie("B2 length and chunks", both, "length-and-encoding"),
        lie("B2 equal lengths", "200 OK\r\nContent-Length: 3\r\nContent-Length: 3", "several-lengths"),
        lie("B2 list of lengths", "200 OK\r\nContent-Length: 3, 3", "several-lengths"),
        reply(
            "B2 two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            ReplyOutcome::NoHead("garbled"),
        ),
        reply("B2 plus", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", ReplyOutcome::NoHead("garbled")),
        lie("B3 gzip", "200 OK\r\nTransfer-Encoding: gzip", "transfer-encoding"),
        lie("B3 gzip, chunked", "200 OK\r\nTransfer-Encoding: gzip, chunked", "transfer-encoding"),
        lie(
            "B3 chunked twice",
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "transfer-encoding",
        ),
        lie("B12 2^63", "200 OK\r\nContent-Length: 9223372036854775808", "absurd-length"),
        lie("B12 over 1 TiB", "200 OK\r\nContent-Length: 1099511627777", "absurd-length"),
        lie("B14 gzip", "200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip", "content-coding"),
        lie(
            "B14 br among identity",
            "200 OK\r\nContent-Length: 3\r\nContent-Encoding: identity\r\nContent-Encoding: br",
            "content-coding",
        ),
    ]
}

fn body_replies() -> Vec<ReplyCase> {
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    vec![
        reply("B1 by closing", "HTTP/1.1 200 OK\r\n\r\nabc", ReplyOutcome::Unproven).closing(),
        reply("B1 HTTP/1.0 by closing", "HTTP/1.0 200 OK\r\n\r\nabc", ReplyOutcome::Unproven).closing(),
        reply("B4 short", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", ReplyOutcome::Body("short"))
            .closing(),
        reply("B4 no last chunk", chunked("3\r\nabc\r\n"), ReplyOutcome::Body("short")).closing(),
        reply("B4 cut in a chunk", chunked("5\r\nabc"), ReplyOutcome::Body("short")).closing(),
        reply("B4 chunk size 0x1", chunked("0x3\r\nabc\r\n0\r\n\r\n"), ReplyOutcome::Body("framing")),
        reply(
            "B4 chunk size of 17 digits",
            chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"),
            ReplyOutcome::Body("framing"),
        ),
        reply("B4 no CRLF behind a chunk", chunked("3\r\nabcX\r\n0\r\n\r\n"), ReplyOutcome::Body("framing")),
        reply(
            "B5 extra bytes",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            ReplyOutcome::OnceOnly,
        ),
        reply(
            "B5 extra bytes behind chunks",
            chunked("3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            ReplyOutcome::OnceOnly,
        ),
        reply(
            "B5 304 with a body",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc",
            ReplyOutcome::OnceOnly,
        )
        .to(Question::Conditional),
        reply("B5 204 with a body", "HTTP/1.1 204 No Content\r\n\r\nabc", ReplyOutcome::OnceOnly),
    ]
}

fn part_replies() -> Vec<ReplyCase> {
    let part =
        |id, lines: &str, word| lie(id, &format!("206 Partial Content\r\n{lines}"), word).to(Question::Range);
    vec![
        lie("B6 unasked", "206 Partial Content\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/3", "part-unasked"),
        part("B6 wrong start", "Content-Length: 3\r\nContent-Range: bytes 11-13/100", "part-elsewhere"),
        part("B6 beyond the end asked for", "Content-Length: 11\r\nContent-Range: bytes 10-20/100", "part-elsewhere"),
        part("B6 unknown total", "Content-Length: 3\r\nContent-Range: bytes 10-12/*", "part-unclear"),
        part("B6 total too small", "Content-Length: 3\r\nContent-Range: bytes 10-12/12", "part-unclear"),
        part("B6 backwards", "Content-Length: 3\r\nContent-Range: bytes 12-10/100", "part-unclear"),
        part("B6 no place", "Content-Length: 3", "part-unclear"),
        part("B6 two places", "Content-Length: 3\r\nContent-Range: bytes 10-12/100\r\nContent-Range: bytes 10-12/100", "part-unclear"),
        part("B6 other unit", "Content-Length: 3\r\nContent-Range: items 10-12/100", "part-unclear"),
        part("B6 length contradicts", "Content-Length: 3\r\nContent-Range: bytes 10-13/100", "part-length"),
        part("B6 several parts", "Content-Length: 3\r\nContent-Type: multipart/byteranges; boundary=x", "multipart"),
        reply("B6 more chunks than its range", "HTTP/1.1 206 P\r\nContent-Range: bytes 10-11/100\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ReplyOutcome::Body("too-long")).to(Question::Range),
        reply("B6 fewer chunks than its range", "HTTP/1.1 206 P\r\nContent-Range: bytes 10-13/100\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", ReplyOutcome::Body("short")).to(Question::Range),
        reply("B6 good", "HTTP/1.1 206 P\r\nContent-Length: 3\r\nContent-Range: bytes 10-12/100\r\n\r\nabc", ReplyOutcome::Good).to(Question::Range),
        reply("B7 whole to a range", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", ReplyOutcome::Good).to(Question::Range),
        lie("B6 whole with a place", "200 OK\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/3", "whole-with-range"),
        lie("B8 not modified unasked", "304 Not Modified", "not-modified-unasked"),
        lie("B8 range refused unasked", "416 Range Not Satisfiable\r\nContent-Length: 3", "range-refused-unasked"),
    ]
}

fn head_replies() -> Vec<ReplyCase> {
    let mut all = vec![
        lie("B10 101", "101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade", "status"),
        lie("B10 999", "999 Denied\r\nContent-Length: 3", "status"),
        reply(
            "B17 obs-fold",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a\r\n b\r\n\r\nabc",
            ReplyOutcome::NoHead("garbled"),
        ),
        reply(
            "B17 NUL",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a\0b\r\n\r\nabc",
            ReplyOutcome::NoHead("garbled"),
        ),
        reply(
            "B17 control in the reason",
            "HTTP/1.1 200 O\x01K\r\nContent-Length: 3\r\n\r\nabc",
            ReplyOutcome::NoHead("garbled"),
        ),
        reply(
            "B17 space before colon",
            "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
            ReplyOutcome::NoHead("garbled"),
        ),
        reply(
            "B17 chunks with HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ReplyOutcome::NoHead("garbled"),
        ),
        reply("B17 no HTTP", "SSH-2.0-OpenSSH_9.9\r\n\r\n", ReplyOutcome::NoHead("garbled")),
        reply("B17 closed at once", "", ReplyOutcome::NoHead("broken")).closing(),
        reply("B17 closed in the head", "HTTP/1.1 200 OK\r\nContent-", ReplyOutcome::NoHead("broken"))
            .closing(),
    ];
    for (id, bytes) in
        [("B11 33 KiB header", 33 << 10), ("B11 300 KB header", 300_000), ("B11 1 MB header", 1_000_000)]
    {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: {}\r\n\r\nabc", "a".repeat(bytes));
        all.push(reply(id, head, ReplyOutcome::Lie("head-too-large")));
    }
    let many: String = (0..500).map(|number| format!("x{number}: 1\r\n")).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{many}\r\nabc");
    all.push(reply("B11 500 fields", head, ReplyOutcome::Lie("head-too-large")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_an_id_of_its_own() {
        let ids =
            || requests().into_iter().map(|case| case.id).chain(replies().into_iter().map(|case| case.id));
        let unique: std::collections::HashSet<_> = ids().collect();
        assert_eq!(unique.len(), ids().count());
    }
}
