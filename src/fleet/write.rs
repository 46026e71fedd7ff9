//! What a fleet writes: the sitelist of one agent, and `states.toml`.

use std::collections::BTreeMap;

use super::compiled::Fleet;
use super::model::{Handler, State};
use super::order::Ordered;
use super::sitelist::{Protocol, Role, Selection, Site, Sitelist};
use crate::base::limits::{SITELIST_HANDLERS, SITELIST_WRITTEN_BYTES, SITES};

/// What a site needs beside its names: the longest one without any is 420 bytes.
const SITE_BYTES: usize = 450;

/// How many of an agent's handlers its sitelist has: the first ones, as far as it can be read again.
pub(super) fn fitting(fleet: &Fleet, ordered: &Ordered) -> usize {
    let mut bytes: usize =
        fleet.repositories.iter().map(|it| SITE_BYTES + it.server.len() + it.path.len()).sum();
    let mut sites = fleet.repositories.len();
    let fits = |handler: Option<&Handler>| {
        let Some(handler) = handler else { return true };
        let names = handler.name.len() * 2 + handler.internal.len() + 256;
        let paths: usize = handler.repositories.iter().map(|path| path.len() + handler.name.len()).sum();
        bytes += (1 + handler.repositories.len()) * (SITE_BYTES + names) + paths;
        sites += 1 + handler.repositories.len();
        bytes <= SITELIST_WRITTEN_BYTES && sites <= SITES
    };
    let placed = ordered.placed.iter().take(SITELIST_HANDLERS);
    placed.map(|placed| fleet.handlers.handler(placed.handler)).map(fits).take_while(|fits| *fits).count()
}

/// The sitelist: handlers for check-ins, then their repositories in the same order, then other repositories, and the
/// last resort at the end.
pub(super) fn sitelist(fleet: &Fleet, ordered: &Ordered, selection: Selection, version: u64) -> Sitelist {
    let fitting = fitting(fleet, ordered);
    let placed = ordered.placed.get(..fitting).unwrap_or_default();
    let handlers = || placed.iter().filter_map(|it| Some((it, fleet.handlers.handler(it.handler)?)));
    let mut sites = Vec::new();
    for (placed, handler) in handlers() {
        let group = placed.group.and_then(|group| fleet.handlers.groups().get(group));
        sites.push(Site {
            protocol: Protocol::Spipe,
            role: Role::Master,
            order: Some(placed.tier),
            server_name: Some(handler.name.clone()),
            server_ip: handler.ip.map(|ip| std::net::SocketAddr::new(ip, handler.port).to_string()),
            group: group.map(|group| group.name.clone()),
            ..site(handler, handler.name.clone(), handler.repositories.first())
        });
    }
    let mut last = placed.last().map_or(0, |placed| placed.tier);
    // Equals stay equals: the first repositories of one tier, then their second ones.
    for tier in placed.chunk_by(|one, two| one.tier == two.tier) {
        let handlers: Vec<&Handler> =
            tier.iter().filter_map(|placed| fleet.handlers.handler(placed.handler)).collect();
        let most = handlers.iter().map(|handler| handler.repositories.len()).max().unwrap_or(0);
        for number in 0..most {
            last += 1;
            for handler in &handlers {
                let Some(path) = handler.repositories.get(number) else { continue };
                let name = match handler.repositories.len() {
                    1 => handler.name.clone(),
                    _ => format!("{}/{path}", handler.name),
                };
                sites.push(Site {
                    protocol: Protocol::Http,
                    role: Role::Repository,
                    order: Some(last),
                    ..site(handler, name, Some(path))
                });
            }
        }
    }
    for repository in repositories(fleet) {
        last += 1;
        sites.push(Site {
            protocol: Protocol::Http,
            role: if repository.fallback { Role::Fallback } else { Role::Repository },
            name: repository.name.clone(),
            order: Some(last),
            enabled: true,
            server: repository.server.clone(),
            secure_port: port(&repository.server).filter(|_| repository.secure),
            relative_path: repository.path.clone(),
            ..Site::default()
        });
    }
    Sitelist {
        global_version: version.to_string(),
        local_version: version.to_string(),
        kind: "Client".to_owned(),
        name: "SomeGUID".to_owned(),
        selection: Some(selection),
        sites,
        ..Sitelist::default()
    }
}

/// The repositories beside the handlers, the last resort last.
pub(super) fn repositories(fleet: &Fleet) -> impl Iterator<Item = &super::model::Repository> {
    let (last, first): (Vec<_>, Vec<_>) = fleet.repositories.iter().partition(|it| it.fallback);
    first.into_iter().chain(last)
}

fn site(handler: &Handler, name: String, path: Option<&String>) -> Site {
    Site {
        name,
        enabled: true,
        server: handler.internal.clone(),
        secure_port: Some(handler.port),
        relative_path: path.cloned().unwrap_or_default(),
        external: handler.external.clone(),
        state: Some(handler.state),
        ..Site::default()
    }
}

fn port(server: &str) -> Option<u16> {
    server.rsplit_once(':')?.1.parse().ok()
}

/// `states.toml`: the handlers that are not as `fleet.toml` says.
pub(super) fn states(states: &BTreeMap<String, State>) -> String {
    let mut text = String::from(
        "# Written by `waypost handlers drain` and `resume`; wins over the states in fleet.toml.\n",
    );
    for (name, state) in states {
        // Names are checked: nothing in them has to be escaped.
        text += &format!("\n[[handler]]\nname = \"{name}\"\nstate = \"{}\"\n", state.as_str());
    }
    text
}
