//! The floor: hyper and rustls answering from memory, without anything that makes a cache. It runs as a process of its
//! own, this program with `bare` as its first word, so that it is measured like the others.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::origin::body_of;

/// Listens at `address` with the certificate in `dir`, until it is killed.
pub async fn serve(address: SocketAddr, dir: &Path) -> anyhow::Result<()> {
    let chain = CertificateDer::pem_file_iter(dir.join("server.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let bodies = Arc::new(Mutex::new(HashMap::<String, Bytes>::new()));
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, bodies) = (acceptor.clone(), Arc::clone(&bodies));
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let stream = acceptor.accept(stream).await?;
            let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let answers = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let body = body(&bodies, request.uri().path());
                async move {
                    let status = if body.is_some() { 200 } else { 404 };
                    let mut response = http::Response::new(Full::new(body.unwrap_or_default()));
                    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
                    Ok::<_, Infallible>(response)
                }
            });
            let stream = TokioIo::new(stream);
            if two {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server.serve_connection(stream, answers).await?;
            } else {
                hyper::server::conn::http1::Builder::new().serve_connection(stream, answers).await?;
            }
            anyhow::Ok(())
        });
    }
}

fn body(bodies: &Mutex<HashMap<String, Bytes>>, path: &str) -> Option<Bytes> {
    let mut bodies = bodies.lock();
    if let Some(body) = bodies.get(path) {
        return Some(body.clone());
    }
    let body = body_of(path)?;
    bodies.insert(path.to_owned(), body.clone());
    Some(body)
}

/// What the main function calls for `bare ADDRESS DIR`.
pub fn main(mut words: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let address = words.next().context("an address")?.parse()?;
    let dir = words.next().context("a directory")?;
    tokio::runtime::Runtime::new()?.block_on(serve(address, Path::new(&dir)))
}
