//! Tables in Markdown whose columns are aligned, so that they are read in a terminal as well.

/// Lines of cells, the headings first, with a rule below these: the first `names` columns to the left, the others,
/// which are numbers, to the right. Without a line end.
///
/// # Panics
/// When there is no line, or one has fewer cells than the headings.
#[must_use]
pub fn aligned(cells: &[Vec<String>], names: usize) -> String {
    let columns = cells[0].len();
    let width = |at: usize| cells.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |line: &Vec<String>| {
        let padded =
            line.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| {
                if at < names { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
        format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths
        .iter()
        .enumerate()
        .map(|(at, &width)| if at < names { "-".repeat(width + 2) } else { format!("{}:", "-".repeat(width + 1)) });
    let rule = format!("|{}|", rule.collect::<Vec<_>>().join("|"));
    let mut lines: Vec<String> = cells.iter().map(line).collect();
    lines.insert(1, rule);
    lines.join("\n")
}

/// Cells of a line from anything that is text.
#[must_use]
pub fn cells<T: AsRef<str>>(texts: &[T]) -> Vec<String> {
    texts.iter().map(|text| text.as_ref().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_to_the_left_and_numbers_to_the_right() {
        let lines = [cells(&["name", "n"]), cells(&["a", "12345"]), cells(&["longer", "1"])];
        let expected = "| name   |     n |\n|--------|------:|\n| a      | 12345 |\n| longer |     1 |";
        assert_eq!(aligned(&lines, 1), expected);
    }
}
