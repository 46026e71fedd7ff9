//! How the demo talks: a paragraph at a time on stdout, with colours only where they can be seen, and figures as people
//! say them.

use std::io::Write as _;
use std::time::Duration;

pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const PLAIN: &str = "\x1b[0m";

/// Tests look at the report; a story with failures on purpose would only confuse who reads their output.
pub(super) const QUIET: bool = cfg!(test);

/// A paragraph on stdout.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    if QUIET {
        return Ok(());
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// A title that stands out.
pub(super) fn heading(title: &str) -> String {
    format!("\n{BOLD}{title}{PLAIN}")
}

/// How long a line of `rate` bytes per second needs for `bytes`.
pub(super) fn time_for(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

/// A duration with three figures: `3.2 ms`, `6.71 s`, `14 min 3 s`.
pub(super) fn render_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.2} s"),
        _ if time.as_secs() < 7_200 => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
        _ => format!("{} h {} min", time.as_secs() / 3_600, time.as_secs() / 60 % 60),
    }
}

/// A line's rate as people say it, in bits: `20 Mbit/s`.
pub(super) fn render_rate(bytes_per_second: u64) -> String {
    let mbit = bytes_per_second as f64 * 8.0 / 1e6;
    let digits = usize::from(mbit.fract() >= 0.05);
    format!("{mbit:.digits$} Mbit/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_for_people() {
        assert_eq!(render_time(Duration::from_micros(3_240)), "3.2 ms");
        assert_eq!(render_time(Duration::from_millis(412)), "412 ms");
        assert_eq!(render_time(Duration::from_millis(6_710)), "6.71 s");
        assert_eq!(render_time(Duration::from_secs(843)), "14 min 3 s");
        assert_eq!(render_time(Duration::from_secs(7_500)), "2 h 5 min");
        assert_eq!(render_rate(2_500_000), "20 Mbit/s");
        assert_eq!(render_rate(187_500), "1.5 Mbit/s");
        assert_eq!(time_for(5_000_000, 2_500_000), Duration::from_secs(2));
    }
}
