//! HTTPS towards handlers and repositories: HTTP/1.1 over rustls, one connection kept for the next question, and an
//! end to every wait. The only file of the agent that knows hyper and rustls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::base::limits::{AGENT_BUFFER_BYTES, UPSTREAM_HEAD_BYTES};
use crate::protocol::caller::AGENT_HEADER;

/// Who is asked and who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The authorities that handlers' certificates must be of, PEM; `None` trusts the machine's.
    pub trust: Option<Vec<u8>>,
    /// The agent's certificate chain and key, PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// The enrolment token.
    pub token: Option<String>,
    /// The agent's id, where no certificate says it.
    pub id: String,
}

/// The identity cannot be used. The administrator's.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct IdentityError {
    what: &'static str,
    why: String,
}

/// Why there is no answer that could be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TalkError {
    /// The name, the connection, or TLS.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long; what it was.
    #[error("no {0} in time")]
    TimedOut(&'static str),
    /// It broke off.
    #[error("the connection broke: {0}")]
    Broke(String),
    /// Another status than one that means success.
    #[error("answered {0}")]
    Status(u16),
    /// Not what the protocol says.
    #[error("the answer is not understood: {0}")]
    NotUnderstood(String),
    /// More than is taken.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl TalkError {
    /// Whether another handler may do better. A refusal is about the agent and is the same everywhere.
    pub const fn blames_handler(&self) -> bool {
        !matches!(self, Self::Status(400 | 401 | 403 | 409 | 413))
    }
}

/// Ends of waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection with its handshake.
    pub connect: Duration,
    /// For the head of an answer.
    pub answer: Duration,
    /// For the next bytes of a body.
    pub stall: Duration,
    /// For the answer to a probe: one small question; who takes longer is of no use.
    pub probe: Duration,
    /// For the answer to a check-in.
    pub check_in: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // A handler that hangs costs a connection and a check-in at most, of the five seconds that a fallback may take.
        Self {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            probe: Duration::from_secs(2),
            check_in: Duration::from_secs(4),
        }
    }
}

/// One question.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Path and query, canonical.
    pub(super) path: &'a str,
    pub(super) headers: HeaderMap,
    /// JSON, if there is any.
    pub(super) body: Option<Vec<u8>>,
    /// How long the head may take, where that is not the usual.
    pub(super) answer_within: Option<Duration>,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, headers: HeaderMap::new(), body: None, answer_within: None }
    }

    pub(super) fn post(path: &'a str, body: Vec<u8>) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path) }
    }
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    stall: Duration,
}

struct Kept {
    authority: String,
    sender: http1::SendRequest<Full<Bytes>>,
}

/// The agent's way out. Requests go one after the other; what has to go on beside them uses a [`Link::another`].
pub struct Link {
    tls: TlsConnector,
    patience: Patience,
    identity: Arc<[(HeaderName, HeaderValue)]>,
    kept: Option<Kept>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Link {
    /// With this identity.
    ///
    /// # Errors
    /// [`IdentityError`]: certificates, key or token are no such thing.
    pub fn new(identity: &Identity, patience: Patience) -> Result<Self, IdentityError> {
        let wrong = |what, why: String| IdentityError { what, why };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| wrong("TLS", error.to_string()))?
            .with_root_certificates(roots(identity.trust.as_deref())?);
        let mut tls = match &identity.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).map_err(|why| wrong("certificate", why))?;
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("key", error.to_string()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong("certificate", error.to_string()))?
            }
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut headers = vec![(
            USER_AGENT,
            HeaderValue::from_static(concat!("waypost-agent/", env!("CARGO_PKG_VERSION"))),
        )];
        let value = |what, text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| wrong(what, "has characters that no header may have".to_owned()))
        };
        if identity.certificate.is_none() {
            headers.push((HeaderName::from_static(AGENT_HEADER), value("id", &identity.id)?));
        }
        if let Some(token) = &identity.token {
            let mut bearer = value("token", &format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            headers.push((AUTHORIZATION, bearer));
        }
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)), patience, identity: headers.into(), kept: None })
    }

    /// How long it waits for others.
    pub(super) const fn patience(&self) -> &Patience {
        &self.patience
    }

    /// One more with the same settings and a connection of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            tls: self.tls.clone(),
            patience: self.patience,
            identity: Arc::clone(&self.identity),
            kept: None,
        }
    }

    /// Closes the connection that is kept.
    pub fn close(&mut self) {
        self.kept = None;
    }

    /// Asks `authority` (`host:port`), on the connection of before where it is still good.
    ///
    /// # Errors
    /// [`TalkError`]; any status is an answer.
    pub(super) async fn ask(&mut self, authority: &str, ask: Ask<'_>) -> Result<Answer, TalkError> {
        if let Some(mut kept) =
            self.kept.take().filter(|kept| kept.authority == authority && !kept.sender.is_closed())
        {
            match self.send(&mut kept.sender, authority, &ask).await {
                Ok(answer) => {
                    self.kept = Some(kept);
                    return Ok(answer);
                }
                // Closed while it was idle: that says nothing about the handler.
                Err(TalkError::Broke(_)) if kept.sender.is_closed() => {}
                Err(error) => return Err(error),
            }
        }
        let mut sender = self.connect(authority).await?;
        let answer = self.send(&mut sender, authority, &ask).await?;
        self.kept = Some(Kept { authority: authority.to_owned(), sender });
        Ok(answer)
    }

    /// As [`Link::ask`], and how long the answer took on a connection that was there before.
    pub(super) async fn ask_timed(
        &mut self,
        authority: &str,
        ask: Ask<'_>,
    ) -> Result<(Answer, Duration), TalkError> {
        let mut sender = self.connect(authority).await?;
        let began = Instant::now();
        let answer = self.send(&mut sender, authority, &ask).await?;
        let took = began.elapsed();
        self.kept = Some(Kept { authority: authority.to_owned(), sender });
        Ok((answer, took))
    }

    async fn connect(&self, authority: &str) -> Result<http1::SendRequest<Full<Bytes>>, TalkError> {
        let stream = self.open(authority).await?;
        let made = http1::Builder::new()
            .max_buf_size(AGENT_BUFFER_BYTES.max(UPSTREAM_HEAD_BYTES))
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = made.map_err(|error| TalkError::Broke(error.to_string()))?;
        // Ends with its sender, or with the other side.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The request that turns a connection into a WebSocket (RFC 6455 §4.1).
    pub(super) fn upgrade(&self, authority: &str, path: &str) -> Result<Request<()>, TalkError> {
        let mut request = Request::builder()
            .uri(format!("wss://{authority}{path}"))
            .header(HOST, authority)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", generate_key());
        for (name, value) in self.identity.iter() {
            request = request.header(name, value);
        }
        request.body(()).map_err(|error| TalkError::NotUnderstood(error.to_string()))
    }

    /// A TLS connection.
    pub(super) async fn open(&self, authority: &str) -> Result<TlsStream<TcpStream>, TalkError> {
        let opened = timeout(self.patience.connect, self.shake_hands(authority)).await;
        opened.unwrap_or(Err(TalkError::TimedOut("connection")))
    }

    async fn shake_hands(&self, authority: &str) -> Result<TlsStream<TcpStream>, TalkError> {
        let unreachable = |error: std::io::Error| TalkError::Unreachable(error.to_string());
        let (host, _) =
            authority.rsplit_once(':').ok_or_else(|| TalkError::Unreachable("it has no port".to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| TalkError::Unreachable(error.to_string()))?;
        let tcp = TcpStream::connect(authority).await.map_err(unreachable)?;
        drop(tcp.set_nodelay(true));
        self.tls.connect(name, tcp).await.map_err(unreachable)
    }

    async fn send(
        &self,
        sender: &mut http1::SendRequest<Full<Bytes>>,
        authority: &str,
        ask: &Ask<'_>,
    ) -> Result<Answer, TalkError> {
        let not_asked = |error: http::Error| TalkError::NotUnderstood(error.to_string());
        let mut request = Request::builder().method(ask.method.clone()).uri(ask.path).header(HOST, authority);
        for (name, value) in self.identity.iter() {
            request = request.header(name, value);
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if ask.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(ask.body.clone().unwrap_or_default()));
        let request = request.body(body).map_err(not_asked)?;
        let within = ask.answer_within.unwrap_or(self.patience.answer);
        let exchange = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let answer = timeout(within, exchange).await.map_err(|_| TalkError::TimedOut("answer"))?;
        let (head, body) = answer.map_err(|error| TalkError::Broke(error.to_string()))?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body, stall: self.patience.stall })
    }
}

impl Answer {
    /// The next bytes; `None` at the end that was announced.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, TalkError> {
        loop {
            let frame = timeout(self.stall, self.body.frame()).await;
            match frame.map_err(|_| TalkError::TimedOut("further bytes"))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(TalkError::Broke(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body of a 200, up to `most` bytes.
    pub(super) async fn whole(mut self, most: usize) -> Result<Vec<u8>, TalkError> {
        if self.status != StatusCode::OK {
            return Err(TalkError::Status(self.status.as_u16()));
        }
        self.read(most).await
    }

    /// The whole body whatever the status, up to `most` bytes.
    pub(super) async fn read(&mut self, most: usize) -> Result<Vec<u8>, TalkError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.next().await? {
            if body.len() + bytes.len() > most {
                return Err(TalkError::TooLarge(most));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }
}

fn roots(pem: Option<&[u8]>) -> Result<RootCertStore, IdentityError> {
    let wrong = |why: String| IdentityError { what: "ca", why };
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for certificate in certificates(pem).map_err(wrong)? {
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(wrong("the machine has no root certificates; name your own".to_owned()));
            }
        }
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(all) }
}
