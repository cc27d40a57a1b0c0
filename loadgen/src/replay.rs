//! Real views from a file, in file order, at full speed or at the pace at which they happened: `loadgen replay`.
//!
//! It changes nothing but the times, all by one shift. Invariant: every line of the file is sent exactly once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use highwater_client::ClientError;
use highwater_proto::{BatchBuilder, Pushed, TIMESTAMP_MS_MAX, View};

use crate::csv::ViewsFile;
use crate::error::LoadError;
use crate::oracle::Row;
use crate::progress::Progress;
use crate::report::Outcome;
use crate::run::carry_out;
use crate::send::{Due, Next, Start, Target, Workload, wall_ms};

/// At a set speed a batch covers at most this much of the plan, so that sparse views are not held back until it is
/// full.
const BATCH_SPAN_MAX: Duration = Duration::from_millis(100);

/// How the file's times become event times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// Add so many milliseconds.
    ByMs(i64),
    /// Shift so that the newest view of the file happens now.
    ToNow,
}

/// How fast the file is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as the engine answers.
    Max,
    /// So many times as fast as it happened.
    Times(f64),
}

/// What to replay and where to send it.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The engine and the way to it.
    pub target: Target,
    /// CSV with the header of [`crate::csv::HEADER`], gzip by the extension `.gz`.
    pub file: PathBuf,
    /// What happens to times.
    pub shift: Shift,
    /// Pace.
    pub speed: Speed,
}

/// Reads the whole file, sends it, waits for every answer and compares where asked to. Blocks; call it outside of any
/// asynchronous runtime.
///
/// # Errors
/// What keeps the load from starting; later failures are in the outcome.
pub fn replay(options: &ReplayOptions, progress: &Arc<Progress>) -> Result<Outcome, LoadError> {
    let file = ViewsFile::open(&options.file)?;
    let shift_ms = shift_ms(&file, options.shift, wall_ms());
    check_shift(&file, shift_ms)?;
    let workload = Replayed { file, shift_ms, speed: options.speed, next: 0, planned: Duration::ZERO, first_ms: None };
    carry_out(&options.target, workload, progress, Duration::ZERO, shift_ms)
}

fn shift_ms(file: &ViewsFile, shift: Shift, now_ms: u64) -> i64 {
    match (shift, file.time_range_ms()) {
        (Shift::ByMs(shift_ms), _) => shift_ms,
        // Both are far below the largest i64: the file's by its own check, the clock's for millions of years.
        (Shift::ToNow, Some((_, newest_ms))) => now_ms as i64 - newest_ms as i64,
        (Shift::ToNow, None) => 0,
    }
}

fn shifted(timestamp_ms: u64, shift_ms: i64) -> Option<u64> {
    timestamp_ms.checked_add_signed(shift_ms).filter(|shifted| *shifted <= TIMESTAMP_MS_MAX)
}

fn check_shift(file: &ViewsFile, shift_ms: i64) -> Result<(), LoadError> {
    let outside =
        (0..file.len()).map(|index| file.view(index)).find(|view| shifted(view.view.timestamp_ms, shift_ms).is_none());
    match outside {
        None => Ok(()),
        Some(view) => Err(LoadError::ShiftOutOfRange {
            line: u64::from(view.line),
            timestamp_ms: view.view.timestamp_ms,
            shift_ms,
            limit_ms: TIMESTAMP_MS_MAX,
        }),
    }
}

/// The file's batches in order.
#[derive(Debug)]
struct Replayed {
    file: ViewsFile,
    shift_ms: i64,
    speed: Speed,
    next: usize,
    /// Planned time of the last view planned; the plan never goes back, whatever the file's order.
    planned: Duration,
    first_ms: Option<u64>,
}

impl Replayed {
    /// The planned time of a view at a set speed.
    fn plan(&self, timestamp_ms: u64, times: f64) -> Duration {
        let since_first_ms = timestamp_ms.saturating_sub(self.first_ms.unwrap_or(timestamp_ms));
        // The longest span a file can hold, slowed down a lot, is still a duration; beyond it the plan just ends late.
        let happened = Duration::try_from_secs_f64(since_first_ms as f64 / 1000.0 / times).unwrap_or(Duration::MAX);
        happened.max(self.planned)
    }
}

impl Workload for Replayed {
    type Ids = ViewsFile;

    fn ids(&self) -> &ViewsFile {
        &self.file
    }

    fn views_planned(&self) -> u64 {
        self.file.len() as u64
    }

    fn fill(&mut self, batch: &mut BatchBuilder, rows: &mut Vec<Row>, _: Start) -> Result<Option<Next>, LoadError> {
        let mut batch_starts = None;
        while self.next < self.file.len() {
            let view = self.file.view(self.next);
            let file_ms = view.view.timestamp_ms;
            let planned = match self.speed {
                Speed::Max => Duration::ZERO,
                Speed::Times(times) => self.plan(file_ms, times),
            };
            if planned > batch_starts.unwrap_or(planned) + BATCH_SPAN_MAX {
                break;
            }
            let timestamp_ms = shifted(file_ms, self.shift_ms).unwrap_or(file_ms);
            match batch.push(&View { timestamp_ms, ..view.view }).map_err(ClientError::from)? {
                Pushed::Full => break,
                Pushed::Added => rows.push(Row { video: view.video, timestamp_ms }),
            }
            self.first_ms.get_or_insert(file_ms);
            batch_starts.get_or_insert(planned);
            self.planned = planned;
            self.next += 1;
        }
        let due = match self.speed {
            Speed::Max => Due::AtOnce,
            Speed::Times(_) => Due::After(self.planned),
        };
        Ok(batch_starts.map(|_| Next { due, recurring: None }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use highwater_proto::{BATCH_BYTES_MAX, ProducerId, Sequence};

    use super::*;

    fn replayed(times_ms: &[u64], speed: Speed, shift_ms: i64) -> Replayed {
        let mut text = "video_id,ts_ms,user_id,region,device\n".to_owned();
        for (index, time_ms) in times_ms.iter().enumerate() {
            text.push_str(&format!("v{index},{time_ms},u,r,d\n"));
        }
        let file = ViewsFile::parse(Path::new("test.csv"), text.as_bytes()).unwrap();
        Replayed { file, shift_ms, speed, next: 0, planned: Duration::ZERO, first_ms: None }
    }

    fn batches(mut workload: Replayed, batch_views: u32) -> Vec<(Due, Vec<Row>)> {
        let mut batch = BatchBuilder::new(batch_views, BATCH_BYTES_MAX as u32);
        let mut all = Vec::new();
        loop {
            let mut rows = Vec::new();
            match workload.fill(&mut batch, &mut rows, Start::now()).unwrap() {
                None => return all,
                Some(Next { due, .. }) => {
                    assert_eq!(batch.len() as usize, rows.len());
                    batch.encode(ProducerId(1), Sequence(1));
                    all.push((due, rows));
                }
            }
        }
    }

    #[test]
    fn every_line_is_sent_once_in_file_order_with_its_shift() {
        let times: Vec<u64> = (0..25).map(|index| 1000 + index * 7 % 50).collect();
        let all = batches(replayed(&times, Speed::Max, -500), 10);
        let lengths: Vec<usize> = all.iter().map(|(_, rows)| rows.len()).collect();
        assert_eq!(lengths, [10, 10, 5]);
        assert!(all.iter().all(|(due, _)| *due == Due::AtOnce));
        let sent: Vec<u64> = all.iter().flat_map(|(_, rows)| rows).map(|row| row.timestamp_ms + 500).collect();
        assert_eq!(sent, times);
    }

    #[test]
    fn at_a_set_speed_the_plan_follows_the_file_and_never_goes_back() {
        let times = [10_000, 10_050, 10_020, 12_000, 11_000, 12_090, 12_200];
        let all = batches(replayed(&times, Speed::Times(1.0), 0), 100);
        let plan: Vec<(Due, usize)> = all.iter().map(|(due, rows)| (*due, rows.len())).collect();
        let after = |ms| Due::After(Duration::from_millis(ms));
        assert_eq!(plan, [(after(50), 3), (after(2090), 3), (after(2200), 1)]);
        let double = batches(replayed(&times, Speed::Times(2.0), 0), 100);
        assert_eq!(double.last().unwrap().0, after(1100));
    }

    #[test]
    fn shifts_reach_now_and_stay_in_range() {
        let file = replayed(&[1000, 5000, 3000], Speed::Max, 0).file;
        assert_eq!(shift_ms(&file, Shift::ToNow, 9000), 4000);
        assert_eq!(shift_ms(&file, Shift::ByMs(-3), 9000), -3);
        assert!(check_shift(&file, -1000).is_ok());
        let text = check_shift(&file, -1001).unwrap_err().to_string();
        assert!(text.contains("line 2") && text.contains("-1001"), "{text}");
        assert!(check_shift(&file, TIMESTAMP_MS_MAX as i64 - 4999).is_err());
    }

    #[test]
    fn an_empty_file_sends_nothing() {
        assert!(batches(replayed(&[], Speed::Max, 0), 10).is_empty());
    }
}
