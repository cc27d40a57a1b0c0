//! The naive truth: every view, counted anew for every question.

use std::ops::Range;

use highwater_proto::{Period, Window};

use crate::{CalendarPeriod, Minute, WindowLengths};

/// A view as the oracle keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenView {
    pub(crate) video: usize,
    pub(crate) minute: Minute,
    pub(crate) class: u8,
}

/// All views, and the ids of the videos that can be viewed.
pub(crate) struct Oracle {
    pub(crate) ids: Vec<String>,
    pub(crate) views: Vec<SeenView>,
    pub(crate) windows: WindowLengths,
}

impl Oracle {
    /// Where a window begins and ends at the engine minute, and the latest class that counts in it.
    fn bounds(&self, (period, window): (Period, Window), minute: Minute) -> (Range<Minute>, u8) {
        let calendar = &self.windows.calendar;
        let sliding = |start| (start..Minute(u32::MAX), 3);
        let tumbling = |kind: CalendarPeriod| (calendar.period_at(kind, minute), kind as u8);
        match (period, window) {
            (Period::AllTime, _) => sliding(Minute(0)),
            (Period::Hour, Window::Sliding) => sliding(minute.minus(self.windows.hour)),
            (Period::Day, Window::Sliding) => sliding(minute.minus(self.windows.day)),
            (Period::Month, Window::Sliding) => {
                let start = minute.minus(self.windows.month);
                sliding(calendar.period_at(CalendarPeriod::Hour, start).start)
            }
            (Period::Hour, Window::Tumbling) => tumbling(CalendarPeriod::Hour),
            (Period::Day, Window::Tumbling) => tumbling(CalendarPeriod::Day),
            (Period::Month, Window::Tumbling) => tumbling(CalendarPeriod::Month),
        }
    }

    /// The count of every video in a period and window at the engine minute.
    pub(crate) fn counts(&self, of: (Period, Window), minute: Minute) -> Vec<u64> {
        let (minutes, class_max) = self.bounds(of, minute);
        let mut counts = vec![0; self.ids.len()];
        for view in &self.views {
            if minutes.contains(&view.minute) && view.class <= class_max {
                counts[view.video] += 1;
            }
        }
        counts
    }

    /// The top K of a period and window at the engine minute: id and count; and the views of all videos.
    pub(crate) fn top(&self, of: (Period, Window), minute: Minute, k: usize) -> (Vec<(&str, u64)>, u64) {
        let counts = self.counts(of, minute);
        let mut rows: Vec<(&str, u64)> = (0..counts.len())
            .filter(|&video| counts[video] > 0)
            .map(|video| (self.ids[video].as_str(), counts[video]))
            .collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.as_bytes().cmp(b.0.as_bytes())));
        rows.truncate(k);
        (rows, counts.iter().sum())
    }
}

/// A distinct id per number: typical ones, ones of 15 and 16 bytes, long ones, prefixes of each
/// other and ones of several bytes a character.
pub(crate) fn id_of(video: usize) -> String {
    let mixed = (video as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    match video % 16 {
        0 => "p".repeat(1 + video / 16 % 40) + &format!("{video}"),
        1 => format!("{mixed:04x}{video:011}").chars().take(4).collect::<String>() + &format!("{video:011}"),
        2 => format!("{video:016}"),
        3 => format!("{video}é") + &"ü".repeat(video / 16 % 60),
        4 => format!("{video:0>255}"),
        5 => format!("{video:0>33}"),
        _ => format!("{:03x}-{video:07}", mixed & 0xFFF),
    }
}
