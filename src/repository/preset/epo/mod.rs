//! Repositories of ePO and its handlers: `SiteStat.xml` says which catalogue is offered, a `Replica.log` in each
//! folder what is in it. Served from Windows, so that upper and lower case are the same.

mod pointers;
mod replica_log;
mod site_stat;

use std::borrow::Cow;

use super::{Preset, immutable, mutable, names};
use crate::protocol::target::{decode_path, path_of_name};
use crate::repository::expectation::Expectation;
use crate::repository::listing::{CatalogueError, Kind, Listed, Listing};
use crate::repository::rules::Rule;

/// A master, handler or distributed repository, as agents of ePO read it.
#[derive(Debug)]
pub struct Epo;

/// Its name in the configuration.
pub const NAME: &str = "epo";

/// The catalogue files that a folder may have.
pub const CATALOGUES: &[&str] = &["Replica.log", "avvdat.ini", "gdeltaavv.ini"];

/// The DAT version that the catalogue file `path` of `folder` says, if it is the pointer that does.
pub fn dat_version(path: &str, folder: &str, body: &[u8]) -> Option<u64> {
    let file = path.strip_prefix(folder)?;
    if file.eq_ignore_ascii_case("avvdat.ini") { pointers::dat_version(body) } else { None }
}

/// The root, at the base of the repository.
const ROOT: &str = "SiteStat.xml";

/// Names that are replaced under their name, in any folder.
const MUTABLE: [&str; 11] = [
    ROOT,
    "catalog.z",
    "PkgCatalog.z",
    "Replica.log",
    "avvdat.ini",
    "gdeltaavv.ini",
    "oem.ini",
    "V2engdet.mcs",
    "V2enginstall.mcs",
    "engmin.zip",
    "sitelist.xml",
];

/// What belongs to a catalogue beside its root. Not every repository has each.
const BESIDE_ROOT: [&str; 5] = ["Replica.log", "catalog.z", "avvdat.ini", "gdeltaavv.ini", "oem.ini"];

/// What a file is by its name.
fn kind_of(file: &str) -> Kind {
    let is = |name: &&str| file.eq_ignore_ascii_case(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    if CATALOGUES.iter().any(is) {
        Kind::Catalogue
    } else if ["catalog.z", "oem.ini"].iter().any(is) {
        Kind::Companion
    } else if ["gem", "upd"].iter().any(|it| extension.eq_ignore_ascii_case(it)) {
        Kind::Delta
    } else {
        Kind::File
    }
}

impl Preset for Epo {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Only a name with a version in it promises anything: `FramePkg.exe` and `extra.dat` are replaced under theirs,
    /// and where a `Replica.log` lists a file, its digest tells versions apart better than any name.
    fn rules(&self) -> Vec<Rule> {
        let often = MUTABLE.iter().map(|name| mutable(any_case(name)));
        let never = ["*.gem", "*.upd", "avvdat-*.zip"].map(|name| immutable(any_case(name)));
        often.chain(never).collect()
    }

    fn fold<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if path.contains('%') {
            let name: String = decode_path(path).chars().flat_map(char::to_lowercase).collect();
            return Cow::Owned(path_of_name(&name).unwrap_or_else(|_| path.to_ascii_lowercase()));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(path.to_ascii_lowercase())
        } else {
            Cow::Borrowed(path)
        }
    }

    fn not_offered(&self) -> Option<(&'static str, &'static str)> {
        Some(("text/xml", "<SiteStatus Status=\"Disabled\" CatalogVersion=\"0\"/>\r\n"))
    }

    fn root_of(&self, _path: &str) -> Option<String> {
        Some(ROOT.to_owned())
    }

    fn is_catalogue(&self, path: &str) -> bool {
        let (_, file) = names::split(path);
        MUTABLE.iter().any(|name| file.eq_ignore_ascii_case(name))
    }

    fn read(&self, root: &str, path: &str, body: &[u8], listing: &mut Listing) -> Result<(), CatalogueError> {
        let (folder, file) = names::split(path);
        let is = |name: &str| file.eq_ignore_ascii_case(name);
        if self.fold(path) == self.fold(root) {
            site_stat::read(body, listing)?;
            for name in BESIDE_ROOT {
                self.add(listing, name.to_owned(), Expectation::default(), true)
                    .map_err(CatalogueError::whole)?;
            }
            Ok(())
        } else if is("Replica.log") {
            replica_log::read(self, folder, body, listing)
        } else if is("avvdat.ini") {
            pointers::read_full(self, folder, body, listing)
        } else if is("gdeltaavv.ini") {
            pointers::read_deltas(self, folder, body, listing)
        } else {
            Err(CatalogueError::whole("is not a catalogue file of ePO"))
        }
    }

    fn is_delta(&self, path: &str) -> bool {
        kind_of(path) == Kind::Delta
    }
}

impl Epo {
    /// Lists `path` as what its name says it is.
    fn add(
        &self,
        listing: &mut Listing,
        path: String,
        is: Expectation,
        optional: bool,
    ) -> Result<(), String> {
        let kind = kind_of(names::split(&path).1);
        let name = self.fold(&path).into_owned();
        listing.add(&name, Listed { path: path.into(), expectation: is, kind, optional })
    }
}

/// A pattern for `name` in any case.
fn any_case(name: &str) -> String {
    let mut pattern = String::with_capacity(4 * name.len());
    for c in name.chars() {
        if c.is_ascii_alphabetic() {
            pattern.extend(['[', c.to_ascii_lowercase(), c.to_ascii_uppercase(), ']']);
        } else {
            pattern.push(c);
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::rules::Rules;

    #[test]
    fn all_spellings_of_a_name_are_one() {
        let fold = |path| Epo.fold(path).into_owned();
        assert_eq!(fold("Products/CommonUpdater/AVVDAT.INI"), "products/commonupdater/avvdat.ini");
        assert_eq!(fold("A%20B/%C3%84%2B.zip"), "a%20b/%C3%A4+.zip");
        assert_eq!(fold("%C4%B0"), fold(&fold("%C4%B0")));
        assert!(matches!(Epo.fold("a/b.zip"), Cow::Borrowed("a/b.zip")));
    }

    #[test]
    fn the_root_brings_what_may_stand_beside_it() {
        let body = br#"<SiteStatus Status="Enabled" CatalogVersion="20261121070000"/>"#;
        let mut listing = Listing::default();
        Epo.read(ROOT, "sitestat.XML", body, &mut listing).unwrap();
        assert_eq!(listing.len(), BESIDE_ROOT.len());
        assert!(listing.files().all(|(name, listed)| listed.optional && name == listed.path.to_lowercase()));
        let kind = |name: &str| listing.find(name).unwrap().kind;
        assert_eq!(kind("replica.log"), Kind::Catalogue);
        assert_eq!(kind("avvdat.ini"), Kind::Catalogue);
        assert_eq!(kind("catalog.z"), Kind::Companion);
        assert!(Epo.read(ROOT, "catalog.z", b"", &mut listing).is_err());
    }

    #[test]
    fn names_say_what_is_replaced_and_what_leads_on() {
        for path in ["Current/X/Install/0409/pkgcatalog.Z", "SITESTAT.xml", "v2engdet.mcs", "a/replica.log"] {
            assert!(Epo.is_catalogue(path), "{path}");
        }
        assert!(!Epo.is_catalogue("avvdat-11230.zip") && !Epo.is_catalogue("Replica.log/x"));
        assert!(Epo.is_delta("a/1123011231.GEM") && Epo.is_delta("x.upd") && !Epo.is_delta("gem"));
        assert!(!Epo.is_delta("ä.ge") && !Epo.is_delta("ägem"));
        assert_eq!(Epo.root_of("a/b/c.zip").unwrap(), "SiteStat.xml");
    }

    #[test]
    fn rules_hold_in_any_case_and_folder() {
        let rules = Rules::compile(Epo.rules()).unwrap();
        for path in ["/Software/current/REPLICA.LOG", "/sitestat.xml", "/Software/PKGcatalog.z"] {
            assert!(rules.effective(path).fresh_for.is_some(), "{path}");
        }
        for path in ["/Software/AVVDAT-11230.ZIP", "/x/1.gem", "/x/1.UPD"] {
            assert_eq!(rules.effective(path).immutable, Some(true), "{path}");
        }
        let framework = rules.effective("/Software/Current/EPOAGENT3000/Install/0409/FramePkg.exe");
        assert_eq!((framework.immutable, framework.fresh_for), (None, None));
    }
}
