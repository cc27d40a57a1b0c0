//! Measurements of whole engines: each starts `highwater` on one CPU, loads it from another, and verifies its lists.
//!
//! Not a test; figures are of this machine at this time. Invariant: no figure is told of a load that was not
//! acknowledged in full, or of an engine whose lists were wrong.

mod compare;
mod growth;
mod page;
mod session;
mod sweep;

pub use compare::{CompareArgs, compare};
pub use growth::{GrowthArgs, growth};
pub use session::{LoadArgs, Stage};
pub use sweep::{SweepArgs, sweep};

/// The middle of values that ascend; of an even number of them, half-way between the middle two.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

/// Numbers of a column under its heading, to the right, as a table in Markdown; the first column is text.
fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].len()).chain([headings[at].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, &width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().enumerate().map(|(at, &width)| match at {
        0 => "-".repeat(width + 2),
        _ => format!("{}:", "-".repeat(width + 1)),
    });
    let mut lines = vec![line(&mut headings.iter().copied()), format!("|{}|", rule.collect::<Vec<_>>().join("|"))];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let rows = [vec!["a".to_owned(), "12345".to_owned()], vec!["long".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["", "n"], &rows), "|      |     n |\n|------|------:|\n| a    | 12345 |\n| long |     1 |");
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_its_middle_two() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]).to_bits(), 3.0_f64.to_bits());
        assert_eq!(median(&[5.0]).to_bits(), 5.0_f64.to_bits());
    }
}
