//! An HTTP/2 agent over TLS, as far as hyper lets one misbehave.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::{Answer, End};
use super::pki::Authority;

/// One connection; its task ends with it.
#[derive(Debug)]
pub struct Http2 {
    sender: SendRequest<Either<Full<Bytes>, Unended>>,
    authority: String,
    task: JoinHandle<()>,
}

impl Http2 {
    /// Over TLS with SNI `name`, trusting `authority`.
    ///
    /// # Errors
    /// The connection's, the handshakes', or that HTTP/2 was not agreed on.
    pub async fn connect(address: SocketAddr, name: &str, authority: &Authority) -> io::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        let server = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = authority.connector(&["h2"]).connect(server, tcp).await?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("no HTTP/2"));
        }
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(tls)).await.map_err(io::Error::other)?;
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, authority: format!("{name}:{}", address.port()), task })
    }

    /// A request without a body, and its answer.
    ///
    /// # Errors
    /// The stream or the connection ended before a head, or the request cannot be put into words.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
        *request.uri_mut() = format!("https://{}{path}", self.authority).parse().expect("a target");
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            request.headers_mut().append(name, value.parse().expect("a header value"));
        }
        self.send(request).await
    }

    /// Any request that hyper sends, and its answer.
    ///
    /// # Errors
    /// The stream or the connection ended before a head.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        self.exchange(request.map(Either::Left)).await
    }

    /// A request whose body has these bytes and never ends, and its answer.
    ///
    /// # Errors
    /// The stream or the connection ended before a head.
    pub async fn send_unended(&mut self, request: Request<Bytes>) -> Result<Answer, hyper::Error> {
        self.exchange(request.map(|bytes| Either::Right(Unended(Some(bytes))))).await
    }

    async fn exchange(
        &mut self,
        request: Request<Either<Full<Bytes>, Unended>>,
    ) -> Result<Answer, hyper::Error> {
        self.sender.ready().await?;
        let (head, mut body) = self.sender.send_request(request).await?.into_parts();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let (mut bytes, mut end) = (BytesMut::new(), End::Complete);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => {
                    end = End::Reset;
                    break;
                }
            }
        }
        Ok(Answer { status: head.status.as_u16(), headers, body: bytes.freeze(), end })
    }
}

/// A body that never ends.
#[derive(Debug)]
struct Unended(Option<Bytes>);

impl Body for Unended {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}
