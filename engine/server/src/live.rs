//! The picture of a moving top list: a pure function from two snapshots to text.
//!
//! It draws nothing itself (`screen` does) and asks nobody for snapshots. Invariant: the text depends on the arguments
//! alone, no line is wider than the width given, and no video id can move the cursor or end a line.

use highwater_proto::{Board, Epoch, InstanceId, Period, Snapshot, Window};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns beside the video id: rank, movement, views, rate, and the gaps between them.
const COLUMNS_FIXED: usize = 4 + 2 + 5 + 2 + 2 + 12 + 2 + 12;

/// Columns of a video id that are kept even if the line must then be cut at its end.
const VIDEO_COLUMNS_MIN: usize = 8;

/// What is shown of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Whose list, by the sliding window.
    pub period: Period,
    /// Rows at most.
    pub rows: usize,
    /// Columns at most.
    pub width: usize,
}

/// The newest snapshot and the one before it.
#[derive(Debug, Default)]
pub struct Feed {
    latest: Option<Arc<Snapshot>>,
    before: Option<Arc<Snapshot>>,
}

impl Feed {
    /// Takes a snapshot in; returns whether it is a new one. Snapshots of another data directory begin anew.
    pub fn push(&mut self, snapshot: Arc<Snapshot>) -> bool {
        let key = |one: &Snapshot| -> (InstanceId, Epoch) { (one.instance, one.epoch) };
        if self.latest.as_deref().map(key) == Some(key(&snapshot)) {
            return false;
        }
        self.before = self.latest.take().filter(|latest| latest.instance == snapshot.instance);
        self.latest = Some(snapshot);
        true
    }

    /// The picture, without a line before the first snapshot.
    #[must_use]
    pub fn picture(&self, view: View) -> String {
        self.latest.as_deref().map_or_else(String::new, |latest| picture(latest, self.before.as_deref(), view))
    }
}

/// Header and rows of one list, each line ended by a newline.
///
/// Beside each video stand its movement since `previous` (`▲2` up by two, `▼1`, `=`, or `new` where it was not in the
/// list) and the change of its views for each second between the two snapshots' times. That may be negative: a sliding
/// window loses views. Both stay empty where there is nothing to compare with.
#[must_use]
pub fn picture(snapshot: &Snapshot, previous: Option<&Snapshot>, view: View) -> String {
    let mut page = String::new();
    put_line(&mut page, &header(snapshot, view), view.width);
    let Some(board) = snapshot.board(view.period, Window::Sliding) else {
        put_line(&mut page, &format!("the engine keeps no list of the period {}", view.period), view.width);
        return page;
    };
    if board.rows.is_empty() {
        put_line(&mut page, "no views yet", view.width);
        return page;
    }
    let before = previous.and_then(|previous| Before::of(previous, snapshot, view.period));
    let shown: Vec<(String, usize)> = (board.rows.iter().take(view.rows).zip(0..))
        .map(|(row, index)| (row.video_id.escape_debug().to_string(), index))
        .collect();
    let room = view.width.saturating_sub(COLUMNS_FIXED).max(VIDEO_COLUMNS_MIN);
    let widest = shown.iter().map(|(id, _)| id.width()).max().unwrap_or(0);
    let columns = widest.clamp(VIDEO_COLUMNS_MIN, room);
    let titles = format!("{:>4}  {:<5}  {}  {:>12}  {:>12}", "rank", "move", fit("video", columns), "views", "views/s");
    put_line(&mut page, &titles, view.width);
    for (id, index) in shown {
        let row = &board.rows[index];
        let movement = before.as_ref().map_or_else(String::new, |before| before.movement(&row.video_id, index));
        let rate = before.as_ref().and_then(|before| before.rate(&row.video_id, row.view_count));
        let rate = rate.map_or_else(String::new, |rate| format!("{rate:.1}"));
        let id = fit(&id, columns);
        let line = format!("{:>4}  {movement:<5}  {id}  {:>12}  {rate:>12}", index + 1, row.view_count);
        put_line(&mut page, &line, view.width);
    }
    page
}

fn header(snapshot: &Snapshot, view: View) -> String {
    let time = i64::try_from(snapshot.as_of_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let time = time.unwrap_or(Timestamp::MAX);
    format!("top {} · {} · epoch {} · as of {time:.0}", view.rows, view.period, snapshot.epoch.0)
}

/// An earlier list to compare with.
struct Before<'a> {
    rows: HashMap<&'a str, (usize, u64)>,
    passed_ms: u64,
}

impl<'a> Before<'a> {
    fn of(previous: &'a Snapshot, now: &Snapshot, period: Period) -> Option<Self> {
        let board: &Board = previous.board(period, Window::Sliding)?;
        let rows = board.rows.iter().zip(0..).map(|(row, index)| (&*row.video_id, (index, row.view_count))).collect();
        Some(Self { rows, passed_ms: now.as_of_ms.saturating_sub(previous.as_of_ms) })
    }

    fn movement(&self, video_id: &str, index: usize) -> String {
        match self.rows.get(video_id) {
            None => "new".to_owned(),
            Some((before, _)) if *before > index => format!("▲{}", before - index),
            Some((before, _)) if *before < index => format!("▼{}", index - before),
            Some(_) => "=".to_owned(),
        }
    }

    /// Views for each second; `None` for a video that was not in the list, or if no time has passed.
    fn rate(&self, video_id: &str, view_count: u64) -> Option<f64> {
        let (_, before) = self.rows.get(video_id).filter(|_| self.passed_ms > 0)?;
        let change = i128::from(view_count) - i128::from(*before);
        Some(change as f64 * 1000.0 / self.passed_ms as f64)
    }
}

/// The text in exactly `columns` columns: filled with spaces, or cut and ended by `…`.
fn fit(text: &str, columns: usize) -> String {
    let mut fitted = cut(text, columns);
    fitted.extend(std::iter::repeat_n(' ', columns.saturating_sub(fitted.width())));
    fitted
}

/// As much of the text as fits into `columns` columns, ended by `…` if that is not all.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let mut used = 0;
    let fits = |character: &char| {
        used += character.width().unwrap_or(0);
        used <= room
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    if columns > 0 {
        kept.push('…');
    }
    kept
}

fn put_line(page: &mut String, line: &str, width: usize) {
    page.push_str(cut(line, width).trim_end());
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_proto::BoardRow;

    const WIDE: View = View { period: Period::Hour, rows: 10, width: 100 };

    fn snapshot(epoch: u64, as_of_ms: u64, rows: &[(&str, u64)]) -> Snapshot {
        let rows = rows.iter().map(|(id, count)| BoardRow { video_id: (*id).into(), view_count: *count }).collect();
        let (period, window) = (Period::Hour, Window::Sliding);
        let board = Board { period, window, start_ms: Some(0), end_ms: 1, total_views: 1000, rows };
        Snapshot { instance: InstanceId(1), epoch: Epoch(epoch), as_of_ms, boards: vec![board] }
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn movement_and_rate_are_those_since_the_previous_snapshot() {
        let before = snapshot(7, 10_000, &[("a", 50), ("b", 40), ("c", 30), ("d", 5)]);
        let now = snapshot(9, 12_000, &[("c", 61), ("a", 50), ("e", 45), ("b", 39), ("d", 7)]);
        let page = picture(&now, Some(&before), WIDE);
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines[0], "top 10 · hour · epoch 9 · as of 1970-01-01T00:00:12Z");
        assert_eq!(words(lines[1]), ["rank", "move", "video", "views", "views/s"]);
        assert_eq!(words(lines[2]), ["1", "▲2", "c", "61", "15.5"]);
        assert_eq!(words(lines[3]), ["2", "▼1", "a", "50", "0.0"]);
        assert_eq!(words(lines[4]), ["3", "new", "e", "45"]);
        assert_eq!(words(lines[5]), ["4", "▼2", "b", "39", "-0.5"]);
        assert_eq!(words(lines[6]), ["5", "▼1", "d", "7", "1.0"]);
        assert_eq!(lines.len(), 7);
        let again = picture(&now, Some(&now), WIDE);
        assert!(again.lines().skip(2).all(|line| words(line).len() == 4 && words(line)[1] == "="), "{again}");
    }

    #[test]
    fn a_first_picture_compares_with_nothing() {
        let page = picture(&snapshot(1, 0, &[("a", 3), ("b", 2)]), None, View { rows: 1, ..WIDE });
        let lines: Vec<_> = page.lines().collect();
        assert_eq!((lines.len(), words(lines[2])), (3, vec!["1", "a", "3"]));
    }

    #[test]
    fn ids_are_escaped_and_cut_to_their_column_and_lines_to_the_width() {
        let long = "視".repeat(85);
        let ids = [("\x1b[2J\n\u{202e}x", 9), (&*long, 8), ("plain", 7)];
        for width in [0, 1, 20, 40, 60, 80, 200] {
            let page = picture(&snapshot(1, 0, &ids), None, View { width, ..WIDE });
            assert_eq!(page.lines().count(), 5, "{page}");
            assert!(page.lines().all(|line| line.width() <= width), "{width}: {page}");
            assert!(page.chars().all(|one| one == '\n' || !one.is_control()) && !page.contains('\u{202e}'), "{page}");
        }
        let page = picture(&snapshot(1, 0, &ids), None, View { width: 80, ..WIDE });
        let lines: Vec<_> = page.lines().collect();
        assert!(lines[2].contains("\\u{1b}[2J\\n\\u{202e}x"), "{page}");
        assert!(lines[3].contains("視…") && lines[3].ends_with('8'), "{page}");
        let ends: Vec<_> = lines[2..].iter().map(|line| line.width()).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "the counts stand below each other: {page}");
    }

    #[test]
    fn a_list_without_rows_and_one_that_is_not_kept_say_so() {
        assert!(picture(&snapshot(1, 0, &[]), None, WIDE).contains("no views yet"));
        let page = picture(&snapshot(1, 0, &[("a", 1)]), None, View { period: Period::Day, ..WIDE });
        assert!(page.contains("no list of the period day"), "{page}");
    }

    #[test]
    fn a_feed_compares_with_the_snapshot_before_of_the_same_data_directory() {
        let mut feed = Feed::default();
        assert!(feed.picture(WIDE).is_empty());
        assert!(feed.push(Arc::new(snapshot(1, 1000, &[("a", 1)]))));
        assert!(!feed.push(Arc::new(snapshot(1, 1000, &[("a", 1)]))), "the same one again");
        assert!(feed.push(Arc::new(snapshot(2, 2000, &[("a", 4)]))));
        assert!(!feed.push(Arc::new(snapshot(2, 2000, &[("a", 4)]))));
        assert!(feed.picture(WIDE).contains("3.0"), "{}", feed.picture(WIDE));
        assert!(feed.push(Arc::new(Snapshot { instance: InstanceId(2), ..snapshot(1, 3000, &[("a", 9)]) })));
        assert!(!feed.picture(WIDE).contains('='), "{}", feed.picture(WIDE));
    }
}
