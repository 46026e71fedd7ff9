//! `waypost sitelist check` and `waypost policy …`: the fleet's documents without a node.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use serde_json::json;

use super::args::GlobalArgs;
use super::exit::{Exit, Failure};
use super::operate_args::Output;
use super::policy_args::{
    AgentArgs, PolicyCheckArgs, PolicyCommand, PolicyImportArgs, PolicyResolveArgs, SitelistCheckArgs,
    SitelistCommand,
};
use super::print::{self, Table};
use super::talk;
use crate::base::limits::{DOCUMENTS, EXPORT_BYTES, SITELIST_BYTES};
use crate::fleet::sitelist::{self, Site, Sitelist};
use crate::fleet::{self, Compiled, Documents, Explanation, Facts, import};

/// `waypost sitelist …`
pub(super) fn sitelist(command: &SitelistCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        SitelistCommand::Check(args) => check_sitelist(args, global),
        SitelistCommand::Show(_) => Ok(Exit::Done),
    }
}

/// `waypost policy …`
pub(super) fn policy(command: &PolicyCommand, global: &GlobalArgs) -> anyhow::Result<Exit> {
    match command {
        PolicyCommand::Check(args) => check(args, global),
        PolicyCommand::Resolve(args) => match &args.dir {
            Some(dir) => resolve(dir, args, global),
            None => Ok(Exit::Done),
        },
        PolicyCommand::Ls(_) | PolicyCommand::Show(_) => Ok(Exit::Done),
        PolicyCommand::Import(args) => import_rules(args, global),
    }
}

fn check_sitelist(args: &SitelistCheckArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let name = args.file.display().to_string();
    let bytes = read(&args.file, SITELIST_BYTES)?;
    let checked = sitelist::check(&bytes);
    let (notes, error) = match &checked {
        Ok((_, notes)) => (notes.as_slice(), None),
        Err(error) => (&[][..], Some(error.to_string())),
    };
    let valid = error.is_none() && (notes.is_empty() || !args.deny_warnings);
    if global.wants_json() {
        let sites: Vec<_> = checked.iter().flat_map(|(list, _)| list.ordered()).map(site).collect();
        print::answer(
            global,
            &json!({ "schema": 1, "file": name, "valid": valid, "error": error, "warnings": notes, "sites": sites }),
            String::new,
        )?;
    } else {
        if let Some(error) = &error {
            talk::say(&format!("{name}: {error}"));
        }
        for note in notes {
            talk::say(&format!("{name}: warning: {note}"));
        }
        if let (Ok((list, _)), true) = (&checked, valid && !global.quiet) {
            talk::data(&table(list))?;
        }
    }
    Ok(if valid { Exit::Done } else { Exit::Unhealthy })
}

fn site(site: &Site) -> serde_json::Value {
    json!({
        "order": site.order, "name": site.name, "protocol": site.protocol.as_str(), "role": site.role.as_str(),
        "server": site.server, "path": site.relative_path, "external": site.external, "group": site.group,
        "state": site.state,
    })
}

fn table(list: &Sitelist) -> String {
    let mut table = Table::new(&["ORDER", "NAME", "KIND", "ROLE", "SERVER", "PATH"], &[0]);
    for site in list.ordered() {
        table.row(vec![
            site.order.map_or_else(|| "-".to_owned(), |order| order.to_string()),
            site.name.clone(),
            site.protocol.as_str().to_owned(),
            site.role.as_str().to_owned(),
            site.server.clone(),
            site.relative_path.clone(),
        ]);
    }
    table.render()
}

fn check(args: &PolicyCheckArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let compiled = compile(&args.dir)?;
    let valid = compiled.fleet.is_some() && (compiled.warnings() == 0 || !args.deny_warnings);
    let (errors, warnings) = (compiled.errors(), compiled.warnings());
    if global.wants_json() {
        let answer = json!({
            "schema": 1,
            "directory": args.dir.display().to_string(),
            "valid": valid,
            "errors": errors,
            "warnings": warnings,
            "diagnostics": compiled.problems,
        });
        print::answer(global, &answer, String::new)?;
    } else {
        show(&compiled);
        if let (Some(fleet), true) = (&compiled.fleet, valid && !global.quiet) {
            talk::data(&format!(
                "{}: {}, {}, {} and {} compile\n",
                args.dir.display(),
                many(fleet.handlers().len(), "handler"),
                many(fleet.groups().len(), "group"),
                many(fleet.agents(), "listed agent"),
                many(fleet.all_policies().len(), "policy"),
            ))?;
        }
    }
    Ok(if valid { Exit::Done } else { Exit::ConfigInvalid })
}

fn many(number: usize, noun: &str) -> String {
    print::many(u64::try_from(number).unwrap_or(u64::MAX), noun)
}

/// Shows all problems, and how many there are behind them.
pub(super) fn show(compiled: &Compiled) {
    if compiled.problems.is_empty() {
        return;
    }
    talk::say(&compiled.render(true));
    let counts = [(compiled.errors(), "error"), (compiled.warnings(), "warning")];
    let counted: Vec<String> =
        counts.iter().filter(|(number, _)| *number > 0).map(|(number, noun)| many(*number, noun)).collect();
    talk::say(&counted.join(", "));
}

fn resolve(dir: &Path, args: &PolicyResolveArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let compiled = compile(dir)?;
    let Some(fleet) = &compiled.fleet else {
        show(&compiled);
        return Ok(Exit::ConfigInvalid);
    };
    show_policies(&fleet.explain(&facts(&args.agent)), global)?;
    Ok(Exit::Done)
}

fn facts(args: &AgentArgs) -> Facts {
    Facts {
        id: args.id.clone(),
        tree: args.tree.clone(),
        tags: args.tags.clone(),
        addresses: args.addresses.clone(),
    }
}

/// The policies of an agent, or the whole reasoning.
pub(super) fn show_policies(explained: &Explanation, global: &GlobalArgs) -> anyhow::Result<()> {
    print::answer(global, explained, || match global.format() {
        Output::Wide => print::lines(&explained.to_string()),
        _ => print::lines(explained.policies_text().trim_start()),
    })
}

fn import_rules(args: &PolicyImportArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let bytes = read(&args.file, EXPORT_BYTES)?;
    let imported = import::import(&bytes)
        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", args.file.display()), ""))?;
    let answer = json!({
        "schema": 1, "rules": imported.rules, "not_understood": imported.left, "report": imported.report,
        "toml": imported.toml,
    });
    print::answer(global, &answer, || imported.toml.clone())?;
    if !global.wants_json() {
        imported.report.iter().for_each(|line| talk::say(&print::printable(line)));
        let rules = many(imported.rules, "rule");
        talk::say(&format!("{rules} understood, {} not", imported.left));
    }
    Ok(if imported.left == 0 { Exit::Done } else { Exit::Partly })
}

/// The documents of a directory, compiled.
pub(super) fn compile(dir: &Path) -> anyhow::Result<Compiled> {
    Ok(fleet::compile(&load(dir)?))
}

/// The control documents of a directory; what is none is left where it is.
fn load(dir: &Path) -> anyhow::Result<Documents> {
    let mut documents = Documents::default();
    let mut files = list(dir)?;
    let policies = dir.join("policies");
    if policies.is_dir() {
        for category in list(&policies)? {
            if category.is_dir() {
                files.extend(list(&category)?);
            }
        }
    }
    for path in files {
        let Ok(below) = path.strip_prefix(dir) else { continue };
        let name = below.to_string_lossy();
        if !path.is_file() || !Documents::wants(&name) {
            continue;
        }
        let body = read(&path, Documents::allowed_bytes(&name))?;
        documents.insert(&name, body.into()).map_err(|error| failed(&path, &error.to_string()))?;
    }
    Ok(documents)
}

fn list(dir: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|error| failed(dir, &error.to_string()))?;
    // One more than may be: too many are told when they are put together.
    let paths = entries.take(DOCUMENTS * 2).map(|entry| entry.map(|entry| entry.path()));
    Ok(paths.collect::<Result<Vec<_>, _>>().map_err(|error| failed(dir, &error.to_string()))?)
}

/// A regular file of at most `most` bytes; `-` is what comes in.
fn read(path: &Path, most: usize) -> anyhow::Result<Vec<u8>> {
    let open = || {
        let mut bytes = Vec::new();
        let most = most as u64 + 1;
        if path.as_os_str() == "-" {
            std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        if !fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("is not a file"));
        }
        File::open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = open().map_err(|error| failed(path, &error.to_string()))?;
    if bytes.len() > most {
        return Err(failed(path, &format!("it has more than {most} bytes")).into());
    }
    Ok(bytes)
}

fn failed(path: &Path, why: &str) -> Failure {
    let exit = if path.exists() { Exit::Failed } else { Exit::NotFound };
    Failure::new(exit, format!("cannot read {}: {why}", path.display()), "")
}
