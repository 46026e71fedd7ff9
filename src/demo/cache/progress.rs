//! Progress on stderr: two bars on a terminal, a line a quarter otherwise.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::size::render_size;
use crate::demo::print::QUIET;
use crate::demo::wan::Wan;

const EVERY: Duration = Duration::from_millis(100);

/// What one act moves.
pub(super) struct Goal {
    /// Bytes that have to cross the WAN.
    pub(super) wan: u64,
    /// Bytes that have to reach agents.
    pub(super) agents: u64,
}

/// Shows how far an act is, until `done` is.
pub(super) async fn show<T>(
    wan: &Wan,
    delivered: &Arc<AtomicU64>,
    goal: Goal,
    done: impl Future<Output = T>,
) -> T {
    let began = wan.received();
    let mut view = View::new(&goal);
    let mut ticks = tokio::time::interval(EVERY);
    tokio::pin!(done);
    loop {
        tokio::select! {
            outcome = &mut done => {
                view.clear();
                return outcome;
            }
            _ = ticks.tick() => view.show(wan.received() - began, delivered.load(Ordering::Relaxed)),
        }
    }
}

enum View {
    Bars { wan: ProgressBar, agents: ProgressBar },
    Lines { goal: u64, quarter: u64 },
}

impl View {
    fn new(goal: &Goal) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { goal: goal.agents, quarter: 1 };
        }
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "   {prefix:<16} [{bar:32}] {binary_bytes:>10} of {binary_total_bytes:<10} {binary_bytes_per_sec}",
        );
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
        let bar = |name: &'static str, len| {
            let bar = bars.add(ProgressBar::new(len).with_style(style.clone()));
            bar.set_prefix(name);
            bar
        };
        Self::Bars { wan: bar("over the WAN", goal.wan), agents: bar("to the agents", goal.agents) }
    }

    fn show(&mut self, crossed: u64, delivered: u64) {
        match self {
            Self::Bars { wan, agents } => {
                wan.set_position(crossed.min(wan.length().unwrap_or(crossed)));
                agents.set_position(delivered);
            }
            Self::Lines { goal, quarter } => {
                let reached = delivered * 4 / (*goal).max(1);
                if (*quarter..4).contains(&reached) && !QUIET {
                    *quarter = reached + 1;
                    let (crossed, delivered) = (render_size(crossed), render_size(delivered));
                    let line = format!("   … {crossed} over the WAN, {delivered} to the agents");
                    // Talk: when nobody listens, the demo goes on.
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            }
        }
    }

    fn clear(&self) {
        if let Self::Bars { wan, agents } = self {
            wan.finish_and_clear();
            agents.finish_and_clear();
        }
    }
}
