//! Talking to the admin API: HTTP/1.1 over the Unix socket or over TLS, one connection a question.

mod tls;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::args::GlobalArgs;
use super::exit::{Exit, Failure};
use crate::admin::ErrorBody;
use crate::config;

/// Where the node's socket is, where neither a flag nor the configuration says it.
const SOCKET: &str = "/run/waypost/admin.sock";

/// Answers are not longer: 10,000 entries of a listing are a tenth of it.
const ANSWER_BYTES: usize = 64 << 20;

enum Endpoint {
    Socket(PathBuf),
    Tls(Authority, tls::Trust),
}

/// A way to the node.
pub(super) struct Client {
    endpoint: Endpoint,
    authorization: Option<HeaderValue>,
    patience: Duration,
}

impl Client {
    /// The way that flags, environment and configuration say.
    pub(super) fn new(global: &GlobalArgs) -> Result<Self, Failure> {
        let endpoint = match &global.server {
            Some(text) => endpoint(text, global.ca_file.as_deref())?,
            None => Endpoint::Socket(configured_socket(&global.config)),
        };
        let authorization = match (&global.token_file, &endpoint) {
            (Some(path), Endpoint::Tls(..)) => Some(read_token(path)?),
            _ => None,
        };
        Ok(Self { endpoint, authorization, patience: global.timeout })
    }

    /// Asks for something.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// Has something done.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        ask: &impl Serialize,
    ) -> Result<T, Failure> {
        let body =
            serde_json::to_vec(ask).map_err(|error| Failure::new(Exit::Failed, error.to_string(), ""))?;
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Has something ended.
    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::DELETE, path, None).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, Failure> {
        let answer = timeout(self.patience, self.exchange(method, path, body)).await;
        let (status, body) = answer.unwrap_or_else(|_| Err(self.late()))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                let help = "is this a node of another release? compare waypost --version there and here";
                Failure::new(Exit::Failed, format!("the node's answer is not understood: {error}"), help)
            });
        }
        Err(failure(status, &body))
    }

    /// The status and text of a plain answer, whatever the status.
    pub(super) async fn plain(&self, path: &str) -> Result<(u16, String), Failure> {
        let answer = timeout(self.patience, self.exchange(Method::GET, path, None)).await;
        let (status, body) = answer.unwrap_or_else(|_| Err(self.late()))?;
        if status == http::StatusCode::UNAUTHORIZED || status == http::StatusCode::FORBIDDEN {
            return Err(failure(status, &body));
        }
        Ok((status.as_u16(), String::from_utf8_lossy(&body).trim_end().to_owned()))
    }

    /// Follows an answer that does not end, line by line, until the node ends it.
    pub(super) async fn follow(
        &self,
        path: &str,
        mut each: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let opened = timeout(self.patience, self.open(Method::GET, path, None)).await;
        let mut response = opened.unwrap_or_else(|_| Err(self.late()))?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(failure(status, &body).into());
        }
        let mut rest = Vec::new();
        while let Some(frame) = response.body_mut().frame().await {
            // The node has ended, or is ending: how abruptly is no matter.
            let Ok(frame) = frame else { return Ok(()) };
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                each(String::from_utf8_lossy(&line).trim_end())?;
            }
        }
        Ok(())
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(http::StatusCode, Bytes), Failure> {
        let response = self.open(method, path, body).await?;
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| self.unreachable(&format!("the answer broke off: {error}")))?;
        Ok((status, body.to_bytes()))
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, Failure> {
        match &self.endpoint {
            Endpoint::Socket(socket) => {
                let stream =
                    UnixStream::connect(socket).await.map_err(|error| self.no_socket(socket, &error))?;
                self.send(TokioIo::new(stream), "localhost", (method, path, body)).await
            }
            Endpoint::Tls(authority, trust) => {
                let tcp = TcpStream::connect(authority.as_str()).await;
                let tcp = tcp.map_err(|error| self.unreachable(&error.to_string()))?;
                let stream = trust.shake_hands(tcp, authority.host()).await;
                let stream = stream.map_err(|refused| {
                    let mut failure = self.unreachable(&refused.why);
                    failure.help = refused.help.map_or(failure.help, str::to_owned);
                    failure
                })?;
                self.send(TokioIo::new(stream), authority.as_str(), (method, path, body)).await
            }
        }
    }

    async fn send<T>(
        &self,
        io: T,
        host: &str,
        (method, path, body): (Method, &str, Option<Vec<u8>>),
    ) -> Result<Response<Incoming>, Failure>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let broke = |error: hyper::Error| self.unreachable(&error.to_string());
        let (mut sender, connection) = http1::handshake(io).await.map_err(broke)?;
        // Ends with the connection, which ends with the answer.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|error| Failure::new(Exit::Usage, error.to_string(), ""))?;
        sender.send_request(request).await.map_err(broke)
    }

    fn name(&self) -> String {
        match &self.endpoint {
            Endpoint::Socket(path) => path.display().to_string(),
            Endpoint::Tls(authority, _) => format!("https://{authority}"),
        }
    }

    fn unreachable(&self, why: &str) -> Failure {
        let message = format!("cannot talk to the node at {}: {why}", self.name());
        Failure::new(Exit::Unreachable, message, "is it running there? name another with -s/--server")
    }

    fn late(&self) -> Failure {
        let message = format!("the node at {} did not answer within {:?}", self.name(), self.patience);
        Failure::new(Exit::TimedOut, message, "look at its log, or wait longer with --timeout")
    }

    fn no_socket(&self, socket: &Path, error: &io::Error) -> Failure {
        let message = format!("cannot talk to the node at {}: {error}", socket.display());
        match error.kind() {
            io::ErrorKind::NotFound => {
                let help = "is the node running, and does its configuration have [admin] socket? name the file with -c, or the socket with -s";
                Failure::new(Exit::Unreachable, message, help)
            }
            io::ErrorKind::ConnectionRefused => {
                Failure::new(Exit::Unreachable, message, "the node is not running: waypost serve")
            }
            io::ErrorKind::PermissionDenied => {
                let help =
                    "come as root or as the node's user, or set [admin] operators to one of your groups";
                Failure::new(Exit::NotAllowed, message, help)
            }
            _ => self.unreachable(&error.to_string()),
        }
    }
}

fn failure(status: http::StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => Failure::of_api(body.error.code, body.error.message, body.error.help),
        Err(_) => {
            let help = "is that the admin API of a node? its address is [admin] listen";
            Failure::new(Exit::Failed, format!("the other side answered {status}"), help)
        }
    }
}

fn endpoint(text: &str, ca_file: Option<&Path>) -> Result<Endpoint, Failure> {
    const HELP: &str = "write a socket's path, such as /run/waypost/admin.sock, or https://HOST:PORT";
    let wrong = |why: &str| Failure::new(Exit::Usage, format!("--server `{text}`: {why}"), HELP);
    if let Some(rest) = text.strip_prefix("https://") {
        let authority: Authority =
            rest.trim_end_matches('/').parse().map_err(|_| wrong("is no host and port"))?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong("is no host and port"));
        }
        if authority.port_u16().is_none() {
            return Err(wrong("has no port"));
        }
        let trust = tls::Trust::read(ca_file).map_err(|why| {
            Failure::new(Exit::Usage, why, "name a PEM file with the authority of the node's certificate")
        })?;
        return Ok(Endpoint::Tls(authority, trust));
    }
    if text.starts_with("http://") {
        return Err(wrong("the admin API is never on plain HTTP"));
    }
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.is_empty() || path.contains("://") {
        return Err(wrong("is no endpoint"));
    }
    Ok(Endpoint::Socket(PathBuf::from(path)))
}

/// What the configuration says, if there is one that can be read: a broken one must not keep anybody from asking.
fn configured_socket(file: &Path) -> PathBuf {
    config::admin_socket(file).unwrap_or_else(|| PathBuf::from(SOCKET))
}

fn read_token(path: &Path) -> Result<HeaderValue, Failure> {
    let wrong = |why: String| {
        let message = format!("the token file {}: {why}", path.display());
        Failure::new(Exit::Usage, message, "name a file with one token of [admin] tokens, with --token-file")
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("has no token".to_owned()));
    }
    let mut value =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| wrong(error.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A query of these fields; those without a value are left out.
pub(super) fn query(path: &str, fields: &impl Serialize) -> String {
    let fields = serde_json::to_value(fields).unwrap_or_default();
    let mut query = String::new();
    for (name, value) in fields.as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => encode(text),
            other => other.to_string(),
        };
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(&format!("{name}={value}"));
    }
    format!("{path}{query}")
}

fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets_or_https() {
        assert!(matches!(endpoint("https://node.example:8444/", None), Ok(Endpoint::Tls(..))));
        assert!(matches!(endpoint("https://[::1]:8444", None), Ok(Endpoint::Tls(..))));
        assert!(
            matches!(endpoint("unix:/run/x.sock", None), Ok(Endpoint::Socket(path)) if path == Path::new("/run/x.sock"))
        );
        assert!(matches!(endpoint("admin.sock", None), Ok(Endpoint::Socket(_))));
        for wrong in ["", "http://node:80", "https://", "https://node", "https://me@node:1", "ftp://x"] {
            let failure = endpoint(wrong, None).err().unwrap_or_else(|| panic!("{wrong}"));
            assert!(failure.exit == Exit::Usage && failure.help.contains("https://HOST:PORT"), "{wrong}");
        }
    }

    #[test]
    fn queries_keep_what_was_meant() {
        let ask = crate::admin::api::Named { url: "/a b?c=ü&d".to_owned() };
        assert_eq!(query("/v1/explain", &ask), "/v1/explain?url=/a%20b%3Fc%3D%C3%BC%26d");
    }
}
