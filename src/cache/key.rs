//! The name of an entry: repository, canonical path, and what else selects a representation.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The key of an entry: `repository:/canonical/path`, then `?query` where the repository keys by query,
/// then a line per selecting header where it varies. Keys of one repository sort by path.
///
/// The repository's name is always part of it, so that two upstreams never share an entry
/// (CVE-2026-2836 is what happens otherwise). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of `path` (canonical, with its leading slash) in `repository`.
    pub fn new(repository: &str, path: &str, query: Option<&str>) -> Self {
        Self(Self::text(repository, path, query).into())
    }

    /// The text of [`Key::new`]: enough for a look-up.
    pub fn text(repository: &str, path: &str, query: Option<&str>) -> String {
        let mut text =
            String::with_capacity(repository.len() + path.len() + 1 + query.map_or(0, str::len) + 1);
        text.push_str(repository);
        text.push(':');
        text.push_str(path);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        text
    }

    /// The key of one variant of this representation (RFC 9111 §4.1): `values` are the selecting request
    /// headers with their normalised values, in the order of the repository's `forward_headers`.
    #[must_use]
    pub fn variant<'a>(&self, values: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut text = self.0.to_string();
        for (name, value) in values {
            text.push('\n');
            text.push_str(name);
            text.push('=');
            for byte in value {
                text.push_str(&byte.escape_ascii().to_string());
            }
        }
        Self(text.into())
    }

    /// The key of this path with one certain content: what a catalogue lists is never mistaken for what another
    /// edition of it lists under the same name.
    #[must_use]
    pub fn content(&self, word: &str) -> Self {
        Self(format!("{}\ncontent={word}", self.0).into())
    }

    /// The canonical path in the text of a key, without query and variant.
    pub fn path_in(text: &str) -> &str {
        let path = text.split_once(':').map_or(text, |(_, rest)| rest);
        path.split(['?', '\n']).next().unwrap_or_default()
    }

    /// The repository's name in the text of a key.
    pub fn repository_in(text: &str) -> &str {
        text.split_once(':').map_or("", |(name, _)| name)
    }

    /// The key as text, as it stands in the index.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    /// A key as it was read back from the index.
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_always_part_of_the_key() {
        assert_ne!(Key::new("a", "/x", None), Key::new("b", "/x", None));
        assert_eq!(Key::new("a", "/x", Some("y=1")).as_str(), "a:/x?y=1");
    }

    #[test]
    fn variants_of_one_path_never_collide() {
        let key = Key::new("a", "/x", None);
        let one = key.variant([("accept-language", b"de\nx=1".as_slice())].into_iter());
        let two = key.variant([("accept-language", b"de".as_slice()), ("x", b"1")].into_iter());
        assert_ne!(one, two);
        assert_ne!(one, key);
    }
}
