//! Writes a sitelist: always the same bytes for the same list, and nothing that [`super::parse`] would not read again.

use super::{EXTENSION, Extra, NAMESPACE, Protocol, Site, Sitelist};
use crate::fleet::xml::{escape_into, render_attributes, render_element};

/// The file.
pub fn render(list: &Sitelist) -> String {
    let mut out = String::with_capacity(512 + 700 * list.sites.len());
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ns:SiteLists");
    attribute("xmlns:ns", NAMESPACE, &mut out);
    attribute("xmlns:wp", EXTENSION, &mut out);
    attribute("GlobalVersion", &list.global_version, &mut out);
    attribute("LocalVersion", &list.local_version, &mut out);
    attribute("Type", &list.kind, &mut out);
    render_attributes(&list.extra.attributes, &mut out);
    out.push_str(">\n  <SiteList Default=\"1\"");
    attribute("Name", &list.name, &mut out);
    if let Some(selection) = list.selection {
        attribute("wp:selection", selection.as_str(), &mut out);
    }
    render_attributes(&list.list_extra.attributes, &mut out);
    out.push_str(">\n");
    for site in &list.sites {
        render_site(site, &mut out);
    }
    elements("    ", &list.list_extra, &mut out);
    out.push_str("  </SiteList>\n");
    elements("  ", &list.extra, &mut out);
    out.push_str("</ns:SiteLists>\n");
    out
}

fn render_site(site: &Site, out: &mut String) {
    let element = element_name(site.protocol);
    out.push_str("    <");
    out.push_str(element);
    attribute("Type", site.role.as_str(), out);
    attribute("Name", &site.name, out);
    if let Some(order) = site.order {
        attribute("Order", &order.to_string(), out);
    }
    attribute("Server", &site.server, out);
    for (name, value) in
        [("ServerName", &site.server_name), ("ServerIP", &site.server_ip), ("Version", &site.version)]
    {
        optional(name, value.as_deref(), out);
    }
    if let Some(port) = site.secure_port {
        attribute("SecurePort", &port.to_string(), out);
    }
    attribute("Enabled", if site.enabled { "1" } else { "0" }, out);
    attribute("Local", if site.local { "1" } else { "0" }, out);
    optional("wp:external", site.external.as_deref(), out);
    optional("wp:group", site.group.as_deref(), out);
    optional("wp:state", site.state.map(super::State::as_str), out);
    render_attributes(&site.extra.attributes, out);
    out.push_str(">\n      <RelativePath>");
    escape_into(&site.relative_path, out);
    // Agents of this kind want to find these; nothing is ever in them.
    out.push_str(
        "</RelativePath><UseAuth>0</UseAuth><UserName></UserName><Password Encrypted=\"0\"></Password>\n",
    );
    elements("      ", &site.extra, out);
    out.push_str("    </");
    out.push_str(element);
    out.push_str(">\n");
}

const fn element_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Spipe => "SpipeSite",
        Protocol::Http => "HttpSite",
        Protocol::Ftp => "FtpSite",
        Protocol::Unc => "UNCSite",
        Protocol::Local => "LocalSite",
    }
}

fn attribute(name: &str, value: &str, out: &mut String) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    escape_into(value, out);
    out.push('"');
}

fn optional(name: &str, value: Option<&str>, out: &mut String) {
    if let Some(value) = value {
        attribute(name, value, out);
    }
}

fn elements(indent: &str, extra: &Extra, out: &mut String) {
    for element in &extra.elements {
        out.push_str(indent);
        render_element(element, out);
        out.push('\n');
    }
}
