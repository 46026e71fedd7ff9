//! Figures of several servers and runs, as a table of medians.

use std::fmt::Write as _;

/// One figure of one run.
pub struct Figure {
    /// What was done, with the unit.
    pub what: String,
    pub value: f64,
    /// Digits after the point.
    pub digits: usize,
}

impl Figure {
    /// A figure.
    pub fn new(what: impl Into<String>, value: f64, digits: usize) -> Self {
        Self { what: what.into(), value, digits }
    }
}

/// Rows by what was measured, columns by who; in the order in which they came.
#[derive(Default)]
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    digits: usize,
    /// Of each column that has any, the runs.
    cells: Vec<(&'static str, Vec<f64>)>,
}

impl Table {
    /// Adds what one run of `who` gave.
    pub fn add(&mut self, who: &'static str, figures: Vec<Figure>) {
        if !self.columns.contains(&who) {
            self.columns.push(who);
        }
        for figure in figures {
            let row = match self.rows.iter_mut().position(|row| row.what == figure.what) {
                Some(at) => self.rows.get_mut(at),
                None => {
                    let Figure { what, digits, .. } = figure;
                    self.rows.push(Row { what, digits, cells: Vec::new() });
                    self.rows.last_mut()
                }
            };
            let Some(row) = row else { continue };
            match row.cells.iter_mut().find(|(name, _)| *name == who) {
                Some((_, runs)) => runs.push(figure.value),
                None => row.cells.push((who, vec![figure.value])),
            }
        }
    }

    /// The medians, as Markdown.
    pub fn render(&mut self) -> String {
        let mut text =
            format!("| what | {} |\n|---|{}\n", self.columns.join(" | "), "---|".repeat(self.columns.len()));
        for row in &mut self.rows {
            let _ = write!(text, "| {} |", row.what);
            for column in &self.columns {
                let cell = row.cells.iter_mut().find(|(name, _)| name == column);
                let median = cell.and_then(|(_, runs)| {
                    runs.sort_by(f64::total_cmp);
                    runs.get(runs.len() / 2).copied()
                });
                let _ = match median {
                    Some(value) => write!(text, " {value:.*} |", row.digits),
                    None => write!(text, " – |"),
                };
            }
            text.push('\n');
        }
        text
    }
}
