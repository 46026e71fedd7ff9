//! An explanation for people: one screen, top to bottom in the order of the decisions.

use std::fmt;

use super::explain::Explanation;
use super::model::State;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "agent      {}", self.agent)?;
        writeln!(f, "tree       {}  ({})", self.tree, self.tree_because)?;
        let tags = if self.tags.is_empty() { "-".to_owned() } else { self.tags.join(", ") };
        writeln!(f, "tags       {tags}  ({})", self.tags_because)?;
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(", ") };
        writeln!(f, "addresses  {addresses}")?;
        let place = self.rule.place.as_deref().map_or_else(String::new, |place| format!(" ({place})"));
        writeln!(f, "\nrule       {}{place}: {}", self.rule.name, self.rule.because)?;
        for rule in &self.passed_over {
            let place = rule.place.as_deref().unwrap_or_default();
            writeln!(f, "   not     {} ({place}): {}", rule.name, rule.because)?;
        }
        for group in &self.groups {
            writeln!(f, "group      {}, {}: {}", group.name, group.order.as_str(), group.because)?;
        }
        writeln!(f, "\nhandlers   {}", self.selection.as_str())?;
        for handler in &self.handlers {
            let state = match handler.state {
                State::Active => String::new(),
                other => format!(" [{}]", other.as_str()),
            };
            let (order, name, internal) = (handler.order, &handler.name, &handler.internal);
            writeln!(f, "  {order:>3}      {name} {internal}{state}: {}", handler.because)?;
        }
        for left in &self.left_out {
            writeln!(f, "    -      {}: {}", left.name, left.because)?;
        }
        for repository in &self.repositories {
            writeln!(f, "  then     {repository}")?;
        }
        self.write_policies(f)
    }
}

impl Explanation {
    /// The part about policies alone.
    pub fn policies_text(&self) -> String {
        struct Part<'a>(&'a Explanation);
        impl fmt::Display for Part<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_policies(f)
            }
        }
        Part(self).to_string()
    }

    fn write_policies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\npolicies   {}", self.policies.len())?;
        for policy in &self.policies {
            let digest = policy.sha256.to_string();
            let short = digest.get(..12).unwrap_or_default();
            writeln!(f, "           {}/{} {short}: {}", policy.category, policy.name, policy.because)?;
            for other in &policy.instead_of {
                writeln!(f, "              instead of {other}")?;
            }
        }
        Ok(())
    }
}
