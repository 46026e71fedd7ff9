//! ePO's export of policy assignment rules, turned into rules of `rules.toml`, with a report of what was not understood.

pub mod expression;

use std::collections::BTreeMap;

use expression::Conditions;

use super::names::TreePath;
use super::xml::{Element, XmlError, parse_xml};
use crate::base::limits::{EXPORT_BYTES, NAME_BYTES, RULE_NAME_BYTES};

/// What became of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Fragments of `rules.toml`. Rules that were not understood are comments in their place.
    pub toml: String,
    /// Rules that were understood.
    pub rules: usize,
    /// What was not, and what to look at, a line each.
    pub report: Vec<String>,
    /// How many rules were not understood.
    pub left: usize,
}

/// Turns an export into rules. Their priority is their place, because the export has none.
///
/// # Errors
/// When it is not XML, or no export of such rules.
pub fn import(bytes: &[u8]) -> Result<Imported, XmlError> {
    let root = parse_xml(bytes, EXPORT_BYTES)?;
    let rules: Vec<&Element> = rules(&root);
    if rules.is_empty() {
        let reason = "there is no `EPOPolicyRule` in it: is it an export of policy assignment rules?";
        return Err(XmlError { line: 1, reason: reason.to_owned() });
    }
    let mut import = Importer::default();
    for rule in rules {
        import.rule(rule);
    }
    import.out.report.extend(
        import
            .categories
            .iter()
            .map(|(slug, from)| format!("category `{slug}` is {from}: put its policies in policies/{slug}/")),
    );
    let note = "the export says neither priorities nor what is enabled: the order here is that of the file";
    import.out.report.push(note.to_owned());
    Ok(import.out)
}

fn rules(root: &Element) -> Vec<&Element> {
    let mut found = Vec::new();
    let mut left = vec![root];
    while let Some(element) = left.pop() {
        if element.local_name() == "EPOPolicyRule" {
            found.push(element);
        } else {
            let within: Vec<&Element> = element.elements().collect();
            left.extend(within.into_iter().rev());
        }
    }
    found
}

#[derive(Default)]
struct Importer {
    out: Imported,
    categories: BTreeMap<String, String>,
    names: BTreeMap<String, usize>,
}

impl Importer {
    fn rule(&mut self, rule: &Element) {
        let name = self.unique(&value(rule, "name").unwrap_or_default());
        let (conditions, policies) = match (conditions(rule), self.policies(rule)) {
            (Ok(conditions), Ok(policies)) => (conditions, policies),
            (Err(why), _) | (_, Err(why)) => {
                self.out.left += 1;
                let expression = value(rule, "systemExpression").unwrap_or_default();
                self.out.toml += &format!("# Not understood: {}\n", comment(&name));
                let lines = [why.as_str(), &expression].map(comment);
                for line in lines.iter().filter(|line| !line.trim().is_empty()) {
                    self.out.toml += &format!("#   {line}\n");
                }
                self.out.toml.push('\n');
                self.out.report.push(format!(
                    "rule `{}` was not understood: {}",
                    comment(&name),
                    comment(&why)
                ));
                return;
            }
        };
        self.out.rules += 1;
        if let Some(notes) = value(rule, "notes").filter(|notes| !notes.is_empty()) {
            self.out.toml += &format!("# {}\n", comment(&notes));
        }
        // Alternatives stand behind each other and give the same, so that their order means nothing.
        for (number, conditions) in (1..).zip(&conditions) {
            let name = if number == 1 { name.clone() } else { self.unique(&format!("{name} / {number}")) };
            self.out.toml += &fragment(&name, conditions, &policies);
        }
    }

    /// A name that a rule can have, and no other has.
    fn unique(&mut self, name: &str) -> String {
        let line: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = line.trim();
        let short = line.get(..line.floor_char_boundary(RULE_NAME_BYTES - 8)).unwrap_or(line).trim_end();
        let short = if short.is_empty() { "imported" } else { short };
        let times = self.names.entry(short.to_owned()).or_insert(0);
        *times += 1;
        if *times == 1 { short.to_owned() } else { format!("{short} ({times})") }
    }

    fn policies(&mut self, rule: &Element) -> Result<Vec<String>, String> {
        let mut policies = Vec::new();
        for assignment in rule.elements().filter(|it| it.local_name() == "EPOPolicyRuleAssignment") {
            let value = |name: &str| value(assignment, name).unwrap_or_default();
            let (policy, feature) = (value("policyname"), value("featureid"));
            let kind =
                Some(value("categoryid")).filter(|it| !it.is_empty()).unwrap_or_else(|| value("typeid"));
            if policy.is_empty() {
                return Err("a policy without a name".to_owned());
            }
            let category = slug(&format!("{feature}-{kind}"));
            self.categories.insert(category.clone(), format!("feature `{feature}`, category `{kind}`"));
            let path = format!("{category}/{}", slug(&policy));
            if !policies.contains(&path) {
                policies.push(path);
            }
        }
        if policies.is_empty() { Err("it gives no policy".to_owned()) } else { Ok(policies) }
    }
}

fn conditions(rule: &Element) -> Result<Vec<Conditions>, String> {
    let expression = value(rule, "systemExpression").unwrap_or_default();
    if value(rule, "userExpression").is_some_and(|it| !matches!(it.trim(), "" | "( where )" | "(where)")) {
        return Err("it is about users, and there is no directory of users here".to_owned());
    }
    if let Some(method) = value(rule, "assignmentMethod").filter(|method| method != "1") {
        return Err(format!("its assignment method is `{method}` and not 1, by system"));
    }
    if expression.trim().is_empty() {
        return Err("it has no expression".to_owned());
    }
    expression::parse(&expression)
}

/// An attribute, or the text of an element of that name.
fn value(element: &Element, name: &str) -> Option<String> {
    let attribute = element.attribute(name).map(str::to_owned);
    attribute.or_else(|| element.elements().find(|it| it.local_name() == name).map(Element::text))
}

/// A name that a file can have: what it cannot have is a dash.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
        if c != '-' || !slug.ends_with('-') {
            slug.push(c);
        }
    }
    let slug: String = slug.trim_matches(['-', '_']).chars().take(NAME_BYTES).collect();
    let slug = slug.trim_end_matches(['-', '_']);
    if slug.is_empty() { "unnamed".to_owned() } else { slug.to_owned() }
}

fn fragment(name: &str, conditions: &Conditions, policies: &[String]) -> String {
    let list = |texts: &[String]| {
        let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
        format!("[{}]", quoted.join(", "))
    };
    let mut text = format!("[[rule]]\nname = {}\n", quote(name));
    let place = |place: &TreePath| list(&[place.to_string()]);
    // The top of the tree is everybody's.
    if let Some(tree) = conditions.tree.as_ref().filter(|tree| tree.as_str() != "/") {
        text += &format!("tree = {}\n", place(tree));
    }
    if let Some(folder) = &conditions.folder {
        text += &format!("folder = {}\n", place(folder));
    }
    for (key, tags) in [("all_tags", &conditions.all_tags), ("without_tags", &conditions.without_tags)] {
        if !tags.is_empty() {
            text += &format!("{key} = {}\n", list(tags));
        }
    }
    text + &format!("policies = {}\n\n", list(policies))
}

/// A basic string of TOML.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Text that stays in its line of comment.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(2_000).collect()
}
