//! Metrics as text: OpenMetrics for those who ask, the classic format for everybody else.

use std::fmt::Write as _;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// A text format for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Classic,
}

impl Exposition {
    /// The format a scraper's `Accept` asks for.
    pub fn choose(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    pub(super) fn render(self, registry: &Registry) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, registry) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        match self {
            Self::OpenMetrics => text,
            Self::Classic => classic(&text),
        }
    }
}

/// In the classic format a family is named like its samples, and there are neither units nor infos nor an end mark.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (end, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, words)) = help.take().and_then(|help| help.split_once(' ')) {
                let _ = writeln!(out, "# HELP {name}{end} {words}");
            }
            let _ = writeln!(out, "# TYPE {name}{end} {kind}");
        } else if !line.starts_with("# ") {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_ask_for_openmetrics_gets_the_classic_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
        assert_eq!(Exposition::choose(Some(prometheus)), Exposition::OpenMetrics);
        assert_eq!(Exposition::choose(Some("*/*")), Exposition::Classic);
        assert_eq!(Exposition::choose(None), Exposition::Classic);
    }

    #[test]
    fn classic_families_are_named_like_their_samples() {
        let text =
            "# HELP a_b Words here.\n# TYPE a_b counter\n# UNIT a_b b\na_b_total{x=\"# TYPE\"} 1\n# EOF\n";
        let want = "# HELP a_b_total Words here.\n# TYPE a_b_total counter\na_b_total{x=\"# TYPE\"} 1\n";
        assert_eq!(classic(text), want);
    }
}
