//! Streams that only ask: the look-up of one video, and the subscription to snapshots.
//!
//! What it is not: the snapshot itself, see [`crate::snapshot`]. Invariant: a decoded answer has each period and window
//! at most once.

use crate::error::DecodeError;
use crate::frame::FrameKind;
use crate::limits::{BOARDS_MAX, TOP_K_MAX, VIDEO_ID_BYTES_MAX};
use crate::wire::{Reader, in_range, put_frame, word};
use crate::words::{Epoch, InstanceId, Period, PeriodCount, VideoCounts, Window};

/// Asks for one video's counts: the first and only frame of a look-up stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The video.
    pub video_id: Box<str>,
}

impl Lookup {
    /// Appends the whole frame to `out`.
    ///
    /// # Panics
    /// If the video id has not 1 to 255 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::Lookup, |out| {
            out.extend_from_slice(&[video_id_length(&self.video_id), 0, 0, 0]);
            out.extend_from_slice(self.video_id.as_bytes());
        });
    }

    /// Reads the payload of a LOOKUP frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Lookup, payload)?;
        let bytes = reader.u8()?;
        reader.zeros::<3>()?;
        let video_id = reader.video_id(bytes)?.into();
        reader.finish()?;
        Ok(Self { video_id })
    }
}

/// Asks for snapshots: the first and only frame of a subscription stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Only snapshots of this epoch or later are sent; 0 = the newest at once.
    pub from_epoch: Epoch,
}

impl Subscribe {
    /// Appends the whole frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::Subscribe, |out| out.extend_from_slice(&self.from_epoch.0.to_le_bytes()));
    }

    /// Reads the payload of a SUBSCRIBE frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Subscribe, payload)?;
        let from_epoch = Epoch(reader.u64()?);
        reader.finish()?;
        Ok(Self { from_epoch })
    }
}

impl VideoCounts {
    /// Appends the whole LOOKUP_ANSWER frame to `out`.
    ///
    /// # Panics
    /// If the video id has not 1 to 255 bytes or there are more counts than boards.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.counts.len() <= BOARDS_MAX, "{} counts, allowed are {BOARDS_MAX}", self.counts.len());
        put_frame(out, FrameKind::LookupAnswer, |out| {
            out.extend_from_slice(&self.instance.0.to_le_bytes());
            out.extend_from_slice(&self.epoch.0.to_le_bytes());
            out.extend_from_slice(&self.as_of_ms.to_le_bytes());
            out.extend_from_slice(&[self.counts.len() as u8, video_id_length(&self.video_id), 0, 0]);
            for count in &self.counts {
                out.extend_from_slice(&[count.period.code(), count.window.code(), 0, 0]);
                out.extend_from_slice(&count.rank.unwrap_or(0).to_le_bytes());
                out.extend_from_slice(&count.view_count.to_le_bytes());
            }
            out.extend_from_slice(self.video_id.as_bytes());
        });
    }

    /// Reads the payload of a LOOKUP_ANSWER frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::LookupAnswer, payload)?;
        let instance = InstanceId(reader.u128()?);
        let epoch = Epoch(reader.u64()?);
        let as_of_ms = reader.u64()?;
        let count_count = reader.u8()?;
        in_range("period counts", count_count.into(), 0, BOARDS_MAX as u64)?;
        let video_id_bytes = reader.u8()?;
        reader.zeros::<2>()?;
        let mut counts: Vec<PeriodCount> = Vec::with_capacity(count_count.into());
        for index in 0..usize::from(count_count) {
            let (period, window) = period_and_window(&mut reader)?;
            reader.zeros::<2>()?;
            let rank = reader.u32()?;
            in_range("rank", rank.into(), 0, TOP_K_MAX as u64)?;
            let view_count = reader.u64()?;
            if counts.iter().any(|other| (other.period, other.window) == (period, window)) {
                return Err(DecodeError::Order { what: "period count", index });
            }
            counts.push(PeriodCount { period, window, view_count, rank: (rank > 0).then_some(rank) });
        }
        let video_id = reader.video_id(video_id_bytes)?.into();
        reader.finish()?;
        Ok(Self { instance, video_id, epoch, as_of_ms, counts })
    }
}

/// Reads the codes of a period and a window; all-time has no window but sliding.
pub(crate) fn period_and_window(reader: &mut Reader<'_>) -> Result<(Period, Window), DecodeError> {
    let period = word("period", reader.u8()?, Period::from_code)?;
    let code = reader.u8()?;
    let window = word("window", code, Window::from_code)?;
    if period == Period::AllTime && window != Window::Sliding {
        return Err(DecodeError::UnknownCode { field: "window of all-time", found: code.into() });
    }
    Ok((period, window))
}

/// The length of a video id that is to be written.
pub(crate) fn video_id_length(video_id: &str) -> u8 {
    let bytes = video_id.len();
    assert!(
        (1..=VIDEO_ID_BYTES_MAX).contains(&bytes),
        "video_id of {bytes} bytes, allowed are 1 to {VIDEO_ID_BYTES_MAX}"
    );
    bytes as u8
}
