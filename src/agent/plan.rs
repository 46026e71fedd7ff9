//! What an update consists of: which of the listed files are fetched, and which stay. Pure.
//!
//! Of a folder with DAT files the increments from what is installed to what is offered are taken where they are there
//! and less than the full file; then the full file of before stays, with the increments since. Everything else that is
//! listed in the folder comes as it is.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::names::{FileName, HostileName, collide};
use crate::base::digest::Digest;
use crate::base::limits::DELTAS;
use crate::repository::expectation::Expectation;
use crate::repository::listing::{Kind, Listing};

/// A file that is installed, and proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name.
    pub name: FileName,
    /// Its bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// What is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the catalogue, for people and for check-ins.
    pub version: String,
    /// What versions are compared by, where the catalogue has such a thing.
    pub order: Option<u64>,
    /// The DAT version, in a folder that has one.
    pub dat: Option<u64>,
    /// All files, by name.
    pub files: Vec<File>,
}

/// A file of the new generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its path below the repository, canonical.
    pub path: String,
    /// Its name here.
    pub name: FileName,
    /// What it must be; it has a digest.
    pub expectation: Expectation,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The version that it leads to.
    pub version: String,
    /// What versions are compared by.
    pub order: Option<u64>,
    /// The DAT version that it leads to.
    pub dat: Option<u64>,
    /// The files of the new generation; those that are installed with these digests are not fetched.
    pub wanted: Vec<Wanted>,
    /// Installed files that stay although the catalogue does not list them any more: what increments build upon.
    pub kept: Vec<File>,
    /// Whether increments are taken in place of the full file.
    pub by_increments: bool,
}

/// Why a catalogue leads to no update. The publisher's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A name that no file may have.
    #[error(transparent)]
    Name(#[from] HostileName),
    /// Two names that cannot be side by side.
    #[error("`{0}` cannot lie beside another listed file")]
    Collision(FileName),
    /// Nothing would prove the file.
    #[error("nothing proves `{0}`: it is listed without a digest")]
    Unproven(FileName),
    /// What is offered is older than what is installed.
    #[error("version {offered} is offered, and {installed} is installed")]
    Older {
        /// The catalogue's.
        offered: String,
        /// Ours.
        installed: String,
    },
    /// The catalogue lists nothing for the folder.
    #[error("the catalogue lists no file in that folder")]
    Empty,
}

/// What the catalogue offers.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Everything that is listed.
    pub listing: &'a Listing,
    /// The folder that is mirrored: canonical, empty or with its slash.
    pub folder: &'a str,
    /// The version where the listing has none of its own.
    pub version: &'a str,
    /// The DAT version of the folder's pointer, if it has one.
    pub dat: Option<u64>,
}

/// What to fetch and what to keep, from what is offered and what is installed. With `increments` off, the full file:
/// for when an increment turned out not to be there.
///
/// # Errors
/// [`PlanError`]: leave everything as it is.
pub fn plan_update(offer: Offer<'_>, installed: &Manifest, increments: bool) -> Result<Plan, PlanError> {
    let version = offer.listing.version.as_ref();
    let order = version.map(|version| version.order);
    let text = version.map_or(offer.version, |version| &version.text).to_owned();
    if order.zip(installed.order).is_some_and(|(offered, installed)| offered < installed) {
        return Err(PlanError::Older { offered: text, installed: installed.version.clone() });
    }
    let (mut plain, mut fulls, mut deltas) = (Vec::new(), Vec::new(), Vec::new());
    for (_, listed) in offer.listing.files() {
        let Some(below) = listed.path.strip_prefix(offer.folder) else { continue };
        let name = FileName::of_path(below)?;
        if listed.expectation.proof().is_none() {
            // What may be missing, and catalogue files that were read already, are no loss.
            if listed.optional || listed.kind != Kind::File {
                continue;
            }
            return Err(PlanError::Unproven(name));
        }
        let file = Wanted { path: listed.path.to_string(), name, expectation: listed.expectation.clone() };
        match (full_version(&file.name), increment(&file.name)) {
            _ if listed.kind == Kind::Delta => deltas.push(file),
            (Some(version), _) if offer.dat.is_some() => fulls.push((version, file)),
            _ => plain.push(file),
        }
    }
    let mut plan =
        Plan { version: text, order, dat: offer.dat, wanted: plain, kept: Vec::new(), by_increments: false };
    if let Some(dat) = offer.dat {
        take_dat(&mut plan, dat, fulls, deltas, installed, increments);
    }
    plan.wanted.sort_by(|a, b| a.name.cmp(&b.name));
    if plan.wanted.is_empty() && plan.kept.is_empty() {
        return Err(PlanError::Empty);
    }
    let names = plan.wanted.iter().map(|it| &it.name).chain(plan.kept.iter().map(|it| &it.name));
    match collide(names) {
        Some(name) => Err(PlanError::Collision(name.clone())),
        None => Ok(plan),
    }
}

/// Adds the way to DAT version `dat`: what is here already, increments, or the full file.
fn take_dat(
    plan: &mut Plan,
    dat: u64,
    mut fulls: Vec<(u64, Wanted)>,
    deltas: Vec<Wanted>,
    installed: &Manifest,
    increments: bool,
) {
    fulls.retain(|(version, _)| *version == dat);
    let full = fulls.pop().map(|(_, file)| file);
    let base = || {
        let of_dat = |file: &&File| full_version(&file.name).is_some() || increment(&file.name).is_some();
        installed.files.iter().filter(of_dat).cloned().collect::<Vec<File>>()
    };
    if let Some(from) = installed.dat.filter(|_| increments && !base().is_empty()) {
        let limit = full.as_ref().and_then(|full| full.expectation.length);
        let chain = if from == dat { Some(Vec::new()) } else { chain(deltas, from, dat, limit) };
        if let Some(chain) = chain {
            plan.kept = base();
            plan.kept.retain(|kept| chain.iter().all(|new| new.name != kept.name));
            plan.by_increments = !chain.is_empty();
            plan.wanted.extend(chain);
            return;
        }
    }
    plan.wanted.extend(full);
}

/// The increments that lead from one version to the other, first to last: the fewest, and together less than `limit`.
fn chain(deltas: Vec<Wanted>, from: u64, to: u64, limit: Option<u64>) -> Option<Vec<Wanted>> {
    let mut steps: HashMap<u64, Vec<(u64, Wanted)>> = HashMap::new();
    for file in deltas {
        // Forward only, so that there is no way round in circles.
        if let Some((begin, end)) = increment(&file.name).filter(|(begin, end)| begin < end && *end <= to) {
            steps.entry(begin).or_default().push((end, file));
        }
    }
    let mut way = Vec::new();
    let mut bytes = 0_u64;
    let mut at = from;
    while at != to {
        // The longest step each time: increments that skip versions are there to be taken.
        let (end, file) = steps.remove(&at)?.into_iter().max_by_key(|(end, _)| *end)?;
        bytes = bytes.saturating_add(file.expectation.length.unwrap_or_default());
        at = end;
        way.push(file);
        if way.len() as u64 > DELTAS || limit.is_some_and(|limit| bytes >= limit) {
            return None;
        }
    }
    Some(way)
}

/// The DAT version of a full file, `avvdat-11230.zip`.
fn full_version(name: &FileName) -> Option<u64> {
    let file = name.as_str().rsplit('/').next()?.to_ascii_lowercase();
    digits(file.strip_prefix("avvdat-")?.strip_suffix(".zip")?)
}

/// From where to where an increment leads: two versions of equally many digits, `1122911230.gem`.
fn increment(name: &FileName) -> Option<(u64, u64)> {
    let file = name.as_str().rsplit('/').next()?;
    let (stem, extension) = file.rsplit_once('.')?;
    let is_increment = ["gem", "upd"].iter().any(|it| extension.eq_ignore_ascii_case(it));
    let (begin, end) = stem.split_at_checked(stem.len() / 2).filter(|_| stem.len().is_multiple_of(2))?;
    digits(begin).zip(digits(end)).filter(|_| is_increment)
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::listing::{Listed, Version};

    fn listing(version: u64, files: &[(&str, u64)]) -> Listing {
        let mut listing = Listing::default();
        listing.version = Some(Version { text: version.to_string(), order: version });
        for (path, length) in files {
            let expectation = Expectation::exactly(*length, Digest::of(path.as_bytes()));
            let kind = if path.ends_with(".gem") { Kind::Delta } else { Kind::File };
            listing.add(path, Listed { path: (*path).into(), expectation, kind, optional: false }).unwrap();
        }
        listing
    }

    fn offer(listing: &Listing, dat: Option<u64>) -> Offer<'_> {
        Offer { listing, folder: "D/", version: "x", dat }
    }

    fn names(plan: &Plan) -> (Vec<&str>, Vec<&str>) {
        let wanted = plan.wanted.iter().map(|it| it.name.as_str()).collect();
        (wanted, plan.kept.iter().map(|it| it.name.as_str()).collect())
    }

    fn has(version: u64, files: &[&str]) -> Manifest {
        let file = |name: &&str| File {
            name: FileName::try_from((*name).to_owned()).unwrap(),
            length: 1,
            sha256: Digest::of(name.as_bytes()),
        };
        let files = files.iter().map(file).collect();
        Manifest { version: version.to_string(), order: Some(version), dat: Some(version), files }
    }

    const OFFERED: &[(&str, u64)] = &[
        ("D/avvdat-12.zip", 100),
        ("D/avvdat-11.zip", 100),
        ("D/1011.gem", 10),
        ("D/1112.gem", 10),
        ("D/0812.gem", 10),
        ("D/sub/x.bin", 5),
        ("elsewhere/y.bin", 5),
    ];

    #[test]
    fn at_first_the_full_file_of_the_offered_version_is_taken() {
        let listing = listing(12, OFFERED);
        let plan = plan_update(offer(&listing, Some(12)), &Manifest::default(), true).unwrap();
        assert_eq!(names(&plan), (vec!["avvdat-12.zip", "sub/x.bin"], vec![]));
        assert_eq!(
            (&*plan.version, plan.order, plan.dat, plan.by_increments),
            ("12", Some(12), Some(12), false)
        );
    }

    #[test]
    fn increments_are_taken_where_they_lead_from_what_is_installed() {
        let listing = listing(12, OFFERED);
        let plan = |installed: &Manifest, increments| {
            plan_update(offer(&listing, Some(12)), installed, increments).unwrap()
        };
        let installed = has(10, &["avvdat-9.zip", "0910.gem", "sub/x.bin"]);
        let by = plan(&installed, true);
        assert_eq!(names(&by), (vec!["1011.gem", "1112.gem", "sub/x.bin"], vec!["avvdat-9.zip", "0910.gem"]));
        assert!(by.by_increments);
        assert_eq!(names(&plan(&has(8, &["avvdat-8.zip"]), true)).0, ["0812.gem", "sub/x.bin"]);
        for (installed, increments) in
            [(&installed, false), (&has(7, &["avvdat-7.zip"]), true), (&has(10, &[]), true)]
        {
            let by = plan(installed, increments);
            assert_eq!(names(&by), (vec!["avvdat-12.zip", "sub/x.bin"], vec![]), "{installed:?}");
        }
        let current = plan(&has(12, &["avvdat-9.zip", "0912.gem"]), true);
        assert_eq!(names(&current), (vec!["sub/x.bin"], vec!["avvdat-9.zip", "0912.gem"]));
    }

    #[test]
    fn increments_that_are_more_than_the_full_file_are_left() {
        let listing = listing(12, &[("D/avvdat-12.zip", 15), ("D/1011.gem", 10), ("D/1112.gem", 10)]);
        let plan = plan_update(offer(&listing, Some(12)), &has(10, &["avvdat-10.zip"]), true).unwrap();
        assert_eq!(names(&plan), (vec!["avvdat-12.zip"], vec![]));
    }

    #[test]
    fn a_catalogue_that_is_older_hostile_empty_or_unproven_leads_to_nothing() {
        let refuse =
            |listing: &Listing| plan_update(offer(listing, None), &has(12, &["a"]), true).unwrap_err();
        assert!(matches!(refuse(&listing(11, OFFERED)), PlanError::Older { .. }));
        assert!(matches!(refuse(&listing(13, &[("D/nul.txt", 1)])), PlanError::Name(_)));
        assert!(matches!(refuse(&listing(13, &[("D/a/b", 1), ("D/A", 1)])), PlanError::Collision(_)));
        assert_eq!(refuse(&listing(13, &[("E/a", 1)])), PlanError::Empty);
        let mut bare = listing(13, &[]);
        let file = Listed {
            path: "D/a".into(),
            expectation: Expectation::default().of_length(3),
            kind: Kind::File,
            optional: false,
        };
        bare.add("d/a", file.clone()).unwrap();
        assert!(matches!(refuse(&bare), PlanError::Unproven(_)));
        let mut optional = listing(13, &[("D/b", 1)]);
        optional.add("d/a", Listed { optional: true, ..file }).unwrap();
        let plan = plan_update(offer(&optional, None), &Manifest::default(), true).unwrap();
        assert_eq!(names(&plan).0, ["b"]);
    }
}
