//! What things are called: agents, places in the system tree, handlers and policies.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::agent_id::is_agent_id;
use crate::base::limits::{AGENT_ID_BYTES, NAME_BYTES, TREE_DEPTH, TREE_PATH_BYTES};

/// A name that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// An agent's id with nothing in it, too much, or other characters.
    #[error("an agent's id has 1 to {AGENT_ID_BYTES} letters, digits and `._:{{}}-`")]
    AgentId,
    /// A place in the tree that does not begin with `/`.
    #[error("a place in the tree begins with `/`")]
    NotAbsolute,
    /// A place in the tree with an empty step, a dot step, a backslash or a control character.
    #[error("a place in the tree cannot have empty steps, `.`, `..`, `\\` or control characters")]
    TreeStep,
    /// A place in the tree that is too long or too deep.
    #[error("a place in the tree has at most {TREE_DEPTH} steps and {TREE_PATH_BYTES} bytes")]
    TreeLength,
    /// The name of a handler, group, category, policy or repository with other characters.
    #[error("a name has 1 to {NAME_BYTES} letters, digits and `._-`, a letter or digit first")]
    Name,
}

/// Who an agent is: 1 to 128 bytes of `[A-Za-z0-9._:{}-]`, case kept, compared as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// # Errors
    /// When it is empty, too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if !is_agent_id(text) {
            return Err(NameError::AgentId);
        }
        Ok(Self(text.into()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A place in the system tree: `/` or `/Branches/7`. Case is kept, and told apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(Arc<str>);

impl TreePath {
    /// The top of the tree.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// # Errors
    /// Says what is wrong with it. A slash at the end is not.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let Some(rest) = text.strip_prefix('/') else { return Err(NameError::NotAbsolute) };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return if text.len() <= 1 { Ok(Self::root()) } else { Err(NameError::TreeStep) };
        }
        if text.len() > TREE_PATH_BYTES || rest.split('/').count() > TREE_DEPTH {
            return Err(NameError::TreeLength);
        }
        let wrong = |step: &str| {
            matches!(step, "" | "." | "..") || step.contains('\\') || step.contains(char::is_control)
        };
        if rest.split('/').any(wrong) {
            return Err(NameError::TreeStep);
        }
        Ok(Self(text.strip_suffix('/').unwrap_or(text).into()))
    }

    /// As it is written, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This place and all above it, nearest first; the last is `/`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let mut next = Some(self.as_str());
        std::iter::from_fn(move || {
            let now = next?;
            next = match now.rsplit_once('/') {
                _ if now == "/" => None,
                Some(("", _)) => Some("/"),
                Some((above, _)) => Some(above),
                None => None,
            };
            Some(now)
        })
    }

    /// Whether it is `place` or below it.
    pub fn is_within(&self, place: &Self) -> bool {
        let rest = self.0.strip_prefix(&*place.0);
        place.as_str() == "/" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Borrow<str> for TreePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The name of a handler, group, category, policy or repository: one that can stand in a file name and a URL.
///
/// # Errors
/// When it cannot.
pub fn check_name(text: &str) -> Result<&str, NameError> {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || text.len() > NAME_BYTES || !text.bytes().all(right) {
        return Err(NameError::Name);
    }
    Ok(text)
}

macro_rules! text_like {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(it: $name) -> Self {
                it.0.as_ref().to_owned()
            }
        }
    )*};
}

text_like!(AgentId, TreePath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_as_they_are_and_strange_ones_refused() {
        for right in ["a", "PC-7.branch_1:x", "{8A2C-1}", &"x".repeat(128)] {
            assert_eq!(AgentId::parse(right).map(String::from), Ok(right.to_owned()));
        }
        for wrong in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert_eq!(AgentId::parse(wrong), Err(NameError::AgentId), "{wrong:?}");
        }
        assert_ne!(AgentId::parse("A"), AgentId::parse("a"));
    }

    #[test]
    fn places_have_one_form_and_know_what_is_above_them() {
        let deep = TreePath::parse("/Branches/7/Sales dept/").expect("a place");
        assert_eq!(deep.as_str(), "/Branches/7/Sales dept");
        assert_eq!(
            deep.ancestors().collect::<Vec<_>>(),
            ["/Branches/7/Sales dept", "/Branches/7", "/Branches", "/"]
        );
        assert_eq!(TreePath::root().ancestors().collect::<Vec<_>>(), ["/"]);
        let place = |text: &str| TreePath::parse(text).expect("a place");
        assert!(
            deep.is_within(&place("/Branches/7")) && deep.is_within(&place("/")) && deep.is_within(&deep)
        );
        assert!(!place("/Branches/70").is_within(&place("/Branches/7")));
        assert!(!place("/").is_within(&place("/Branches")));
        for wrong in ["", "Branches", "//", "/a//b", "/./a", "/a/..", "/a\\b", "/a\tb", "/a//"] {
            assert!(TreePath::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(TreePath::parse(&"/a".repeat(TREE_DEPTH + 1)), Err(NameError::TreeLength));
        assert_eq!(TreePath::parse(&format!("/{}", "a".repeat(TREE_PATH_BYTES))), Err(NameError::TreeLength));
    }

    #[test]
    fn names_can_stand_in_a_file_name_and_a_url() {
        for right in ["a", "wp-a.branch_7", "7"] {
            assert_eq!(check_name(right), Ok(right));
        }
        for wrong in ["", ".a", "-a", "a/b", "a b", "..", "ä", &"x".repeat(NAME_BYTES + 1)] {
            assert_eq!(check_name(wrong), Err(NameError::Name), "{wrong:?}");
        }
    }
}
