//! Media types by file name, for those that update repositories hold. Everything else is bytes.

const TABLE: &[(&str, &str)] = &[
    ("bz2", "application/x-bzip2"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ini", "text/plain; charset=utf-8"),
    ("jar", "application/java-archive"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("log", "text/plain; charset=utf-8"),
    ("msi", "application/x-msi"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("rpm", "application/x-rpm"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tgz", "application/gzip"),
    ("txt", "text/plain; charset=utf-8"),
    ("xml", "application/xml"),
    ("xz", "application/x-xz"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// The media type of the file at `path`.
pub(super) fn of(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    TABLE
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(extension))
        .map_or("application/octet-stream", |(_, media)| media)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_extension_decides_whatever_its_case() {
        assert_eq!(super::of("Current/avvdat.ini"), "text/plain; charset=utf-8");
        assert_eq!(super::of("a.zip/b.tar.GZ"), "application/gzip");
    }

    #[test]
    fn what_is_not_known_is_bytes() {
        for name in ["catalog.z", "Packages", "a.zip/README", "main.cvd", "x."] {
            assert_eq!(super::of(name), "application/octet-stream", "{name}");
        }
    }
}
