//! Who may do what: roles, and how somebody proves to have one.
//!
//! On the Unix socket the kernel vouches for user and group; over TLS a bearer token or a client certificate does.

use std::fs;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, Code};
use crate::base::digest::Digest;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look and change.
    Operator,
}

/// Somebody who is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// As the log names them: `uid 1000`, `token deploy`, `client certificate`.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// A bearer token. Only its digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    name: String,
    role: Role,
    digest: Digest,
}

impl Token {
    /// A token by its name in the log, what it may do, and its value.
    pub fn new(name: impl Into<String>, role: Role, secret: &[u8]) -> Self {
        Self { name: name.into(), role, digest: Digest::of(secret.trim_ascii()) }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Somebody who is known by the name in their certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The common name, or a mailbox, host or URI of the alternative names, letter by letter.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Tokens for the TLS listener.
    pub tokens: Vec<Token>,
    /// Holders of certificates for the TLS listener; others with a certificate look.
    pub holders: Vec<Holder>,
    /// A group, by name or number, whose members are operators on the socket.
    pub operators: Option<String>,
    /// A group, by name or number, whose members are viewers on the socket.
    pub viewers: Option<String>,
}

/// Where groups and their members are listed.
const GROUPS: &str = "/etc/group";
/// Where users are listed.
const USERS: &str = "/etc/passwd";

impl Access {
    /// Whether anybody but root and the node's own user may come in by the socket.
    pub const fn has_groups(&self) -> bool {
        self.operators.is_some() || self.viewers.is_some()
    }

    /// Somebody on the socket, as the kernel names them.
    ///
    /// # Errors
    /// They are nobody we know.
    pub fn of_peer(&self, uid: u32, gid: u32) -> Result<Who, ApiError> {
        let name = format!("uid {uid}");
        if uid == 0
            || uid == rustix::process::geteuid().as_raw()
            || is_member(self.operators.as_ref(), uid, gid)
        {
            return Ok(Who { name, role: Role::Operator });
        }
        if is_member(self.viewers.as_ref(), uid, gid) {
            return Ok(Who { name, role: Role::Viewer });
        }
        let help =
            "come as root or as the node's user, or set [admin] operators or viewers to one of your groups";
        Err(ApiError::new(Code::NotAllowed, format!("user {uid} may not talk to this node"), help))
    }

    /// Somebody with a certificate of the authority for operators, and these names in it. Whoever is not listed is a
    /// viewer: an authority says who somebody is, and only the configuration what they may do.
    pub fn of_certificate(&self, names: &[String]) -> Who {
        let listed = |name: &String| self.holders.iter().find(|holder| holder.name == *name);
        match names.iter().filter_map(listed).max_by_key(|holder| holder.role) {
            Some(holder) => Who { name: format!("certificate {}", holder.name), role: holder.role },
            None => {
                let name = names.first().map_or("without a name", String::as_str);
                Who { name: format!("certificate {name}"), role: Role::Viewer }
            }
        }
    }

    /// Somebody with a bearer token.
    ///
    /// # Errors
    /// There is none, or not one we know.
    pub fn of_token(&self, headers: &HeaderMap) -> Result<Who, ApiError> {
        const HELP: &str =
            "send `Authorization: Bearer TOKEN` with a token of [admin] tokens (waypost: --token-file)";
        let denied = |message: &str| ApiError::new(Code::NotAuthenticated, message, HELP);
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(denied("a token is needed"));
        };
        let Some((scheme, token)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Err(denied("that is no bearer token"));
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(denied("that is no bearer token"));
        }
        let digest = Digest::of(token.trim().as_bytes());
        // All of them are compared, and whole: how long it takes says nothing about any of them.
        let found = self
            .tokens
            .iter()
            .fold(None, |found, token| if same(&token.digest, &digest) { Some(token) } else { found });
        let token = found.ok_or_else(|| denied("this token is not known"))?;
        Ok(Who { name: format!("token {}", token.name), role: token.role })
    }
}

/// Compares without stopping early.
fn same(one: &Digest, two: &Digest) -> bool {
    one.0.iter().zip(two.0).fold(0, |differs, (one, two)| differs | (one ^ two)) == 0
}

fn is_member(group: Option<&String>, uid: u32, gid: u32) -> bool {
    let Some(group) = group else { return false };
    let groups = fs::read_to_string(GROUPS).unwrap_or_default();
    let users = fs::read_to_string(USERS).unwrap_or_default();
    is_member_by(group, (uid, gid), &groups, &users)
}

/// By the kernel's word for the primary group, by the system's lists for the others. The list of groups that a
/// process has could be read as well, but its number may be another process's by then.
fn is_member_by(group: &str, (uid, gid): (u32, u32), groups: &str, users: &str) -> bool {
    let rows = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    };
    let groups = rows(groups);
    let row = groups.iter().find(|row| match row.as_slice() {
        [name, _, number, ..] => name == group || number == group,
        _ => false,
    });
    let number = row.and_then(|row| row.get(2)).map_or(group, String::as_str);
    if number.parse() == Ok(gid) {
        return true;
    }
    let uid = uid.to_string();
    let names = rows(users);
    let names = names.iter().filter(|row| row.get(2) == Some(&uid)).filter_map(|row| row.first());
    let members = row.and_then(|row| row.get(3)).map_or("", String::as_str);
    names.into_iter().any(|name| members.split(',').any(|member| member == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP_FILE: &str = "root:x:0:\nops:x:50:ann,bob\nwatch:x:60:\n";
    const USER_FILE: &str = "ann:x:1000:1000::/:/bin/sh\neve:x:1001:1001::/:/bin/sh\n";

    #[test]
    fn membership_is_by_primary_group_or_by_list() {
        let is = |group, uid, gid| is_member_by(group, (uid, gid), GROUP_FILE, USER_FILE);
        assert!(is("ops", 1000, 1000), "ann is in the list");
        assert!(is("50", 1000, 1000), "by number");
        assert!(!is("ops", 1001, 1001), "eve is not");
        assert!(is("ops", 1001, 50), "unless it is her own");
        assert!(is("77", 1001, 77), "a group without a name");
        assert!(!is("nobody-knows", 1000, 1000));
    }

    #[test]
    fn a_token_is_all_of_it_or_nothing() {
        let access = Access {
            tokens: vec![Token::new("deploy", Role::Viewer, b"correct-horse\n")],
            ..Access::default()
        };
        let ask = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            access.of_token(&headers).map(|who| (who.name, who.role)).map_err(|error| error.code)
        };
        assert_eq!(ask("Bearer correct-horse"), Ok(("token deploy".to_owned(), Role::Viewer)));
        assert_eq!(ask("bearer correct-horse"), Ok(("token deploy".to_owned(), Role::Viewer)));
        for wrong in ["Bearer correct-hors", "Bearer ", "Bearer", "Basic correct-horse", "correct-horse"] {
            assert_eq!(ask(wrong), Err(Code::NotAuthenticated), "{wrong}");
        }
        assert!(!format!("{access:?}").contains("horse"));
    }

    #[test]
    fn a_certificate_looks_unless_its_holder_is_listed() {
        let holder = |name: &str, role| Holder { name: name.to_owned(), role };
        let access = Access {
            holders: vec![holder("eve", Role::Viewer), holder("ann@example.org", Role::Operator)],
            ..Access::default()
        };
        let role = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let who = access.of_certificate(&names);
            (who.name, who.role)
        };
        assert_eq!(
            role(&["Ann", "ann@example.org"]),
            ("certificate ann@example.org".to_owned(), Role::Operator)
        );
        assert_eq!(role(&["Bob", "bob@example.org"]), ("certificate Bob".to_owned(), Role::Viewer));
        assert_eq!(role(&["eve", "ann@example.org"]).1, Role::Operator, "the most that one of the names may");
        assert_eq!(role(&["ANN@example.org"]).1, Role::Viewer, "letter by letter");
        assert_eq!(role(&[]), ("certificate without a name".to_owned(), Role::Viewer));
    }

    #[test]
    fn strangers_on_the_socket_are_told_what_to_do() {
        let error = Access::default().of_peer(u32::MAX - 7, u32::MAX - 7).unwrap_err();
        assert_eq!(error.code, Code::NotAllowed);
        assert!(error.help.contains("[admin] operators"), "{error:?}");
        assert_eq!(Access::default().of_peer(0, 0).unwrap().role, Role::Operator);
    }
}
