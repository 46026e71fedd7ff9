//! The expression language of ePO's policy assignment rules, as far as it is known:
//! `( where ( and ( hasTag tag_system "EPO/Suspicious" ) ( descendsFrom ubp_system "\\Workstations\\" ) ) )`.
//!
//! An expression becomes alternatives, each a conjunction as our rules have it. What is not known makes the whole
//! expression not understood: a rule without one of its conditions would give policies to agents that must not have
//! them.

use crate::base::limits::{EXPRESSION_PARTS, EXPRESSION_RULES};
use crate::fleet::names::TreePath;
use crate::fleet::read::parse_tag;

/// One conjunction of an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// At one of these places or below; none where it does not matter.
    pub tree: Option<TreePath>,
    /// At this place itself.
    pub folder: Option<TreePath>,
    /// With all of these tags.
    pub all_tags: Vec<String>,
    /// With none of these.
    pub without_tags: Vec<String>,
}

/// The alternatives of an expression, at least one; one without conditions is for everybody.
///
/// # Errors
/// What is not understood.
pub fn parse(text: &str) -> Result<Vec<Conditions>, String> {
    let mut parts = 0;
    let mut rest = text;
    let tree = list(&mut rest, &mut parts)?;
    if !rest.trim().is_empty() {
        return Err(format!("`{}` behind its end", shown(rest)));
    }
    match tree.as_slice() {
        [Part::Word(word), inner] if word == "where" => alternatives(inner, false),
        [Part::Word(word)] if word == "where" => Ok(vec![Conditions::default()]),
        _ => alternatives(&Part::List(tree), false),
    }
}

enum Part {
    Word(String),
    Text(String),
    List(Vec<Self>),
}

/// Reads `( … )`. A stack of its own: depth costs no stack of ours.
fn list(rest: &mut &str, parts: &mut usize) -> Result<Vec<Part>, String> {
    let mut open: Vec<Vec<Part>> = Vec::new();
    loop {
        *rest = rest.trim_start();
        *parts += 1;
        if *parts > EXPRESSION_PARTS {
            return Err(format!("more than {EXPRESSION_PARTS} parts"));
        }
        let Some(first) = rest.chars().next() else { return Err("a `(` that is not closed".to_owned()) };
        let part = match first {
            '(' => {
                *rest = rest.get(1..).unwrap_or_default();
                open.push(Vec::new());
                continue;
            }
            ')' => {
                *rest = rest.get(1..).unwrap_or_default();
                let Some(done) = open.pop() else { return Err("a `)` without its `(`".to_owned()) };
                if open.is_empty() {
                    return Ok(done);
                }
                Part::List(done)
            }
            '"' => Part::Text(quoted(rest)?),
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "()\"".contains(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                *rest = after;
                Part::Word(word.to_owned())
            }
        };
        match open.last_mut() {
            Some(list) => list.push(part),
            None => return Err("it does not begin with `(`".to_owned()),
        }
    }
}

/// A text in quotes, in which a backslash stands before what is meant.
fn quoted(rest: &mut &str) -> Result<String, String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = rest.get(at + 1..).unwrap_or_default();
                return Ok(text);
            }
            '\\' => text.extend(chars.next().map(|(_, meant)| meant)),
            other => text.push(other),
        }
    }
    Err("a text in quotes that is not closed".to_owned())
}

fn alternatives(part: &Part, not: bool) -> Result<Vec<Conditions>, String> {
    let Part::List(list) = part else { return Err("a condition has to be in `( )`".to_owned()) };
    let [Part::Word(operator), operands @ ..] = list.as_slice() else {
        return Err("a condition has to begin with its operator".to_owned());
    };
    match (operator.as_str(), not) {
        // Not of all is any of not, and the other way round.
        ("and", false) | ("or", true) => {
            let mut joined = vec![Conditions::default()];
            for operand in operands {
                let next = alternatives(operand, not)?;
                let mut all = Vec::new();
                for one in &joined {
                    for other in &next {
                        all.push(join(one, other)?);
                    }
                }
                joined = bounded(all)?;
            }
            Ok(joined)
        }
        ("or", false) | ("and", true) => {
            let mut any = Vec::new();
            for operand in operands {
                any.extend(alternatives(operand, not)?);
                any = bounded(any)?;
            }
            if any.is_empty() { Err(format!("`{operator}` of nothing")) } else { Ok(any) }
        }
        ("not", _) => match operands {
            [one] => alternatives(one, !not),
            _ => Err("`not` of more than one".to_owned()),
        },
        _ => condition(operator, operands, not).map(|condition| vec![condition]),
    }
}

fn bounded(all: Vec<Conditions>) -> Result<Vec<Conditions>, String> {
    if all.len() > EXPRESSION_RULES {
        Err(format!("more than {EXPRESSION_RULES} alternatives"))
    } else {
        Ok(all)
    }
}

fn condition(operator: &str, operands: &[Part], not: bool) -> Result<Conditions, String> {
    // The first operand names the column; the last one is what it is compared with.
    let [Part::Word(_), Part::Text(value)] = operands else {
        return Err(format!("`{}` is not known in this form", shown(operator)));
    };
    let tag = || parse_tag(value).map(|tag| vec![tag]).map_err(str::to_owned);
    let place = || {
        let path = value.replace('\\', "/");
        let path = path.trim_matches('/');
        TreePath::parse(&format!("/{path}")).map(Some).map_err(|why| format!("`{}`: {why}", shown(value)))
    };
    let mut condition = Conditions::default();
    match (operator, not) {
        ("hasTag", false) | ("doesNotHaveTag", true) => condition.all_tags = tag()?,
        ("doesNotHaveTag", false) | ("hasTag", true) => condition.without_tags = tag()?,
        ("descendsFrom", false) => condition.tree = place()?,
        ("childOf", false) => condition.folder = place()?,
        ("descendsFrom" | "childOf", true) => return Err(format!("`not` of `{operator}`")),
        _ => return Err(format!("the operator `{}` is not known", shown(operator))),
    }
    Ok(condition)
}

fn join(one: &Conditions, other: &Conditions) -> Result<Conditions, String> {
    let mut joined = one.clone();
    for tag in &other.all_tags {
        if !joined.all_tags.contains(tag) {
            joined.all_tags.push(tag.clone());
        }
    }
    for tag in &other.without_tags {
        if !joined.without_tags.contains(tag) {
            joined.without_tags.push(tag.clone());
        }
    }
    // Of two places one within the other, the one within; of others nobody is at both.
    const TWO: &str = "two places at the same time";
    joined.tree = match (&one.tree, &other.tree) {
        (Some(one), Some(other)) if one.is_within(other) => Some(one.clone()),
        (Some(one), Some(other)) if other.is_within(one) => Some(other.clone()),
        (Some(_), Some(_)) => return Err(TWO.to_owned()),
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    joined.folder = match (&one.folder, &other.folder) {
        (Some(one), Some(other)) if one != other => return Err(TWO.to_owned()),
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    if let (Some(tree), Some(folder)) = (&joined.tree, &joined.folder) {
        if !folder.is_within(tree) {
            return Err(TWO.to_owned());
        }
        joined.tree = None;
    }
    Ok(joined)
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<TreePath> {
        Some(TreePath::parse(text).expect("a place"))
    }

    #[test]
    fn the_known_operators_become_conditions() {
        let parsed = parse(r#"( where ( descendsFrom ubp_system "\\Workstations\\Sales\\" ) )"#);
        assert_eq!(
            parsed,
            Ok(vec![Conditions { tree: place("/Workstations/Sales"), ..Conditions::default() }])
        );
        let parsed = parse(r#"(where (childOf ubp_system "\\Workstations\\"))"#);
        assert_eq!(parsed, Ok(vec![Conditions { folder: place("/Workstations"), ..Conditions::default() }]));
        let parsed = parse(
            r#"( where ( and ( hasTag tag_system "EPO/Suspicious" ) ( doesNotHaveTag tag_system "Server" ) ) )"#,
        );
        let both = Conditions {
            all_tags: vec!["EPO/Suspicious".into()],
            without_tags: vec!["Server".into()],
            ..Conditions::default()
        };
        assert_eq!(parsed, Ok(vec![both]));
        assert_eq!(parse("( where )"), Ok(vec![Conditions::default()]));
    }

    #[test]
    fn or_becomes_alternatives_and_not_turns_them_round() {
        let tag = |name: &str| format!("(hasTag t \"{name}\")");
        let (a, b, c) = (tag("a"), tag("b"), tag("c"));
        let parsed = parse(&format!("(where (and (or {a} {b}) {c}))")).expect("understood");
        let tags: Vec<Vec<String>> = parsed.into_iter().map(|it| it.all_tags).collect();
        assert_eq!(tags, [["a", "c"], ["b", "c"]]);
        let parsed = parse(&format!("(where (not (or {a} {b})))")).expect("understood");
        assert_eq!(
            parsed,
            [Conditions { without_tags: vec!["a".into(), "b".into()], ..Conditions::default() }]
        );
        assert_eq!(parse(&format!("(where (not (and {a} {b})))")).expect("understood").len(), 2);
    }

    #[test]
    fn what_is_not_known_is_not_understood_and_says_why() {
        for (text, why) in [
            (r#"(where (eq EPOLeafNode.os "Windows"))"#, "operator `eq`"),
            (r#"(where (and (hasTag t "a") (version_ge x "1")))"#, "operator `version_ge`"),
            (r#"(where (not (descendsFrom u "\\A\\")))"#, "`not`"),
            (r#"(where (and (descendsFrom u "\\A\\") (descendsFrom u "\\B\\")))"#, "two places"),
            (r#"(where (hasTag "a"))"#, "form"),
            ("where", "begin"),
            ("(where", "not closed"),
            ("(where ))", "behind its end"),
            (r#"(where (hasTag t "a)"#, "quotes"),
            ("", "not closed"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(parse(&"(".repeat(100_000)).expect_err("deep").contains("parts"));
        let or = format!("(or {})", "(hasTag t \"a\") ".repeat(20));
        assert!(parse(&format!("(where (and {or} {or}))")).expect_err("wide").contains("alternatives"));
    }
}
