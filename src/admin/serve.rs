//! One connection of an operator, and the life of a question on it: host, who asks, deadline, answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::error::{ApiError, Code};
use super::{Admin, LongAnswer, Who};

/// Operators and scrapers at once; more wait in the kernel.
pub(super) const CONNECTIONS: usize = 64;

/// A connection lives no longer, unless it follows something: a stuck tool must not hold its place.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// How long something may be followed on one connection.
const FOLLOW_TIME: Duration = Duration::from_secs(12 * 3_600);

/// From a question's head to the head of its answer. Counting a purge of a million entries takes seconds.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Before a stranger hears that they are one: guessing tokens is slow.
const STRANGER_PAUSE: Duration = Duration::from_millis(200);

/// Bytes of a request head.
const HEAD_BYTES: usize = 16 << 10;

/// Names by which a tool may call the node on its Unix socket, where only local users come.
const LOCAL_NAMES: [&str; 4] = ["localhost", "waypost", "node", "admin"];

/// Where a connection came in, and what is known about the other end.
#[derive(Clone, Debug)]
pub(super) enum Entrance {
    /// By the Unix socket, as this user and group.
    Socket { uid: u32, gid: u32 },
    /// By TLS.
    Tls {
        /// Our own end.
        local: SocketAddr,
        /// The name that was asked for.
        sni: Option<String>,
        /// The names in the certificate that it showed and that we trust.
        certified: Option<Arc<[String]>>,
    },
}

/// Answers questions on `stream` until it ends.
pub(super) async fn serve(admin: Admin, stream: impl AsyncRead + AsyncWrite + Unpin, entrance: Entrance) {
    let follows = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        let (admin, entrance, follows) = (admin.clone(), entrance.clone(), Arc::clone(&follows));
        async move {
            let mut response = answer(&admin, &entrance, request).await;
            if response.extensions_mut().remove::<LongAnswer>().is_some() {
                follows.store(true, Ordering::Relaxed);
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(CONNECTION_TIME / 2).max_header_size(HEAD_BYTES);
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    let ended = match timeout(CONNECTION_TIME, &mut connection).await {
        Err(_) if follows.load(Ordering::Relaxed) => timeout(FOLLOW_TIME, connection).await,
        ended => ended,
    };
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "admin connection");
    }
}

/// One question, from its head to the answer's.
async fn answer(admin: &Admin, entrance: &Entrance, request: Request<Incoming>) -> Response {
    if let Err(error) = check_host(entrance, &request) {
        return error.into_response();
    }
    let who = match identify(admin, entrance, request.headers()) {
        Ok(who) => who,
        Err(error) => {
            sleep(STRANGER_PAUSE).await;
            return error.into_response();
        }
    };
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(who);
    let router = TowerToHyperService::new(admin.0.router.clone());
    match timeout(ANSWER_TIME, router.call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            let message = format!("this took longer than {} s", ANSWER_TIME.as_secs());
            ApiError::new(Code::TimedOut, message, "try again, or with a narrower pattern").into_response()
        }
    }
}

fn identify(admin: &Admin, entrance: &Entrance, headers: &HeaderMap) -> Result<Who, ApiError> {
    let access = admin.0.access.load();
    match entrance {
        Entrance::Socket { uid, gid } => access.of_peer(*uid, *gid),
        // A token that comes beside a certificate is what somebody took the trouble to send.
        Entrance::Tls { certified: Some(names), .. } if !headers.contains_key(AUTHORIZATION) => {
            Ok(access.of_certificate(names))
        }
        Entrance::Tls { .. } => access.of_token(headers),
    }
}

/// The host has to be the one that TLS was about, or our own address: a browser that was led here by another name, as in
/// DNS rebinding, is refused. Scrapers that find their targets by address check the certificate against a name.
fn check_host<B>(entrance: &Entrance, request: &Request<B>) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => None,
    };
    let said = host.as_ref().map(|host| host.host().to_ascii_lowercase()).unwrap_or_default();
    let right = match entrance {
        Entrance::Socket { .. } => LOCAL_NAMES.contains(&said.as_str()),
        Entrance::Tls { sni, local, .. } => {
            let address = said.trim_start_matches('[').trim_end_matches(']');
            let is_ours =
                || address.parse() == Ok(local.ip().to_canonical()) || address.parse() == Ok(local.ip());
            sni.as_ref().is_some_and(|sni| said == *sni) || is_ours()
        }
    };
    let port = host.as_ref().and_then(Authority::port_u16);
    let port_right = match entrance {
        Entrance::Socket { .. } => port.is_none(),
        Entrance::Tls { local, .. } => port.unwrap_or(443) == local.port(),
    };
    if right && port_right {
        return Ok(());
    }
    let help = match entrance {
        Entrance::Socket { .. } => "send `Host: localhost`",
        Entrance::Tls { .. } => "send the name and port that you connect to",
    };
    Err(ApiError::new(Code::Host, "this is not the host you ask for", help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entrance: &Entrance, hosts: &[&str]) -> bool {
        let mut request = Request::builder().uri("/livez");
        for host in hosts {
            request = request.header(HOST, *host);
        }
        check_host(entrance, &request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn the_host_is_the_one_that_was_connected_to() {
        let socket = Entrance::Socket { uid: 0, gid: 0 };
        assert!(check(&socket, &["localhost"]));
        let named = Entrance::Tls {
            local: "10.0.0.1:9443".parse().unwrap(),
            sni: Some("node.example".to_owned()),
            certified: None,
        };
        assert!(check(&named, &["Node.example:9443"]));
        assert!(check(&named, &["10.0.0.1:9443"]), "a pod that is found by its address");
        let address = Entrance::Tls { local: "[::1]:9443".parse().unwrap(), sni: None, certified: None };
        assert!(check(&address, &["[::1]:9443"]));
        for (entrance, hosts) in [
            (&socket, &[][..]),
            (&socket, &["evil.example"]),
            (&socket, &["localhost:80"]),
            (&socket, &["localhost", "localhost"]),
            (&named, &["node.example"]),
            (&named, &["10.0.0.2:9443"]),
            (&named, &["10.0.0.1"]),
            (&named, &["other.example:9443"]),
            (&address, &["[::2]:9443"]),
        ] {
            assert!(!check(entrance, hosts), "{hosts:?}");
        }
    }
}
