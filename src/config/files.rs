//! Files and directories that a configuration names: are they there, readable, and what they should be? Better
//! said at the check than at the start, or at the first fetch.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::diagnostic::{Code, Diagnostic};
use super::reader::{At, Context, Keys, Section};
use super::{Secret, SecretError, TlsFiles};
use crate::base::limits::CREDENTIAL_BYTES;

const CERTIFICATE: &str = "CERTIFICATE-----";
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// The keys of `{ cert = …, key = … }`.
pub(super) const IDENTITY: Keys = Keys { known: &["cert", "key"], later: &["client_ca"] };

/// A certificate and its key: `tls = { … }`, `client_cert = { … }`.
pub(super) fn identity(section: &Section<'_>) -> Option<TlsFiles> {
    let (cert, key) = (section.path("cert"), section.secret("key"));
    if !section.has("cert") {
        section.missing("cert", "write cert = \"handler.pem\", the chain in PEM, leaf first");
    }
    if !section.has("key") {
        section.missing("key", "write key = { file = \"handler.key\" }, in PEM");
    }
    if let Some(cert) = &cert {
        check_certificates(section.cx, cert);
    }
    if let Some(key) = &key {
        check_private_key(section.cx, key);
    }
    Some(TlsFiles { cert: cert?.value, key: key?.value })
}

/// Notes when the file has no certificate in PEM.
pub(super) fn check_certificates(cx: &Context<'_>, path: &At<PathBuf>) {
    let wrong = match read(&path.value) {
        Ok(content) if has_pem(&content, CERTIFICATE) => return,
        Ok(content) if has_pem(&content, PRIVATE_KEY) => "has a private key and no certificate".to_owned(),
        Ok(_) => "has no certificate in PEM".to_owned(),
        Err(why) => why,
    };
    cx.report(Diagnostic::error(Code::File, path.span.clone(), format!("{} {wrong}", path.value.display())));
}

fn check_private_key(cx: &Context<'_>, secret: &At<Secret>) {
    let name = match &secret.value {
        Secret::File(path) => path.display().to_string(),
        Secret::Env(name) => format!("the environment variable {name}"),
    };
    let content = match &secret.value {
        Secret::File(path) => read(path),
        Secret::Env(_) => secret.value.read().map_err(|error| match error {
            SecretError::Env(_) => "is not set".to_owned(),
            other => other.to_string(),
        }),
    };
    let wrong = match content {
        Ok(content) if has_pem(&content, PRIVATE_KEY) => {
            warn_when_public(cx, secret);
            return;
        }
        Ok(_) => "has no private key in PEM".to_owned(),
        Err(why) => why,
    };
    cx.report(Diagnostic::error(Code::File, secret.span.clone(), format!("{name} {wrong}")));
}

fn warn_when_public(cx: &Context<'_>, secret: &At<Secret>) {
    if let Secret::File(path) = &secret.value
        && is_public(path)
    {
        let message = format!("{} can be read by every user of this machine", path.display());
        let found = Diagnostic::warning(Code::Unsafe, secret.span.clone(), message);
        cx.report(found.help("chmod 0640, with the group of the service"));
    }
}

/// Notes when a bearer token is not there, could be guessed, or cannot stand in a header.
pub(super) fn check_token(cx: &Context<'_>, secret: &At<Secret>, shortest: usize) {
    const HELP: &str = "make one: openssl rand -hex 32 > ops.token && chmod 0640 ops.token";
    let wrong = match secret.value.read() {
        Ok(value) if value.trim_ascii().len() < shortest => {
            format!("the token is shorter than {shortest} characters, so it can be guessed")
        }
        Ok(value) if !value.trim_ascii().iter().all(u8::is_ascii_graphic) => {
            "the token has spaces or characters that cannot stand in a header".to_owned()
        }
        Ok(_) => {
            warn_when_public(cx, secret);
            return;
        }
        Err(error) => error.to_string(),
    };
    cx.report(Diagnostic::error(Code::File, secret.span.clone(), wrong).help(HELP));
}

/// Whether everybody on this machine can read it.
fn is_public(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

/// Notes when the directory is not there or cannot be listed.
pub(super) fn check_directory(cx: &Context<'_>, path: &At<PathBuf>) {
    let wrong = match fs::metadata(&path.value) {
        Ok(meta) if !meta.is_dir() => "is not a directory".to_owned(),
        Ok(_) => match fs::read_dir(&path.value) {
            Ok(_) => return,
            Err(error) => why(&error),
        },
        Err(error) => why(&error),
    };
    cx.report(Diagnostic::error(Code::File, path.span.clone(), format!("{} {wrong}", path.value.display())));
}

/// Notes when something that is no directory is in the way; what is missing is made later.
pub(super) fn check_directory_to_be(cx: &Context<'_>, path: &At<PathBuf>) {
    if fs::metadata(&path.value).is_ok_and(|meta| !meta.is_dir()) {
        let message = format!("{} is not a directory", path.value.display());
        cx.report(Diagnostic::error(Code::File, path.span.clone(), message));
    }
}

/// Notes when a file cannot be made there, because its directory is missing or it is a directory itself.
pub(super) fn check_file_to_be(cx: &Context<'_>, path: &At<PathBuf>) {
    let parent = path.value.parent().filter(|parent| !parent.as_os_str().is_empty());
    let message = if fs::metadata(&path.value).is_ok_and(|meta| meta.is_dir()) {
        format!("{} is a directory", path.value.display())
    } else if parent.is_some_and(|parent| !parent.is_dir()) {
        format!("the directory of {} is not there", path.value.display())
    } else {
        return;
    };
    cx.report(Diagnostic::error(Code::File, path.span.clone(), message));
}

/// The content of a regular file, bounded; never waits on a pipe or a device.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let meta = fs::metadata(path).map_err(|error| why(&error))?;
    if !meta.is_file() {
        return Err("is not a file".to_owned());
    }
    if meta.len() > CREDENTIAL_BYTES {
        return Err("is larger than 1 MiB".to_owned());
    }
    fs::read(path).map_err(|error| why(&error))
}

fn has_pem(content: &[u8], what: &str) -> bool {
    String::from_utf8_lossy(content)
        .lines()
        .any(|line| line.trim_start().starts_with("-----BEGIN ") && line.trim_end().ends_with(what))
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is not there".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
