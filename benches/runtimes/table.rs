//! The table of all rounds: for each runtime the median, the least and the most of each figure.
//!
//! Invariant: it reads as a table in Markdown and, its columns being aligned, in a terminal.

use crate::round::Figures;
use highwater_loadgen::measure::median;
use highwater_loadgen::table::aligned;

/// A figure: its heading, decimals, and where it is.
type Column = (&'static str, usize, fn(&Figures) -> f64);

const COLUMNS: [Column; 8] = [
    ("views/s", 0, |figures| figures.views_per_s),
    ("CPU s/M views", 3, |figures| figures.cpu_s_per_million_views),
    ("views/CPU s", 0, |figures| figures.views_per_cpu_s),
    ("ack p50 us", 0, |figures| figures.ack_us_p50),
    ("ack p99 us", 0, |figures| figures.ack_us_p99),
    ("idle CPU %", 2, |figures| figures.idle_percent),
    ("subscribed CPU %", 2, |figures| figures.subscribed_percent),
    ("silences", 0, |figures| figures.silences),
];

/// What is told of a figure over the rounds: its name, and how it is found in values that ascend.
type Statistic = (&'static str, fn(&[f64]) -> f64);

const STATISTICS: [Statistic; 3] =
    [("median", median), ("min", |sorted| sorted[0]), ("max", |sorted| sorted[sorted.len() - 1])];

/// The table and what it must not be taken for, without a line end; every runtime has at least one round.
pub(crate) fn table(rows: &[(&str, Vec<Figures>)]) -> String {
    let mut cells: Vec<Vec<String>> = vec![["runtime", "over rounds"].map(str::to_owned).to_vec()];
    cells[0].extend(COLUMNS.map(|(heading, ..)| heading.to_owned()));
    for (runtime, rounds) in rows {
        for (name, statistic) in STATISTICS {
            let mut line = vec![(*runtime).to_owned(), name.to_owned()];
            line.extend(COLUMNS.map(|(_, decimals, figure)| {
                let mut values: Vec<f64> = rounds.iter().map(figure).collect();
                values.sort_by(f64::total_cmp);
                format!("{:.decimals$}", statistic(&values))
            }));
            cells.push(line);
        }
    }
    [vec![aligned(&cells, 2)], rows.iter().filter_map(late).collect()].concat().join("\n\n")
}

/// That the generator was late in rounds of a runtime.
fn late((runtime, rounds): &(&str, Vec<Figures>)) -> Option<String> {
    let late = rounds.iter().filter(|figures| figures.is_late).count();
    let words = "the generator was late itself: these acknowledgement times are not the engine's alone";
    (late > 0).then(|| format!("In {late} of {} rounds of {runtime} {words}.", rounds.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: f64) -> Figures {
        Figures {
            views_per_s: 1000.0 * value,
            cpu_s_per_million_views: value,
            views_per_cpu_s: 1e6 / value,
            ack_us_p50: value,
            ack_us_p99: 10.0 * value,
            is_late: value > 5.0,
            idle_percent: value / 10.0,
            subscribed_percent: value / 5.0,
            silences: 0.0,
        }
    }

    #[test]
    fn each_runtime_shows_median_least_and_most() {
        let three = [2.0, 1.0, 6.0].map(figures).to_vec();
        let text = table(&[("glommio", three), ("thread", vec![figures(4.0)])]);
        let (table, late) = text.split_once("\n\n").unwrap();
        assert!(late.starts_with("In 1 of 3 rounds of glommio ") && !late.contains("thread"), "{late}");
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 8, "{table}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
        let fields = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(fields(lines[2])[1..5], ["glommio", "median", "2000", "2.000"]);
        assert_eq!(fields(lines[3])[1..5], ["glommio", "min", "1000", "1.000"]);
        assert_eq!(fields(lines[4])[1..5], ["glommio", "max", "6000", "6.000"]);
        assert_eq!(fields(lines[5])[1..5], ["thread", "median", "4000", "4.000"]);
        assert_eq!(fields(lines[5])[8..11], ["0.40", "0.80", "0"]);
    }
}
