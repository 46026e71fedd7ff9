//! Answers on stdout: tables for people, JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::args::GlobalArgs;
use super::operate_args::Output;
use super::talk;

/// Rows under headings, columns as wide as they have to be. Text to the left, numbers to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: &'static [usize],
}

impl Table {
    pub(super) fn new(heading: &[&str], right: &'static [usize]) -> Self {
        Self { rows: vec![heading.iter().map(|&text| text.to_owned()).collect()], right }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if self.right.contains(&column) {
                    write!(line, "{cell:>width$}  ")
                } else {
                    write!(line, "{cell:<width$}  ")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Without what could command a terminal: names of files are somebody else's.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Lines without what could command a terminal.
pub(super) fn lines(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

/// An answer as JSON where that is asked for, else as `human` makes it. The human text may be empty.
pub(super) fn answer(
    global: &GlobalArgs,
    value: &impl Serialize,
    human: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = match global.format() {
        Output::Json => serde_json::to_string_pretty(value)? + "\n",
        Output::Jsonl => serde_json::to_string(value)? + "\n",
        Output::Table | Output::Wide => human(),
    };
    Ok(talk::data(&text)?)
}

/// A list: one line of JSON a row where that is asked for.
pub(super) fn list<T: Serialize>(
    global: &GlobalArgs,
    (whole, rows): (&impl Serialize, &[T]),
    human: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    if global.format() != Output::Jsonl {
        return answer(global, whole, human);
    }
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row)?;
        text.push('\n');
    }
    Ok(talk::data(&text)?)
}

/// A number with its noun.
pub(super) fn many(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

/// A time in its largest unit.
pub(super) fn time(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A part of a whole in percent; `-` where there is nothing to be a part of.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_nothing_commands_the_terminal() {
        let mut table = Table::new(&["NAME", "BYTES"], &[1]);
        table.row(vec!["a\u{1b}[31m".to_owned(), "5".to_owned()]);
        table.row(vec!["longer".to_owned(), "12345".to_owned()]);
        assert_eq!(table.render(), "NAME    BYTES\na\u{fffd}[31m      5\nlonger  12345\n");
    }

    #[test]
    fn numbers_have_their_nouns() {
        assert_eq!(
            (many(1, "entry"), many(2, "entry"), many(0, "fill")),
            ("1 entry".into(), "2 entries".into(), "0 fills".into())
        );
        assert_eq!((percent(1, 0), percent(1, 4)), ("-".to_owned(), "25.0 %".to_owned()));
        assert_eq!((time(90), time(7_200), time(400_000)), ("90 s".into(), "2 h".into(), "4 d".into()));
    }
}
