//! A caching proxy as one would write it with Pingora: everything in its memory cache, one fetch for many, readers follow
//! it. `pingora-peer LISTEN ORIGIN MEMORY_MIB CERT KEY`.

use std::time::Duration;

use async_trait::async_trait;
use pingora_cache::cache_control::CacheControl;
use pingora_cache::eviction::simple_lru::Manager;
use pingora_cache::filters::resp_cacheable;
use pingora_cache::lock::{CacheKeyLockImpl, CacheLock};
use pingora_cache::{CacheKey, CacheMetaDefaults, MemCache, RespCacheable};
use pingora_core::Result;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// Fresh for a day, whatever the origin forgets to say.
static FRESHNESS: CacheMetaDefaults = CacheMetaDefaults::new(|_| Some(Duration::from_secs(24 * 3_600)), 60, 3_600);

struct Proxy {
    origin: String,
    store: &'static MemCache,
    eviction: &'static Manager,
    lock: &'static CacheKeyLockImpl,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin.as_str(), false, String::new())))
    }

    fn request_cache_filter(&self, session: &mut Session, (): &mut ()) -> Result<()> {
        session.cache.enable(self.store, Some(self.eviction), None, Some(self.lock), None);
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, (): &mut ()) -> Result<CacheKey> {
        Ok(CacheKey::new(session.req_header().uri.path().as_bytes(), ""))
    }

    fn response_cache_filter(&self, _: &Session, head: &ResponseHeader, (): &mut ()) -> Result<RespCacheable> {
        let control = CacheControl::from_resp_headers(head);
        Ok(resp_cacheable(control.as_ref(), head.clone(), false, &FRESHNESS))
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let mut word = |name: &str| words.next().unwrap_or_else(|| panic!("{name} is missing"));
    let (listen, origin, memory) = (word("LISTEN"), word("ORIGIN"), word("MEMORY_MIB"));
    let (cert, key) = (word("CERT"), word("KEY"));
    let memory: usize = memory.parse().expect("MEMORY_MIB is a number");
    // For as long as the process lives, as Pingora wants them.
    let proxy = Proxy {
        origin,
        store: Box::leak(Box::new(MemCache::new())),
        eviction: Box::leak(Box::new(Manager::new(memory << 20))),
        lock: Box::leak(CacheLock::new_boxed(Duration::from_secs(3_600))),
    };
    let mut server = Server::new_with_opt_and_conf(None, ServerConf { threads: 2, ..ServerConf::default() });
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, proxy);
    let mut tls = TlsSettings::intermediate(&cert, &key).expect("the certificate can be served");
    tls.enable_h2();
    service.add_tls_with_settings(&listen, None, tls);
    server.add_service(service);
    server.run_forever();
}
