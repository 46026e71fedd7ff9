//! The way to the collector: one connection, kept as long as it works.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of an answer: it is empty, or says in a few words what was wrong.
const ANSWER_BYTES: usize = 64 << 10;

/// Why traces cannot be delivered at all. All of these are configuration.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// Not an http or https URL with a host.
    #[error("`{0}` is no endpoint for traces")]
    Endpoint(String),
    /// No authority in the file, or a damaged one.
    #[error("the authorities for the endpoint of traces cannot be used: {0}")]
    Authorities(String),
}

/// A collector.
pub(super) struct Collector {
    host: String,
    port: u16,
    authority: String,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    line: Option<SendRequest<Full<Bytes>>>,
}

impl Collector {
    pub(super) fn new(endpoint: &str, ca: Option<&[u8]>) -> Result<Self, OtlpError> {
        let wrong = || OtlpError::Endpoint(endpoint.to_owned());
        let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
        let (Some(authority), Some(scheme)) = (uri.authority(), uri.scheme_str()) else {
            return Err(wrong());
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match scheme {
            "http" => None,
            "https" => {
                let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
                Some((connector(ca)?, name))
            }
            _ => return Err(wrong()),
        };
        // The ports that OTLP over HTTP has by itself, with TLS and without, are those of HTTP: an endpoint says 4318.
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let path = format!("{}/v1/traces", uri.path().trim_end_matches('/'));
        Ok(Self { host, port, authority: authority.to_string(), path, tls, line: None })
    }

    /// As the log names it.
    pub(super) fn name(&self) -> &str {
        &self.authority
    }

    /// Forgets the connection.
    pub(super) fn hang_up(&mut self) {
        self.line = None;
    }

    /// Delivers a body, or says why not.
    pub(super) async fn post(&mut self, body: Vec<u8>) -> Result<(), String> {
        let mut line = match self.line.take().filter(|line| !line.is_closed()) {
            Some(line) => line,
            None => self.connect().await?,
        };
        let request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        line.ready().await.map_err(|error| error.to_string())?;
        let response = line.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        // Read to its end, or the connection is of no more use.
        let read = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        if read.is_ok() {
            self.line = Some(line);
        }
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|it| it.to_string())?;
        // A batch is one write, which waits for nothing.
        tcp.set_nodelay(true).map_err(|it| it.to_string())?;
        match &self.tls {
            None => greet(tcp).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await.map_err(|it| it.to_string())?;
                greet(stream).await
            }
        }
    }
}

async fn greet<T>(stream: T) -> Result<SendRequest<Full<Bytes>>, String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (line, connection) = handshake(TokioIo::new(stream)).await.map_err(|it| it.to_string())?;
    // Ends when its other half is dropped, or the collector hangs up.
    tokio::spawn(connection);
    Ok(line)
}

fn connector(ca: Option<&[u8]>) -> Result<TlsConnector, OtlpError> {
    let wrong = |why: &dyn std::fmt::Display| OtlpError::Authorities(why.to_string());
    let mut roots = RootCertStore::empty();
    match ca {
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
    }
    if roots.is_empty() {
        return Err(wrong(&"there is none"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_where_the_signal_is_added_to() {
        let of = |endpoint: &str| {
            let collector = Collector::new(endpoint, None).unwrap();
            (collector.host, collector.port, collector.authority, collector.path)
        };
        let host = "collector.example".to_owned();
        let plain = (host.clone(), 4318, format!("{host}:4318"), "/v1/traces".to_owned());
        assert_eq!(of("http://collector.example:4318"), plain);
        assert_eq!(of("http://collector.example:4318/"), plain);
        assert_eq!(of("http://collector.example/tenant/a").3, "/tenant/a/v1/traces");
        assert_eq!(of("http://[::1]:4318").0, "::1");
        for wrong in ["", "collector:4318", "ftp://collector", "/v1/traces"] {
            assert!(matches!(Collector::new(wrong, None), Err(OtlpError::Endpoint(_))), "{wrong}");
        }
        assert!(matches!(
            Collector::new("https://collector.example", Some(b"nothing")),
            Err(OtlpError::Authorities(_))
        ));
    }
}
