//! Names below a repository: folder and file, put together and taken apart.

use std::borrow::Cow;

use crate::base::limits::CATALOGUE_DEPTH;
use crate::protocol::target::{decode_path, path_of_name};
use crate::repository::listing::shown;

/// Folder (empty, or with its slash) and file of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rfind('/').and_then(|at| path.split_at_checked(at + 1)).unwrap_or(("", path))
}

/// The canonical path of what a catalogue in `folder` (a canonical path, empty or with its slash) calls `name`.
///
/// # Errors
/// The name is none within the folder, or lies too deep; the reason names it.
pub(super) fn below(folder: &str, name: &str) -> Result<String, String> {
    let path =
        path_of_name(name).map_err(|_| format!("`{}` is not a name within its folder", shown(name)))?;
    let path = format!("{folder}{path}");
    if path.split('/').count() > CATALOGUE_DEPTH {
        return Err(format!("`{}` lies more than {CATALOGUE_DEPTH} folders deep", shown(&path)));
    }
    Ok(path)
}

/// The spelling of a canonical path that has no escape without need: what [`path_of_name`] makes of the name. apt asks
/// for `libstdc%2B%2B6` where the catalogue says `libstdc++6`.
pub(super) fn plainest(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    path_of_name(&decode_path(path)).map_or(Cow::Borrowed(path), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_folder_and_file() {
        assert_eq!(split("a/b/c.zip"), ("a/b/", "c.zip"));
        assert_eq!(split("c.zip"), ("", "c.zip"));
        assert_eq!(split("a/"), ("a/", ""));
    }

    #[test]
    fn a_name_stays_within_its_folder() {
        assert_eq!(below("a%20b/", "c d/ä+.zip").unwrap(), "a%20b/c%20d/%C3%A4+.zip");
        for name in ["../x", "/x", "x/", "", "a//b", ".", "a\\b", "a\0"] {
            assert!(below("a/", name).is_err(), "{name:?}");
        }
        assert!(below("", &"d/".repeat(CATALOGUE_DEPTH - 1)).is_err());
        assert!(below("", &("d/".repeat(CATALOGUE_DEPTH - 1) + "f")).is_ok());
        assert!(below("", &("d/".repeat(CATALOGUE_DEPTH) + "f")).is_err());
    }

    #[test]
    fn escapes_without_need_are_another_spelling() {
        assert_eq!(plainest("pool/libstdc%2B%2B6.deb"), "pool/libstdc++6.deb");
        assert_eq!(plainest("a%20b"), "a%20b");
        assert!(matches!(plainest("a+b"), Cow::Borrowed("a+b")));
    }
}
