//! A view: one video watched once.
//!
//! What it is not: a decoded batch, which holds views by column. Invariant: none of its own; [`View::check`] says
//! whether it can travel.

use crate::error::InvalidView;
use crate::limits::{FIELD_BYTES_MAX, VIDEO_ID_BYTES_MAX};

/// One view, borrowing its strings. Ranking uses the first two fields; all five are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View<'a> {
    /// The video: 1 to 255 bytes of UTF-8.
    pub video_id: &'a str,
    /// When it was viewed: milliseconds since 1970 (UTC), by the clock of whoever saw it.
    pub timestamp_ms: u64,
    /// Who viewed it: up to 255 bytes, may be empty.
    pub user_id: &'a str,
    /// Where: up to 255 bytes, may be empty.
    pub region: &'a str,
    /// With what: up to 255 bytes, may be empty.
    pub device: &'a str,
}

impl View<'_> {
    /// Whether every string is within its limits. The time is not judged here: the engine refuses it by reason.
    pub fn check(&self) -> Result<(), InvalidView> {
        if self.video_id.is_empty() {
            return Err(InvalidView::VideoIdEmpty);
        }
        if self.video_id.len() > VIDEO_ID_BYTES_MAX {
            return Err(InvalidView::VideoIdTooLong { bytes: self.video_id.len() });
        }
        for (field, text) in [("user_id", self.user_id), ("region", self.region), ("device", self.device)] {
            if text.len() > FIELD_BYTES_MAX {
                return Err(InvalidView::FieldTooLong { field, bytes: text.len() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        let longest = "x".repeat(255);
        let too_long = "x".repeat(256);
        let view = View { video_id: &longest, timestamp_ms: 0, user_id: &longest, region: &longest, device: &longest };
        assert_eq!(view.check(), Ok(()));
        assert_eq!(View { video_id: "", ..view }.check(), Err(InvalidView::VideoIdEmpty));
        assert_eq!(View { video_id: &too_long, ..view }.check(), Err(InvalidView::VideoIdTooLong { bytes: 256 }));
        let device = View { device: &too_long, ..view };
        assert_eq!(device.check(), Err(InvalidView::FieldTooLong { field: "device", bytes: 256 }));
    }
}
