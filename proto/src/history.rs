//! History on the wire: the questions for one closed list and for the periods that have one, and their answers.
//!
//! What it is not: the lists' files. Invariants: a decoded list is in ranking order and adds up to no more than its
//! total; decoded periods stand newest first and do not overlap; none is of all-time.

use crate::error::DecodeError;
use crate::frame::FrameKind;
use crate::limits::{CLOSED_PERIOD_BYTES, PERIODS_MAX, TOP_K_MAX};
use crate::snapshot::{check_total, put_rows, rows};
use crate::wire::{Reader, in_range, put_frame, word};
use crate::words::{
    ClosedList, ClosedPeriod, ClosedPeriods, HistoryAnswer, HistoryBounds, InstanceId, Period, PeriodsAnswer,
    Unreadable,
};

/// Codes of what an answer holds.
const NOTHING: u8 = 0;
const FOUND: u8 = 1;
const UNREADABLE: u8 = 2;

/// Asks for the final list of one calendar period: the first and only frame of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct History {
    /// Hour, day or month.
    pub period: Period,
    /// When the period begins, milliseconds since 1970 (UTC).
    pub start_ms: u64,
}

/// Asks which closed periods have a list, the newest first: the first and only frame of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Periods {
    /// Hour, day or month.
    pub period: Period,
    /// Most periods wanted, 1 to [`PERIODS_MAX`].
    pub limit: u16,
    /// Only periods that begin before this time; `u64::MAX` = from the newest on.
    pub before_ms: u64,
}

impl History {
    /// Appends the whole frame to `out`.
    ///
    /// # Panics
    /// If the period is all-time.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::History, |out| {
            out.extend_from_slice(&[calendar_code(self.period), 0, 0, 0, 0, 0, 0, 0]);
            out.extend_from_slice(&self.start_ms.to_le_bytes());
        });
    }

    /// Reads the payload of a HISTORY frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::History, payload)?;
        let period = calendar_period(&mut reader)?;
        reader.zeros::<3>()?;
        reader.zeros::<4>()?;
        let start_ms = reader.u64()?;
        reader.finish()?;
        Ok(Self { period, start_ms })
    }
}

impl Periods {
    /// Appends the whole frame to `out`.
    ///
    /// # Panics
    /// If the period is all-time or the limit not 1 to [`PERIODS_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let limit = self.limit;
        assert!((1..=PERIODS_MAX).contains(&usize::from(limit)), "limit {limit}, allowed are 1 to {PERIODS_MAX}");
        put_frame(out, FrameKind::Periods, |out| {
            out.extend_from_slice(&[calendar_code(self.period), 0]);
            out.extend_from_slice(&limit.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&self.before_ms.to_le_bytes());
        });
    }

    /// Reads the payload of a PERIODS frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Periods, payload)?;
        let period = calendar_period(&mut reader)?;
        reader.zeros::<1>()?;
        let limit = reader.u16()?;
        in_range("periods limit", limit.into(), 1, PERIODS_MAX as u64)?;
        reader.zeros::<4>()?;
        let before_ms = reader.u64()?;
        reader.finish()?;
        Ok(Self { period, limit, before_ms })
    }
}

impl HistoryAnswer {
    /// Appends the whole HISTORY_ANSWER frame to `out`.
    ///
    /// # Panics
    /// If the period is all-time, the list is not of the period and start asked for, or a limit is passed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let none: &[_] = &[];
        let (outcome, end_ms, total_views, listed) = match &self.list {
            Err(Unreadable) => (UNREADABLE, 0, 0, none),
            Ok(None) => (NOTHING, 0, 0, none),
            Ok(Some(list)) => {
                assert_eq!((list.period, list.start_ms), (self.period, self.start_ms), "a list of another period");
                (FOUND, list.end_ms, list.total_views, &*list.rows)
            }
        };
        put_frame(out, FrameKind::HistoryAnswer, |out| {
            let Self { instance, period, bounds, .. } = *self;
            AnswerHead { instance, period, outcome, more: false, count: listed.len() as u32, bounds }.put(out);
            for number in [self.start_ms, end_ms, total_views] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            put_rows(out, listed);
        });
    }

    /// Reads the payload of a HISTORY_ANSWER frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::HistoryAnswer, payload)?;
        let head = AnswerHead::read(&mut reader)?;
        zero("periods beyond a list", u64::from(head.more))?;
        let (start_ms, end_ms, total_views) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let row_count = head.count as usize;
        in_range("list rows", row_count as u64, 0, TOP_K_MAX as u64)?;
        let rows = rows(&mut reader, row_count)?;
        reader.finish()?;
        let list = if head.outcome == FOUND {
            in_range("list end", end_ms, start_ms.saturating_add(1), u64::MAX)?;
            in_range("list rows", rows.len() as u64, 1, TOP_K_MAX as u64)?;
            check_total(total_views, &rows)?;
            Ok(Some(ClosedList { period: head.period, start_ms, end_ms, total_views, rows }))
        } else {
            for (field, found) in
                [("absent end", end_ms), ("absent total", total_views), ("absent rows", row_count as u64)]
            {
                zero(field, found)?;
            }
            if head.outcome == NOTHING { Ok(None) } else { Err(Unreadable) }
        };
        Ok(Self { instance: head.instance, period: head.period, start_ms, bounds: head.bounds, list })
    }
}

impl PeriodsAnswer {
    /// Appends the whole PERIODS_ANSWER frame to `out`.
    ///
    /// # Panics
    /// If the period is all-time or there are more than [`PERIODS_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let none = ClosedPeriods::default();
        let (outcome, listed) = match &self.periods {
            Err(Unreadable) => (UNREADABLE, &none),
            Ok(listed) => (FOUND, listed),
        };
        let count = listed.periods.len();
        assert!(count <= PERIODS_MAX, "{count} periods, allowed are {PERIODS_MAX}");
        put_frame(out, FrameKind::PeriodsAnswer, |out| {
            let Self { instance, period, bounds, .. } = *self;
            AnswerHead { instance, period, outcome, more: listed.more, count: count as u32, bounds }.put(out);
            for period in &listed.periods {
                for number in [period.start_ms, period.end_ms, period.total_views] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
        });
    }

    /// Reads the payload of a PERIODS_ANSWER frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::PeriodsAnswer, payload)?;
        let head = AnswerHead::read(&mut reader)?;
        in_range("periods", head.count.into(), 0, PERIODS_MAX as u64)?;
        let periods = match head.outcome {
            FOUND => Ok(ClosedPeriods { periods: closed_periods(&mut reader, head.count)?, more: head.more }),
            UNREADABLE => {
                zero("absent periods", u64::from(head.count) + u64::from(head.more))?;
                Err(Unreadable)
            }
            found => return Err(DecodeError::UnknownCode { field: "outcome of periods", found: found.into() }),
        };
        reader.finish()?;
        Ok(Self { instance: head.instance, period: head.period, bounds: head.bounds, periods })
    }
}

/// What both answers begin with.
struct AnswerHead {
    instance: InstanceId,
    period: Period,
    outcome: u8,
    more: bool,
    count: u32,
    bounds: HistoryBounds,
}

impl AnswerHead {
    fn put(&self, out: &mut Vec<u8>) {
        let oldest = self.bounds.oldest_start_ms;
        out.extend_from_slice(&self.instance.0.to_le_bytes());
        let marks = [u8::from(self.more), u8::from(oldest.is_some())];
        out.extend_from_slice(&[calendar_code(self.period), self.outcome, marks[0], marks[1]]);
        out.extend_from_slice(&self.count.to_le_bytes());
        for time in [self.bounds.closed_until_ms, oldest.unwrap_or(0), self.bounds.lateness_max_ms] {
            out.extend_from_slice(&time.to_le_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let instance = InstanceId(reader.u128()?);
        let period = calendar_period(reader)?;
        let outcome = word("outcome", reader.u8()?, |code| (code <= UNREADABLE).then_some(code))?;
        let more = mark("mark of more periods", reader.u8()?)?;
        let has_oldest = mark("mark of an oldest period", reader.u8()?)?;
        let count = reader.u32()?;
        let (closed_until_ms, oldest, lateness_max_ms) = (reader.u64()?, reader.u64()?, reader.u64()?);
        if !has_oldest {
            zero("absent oldest start", oldest)?;
        }
        let bounds = HistoryBounds { closed_until_ms, oldest_start_ms: has_oldest.then_some(oldest), lateness_max_ms };
        Ok(Self { instance, period, outcome, more, count, bounds })
    }
}

/// Reads `count` periods, which is at most [`PERIODS_MAX`].
fn closed_periods(reader: &mut Reader<'_>, count: u32) -> Result<Vec<ClosedPeriod>, DecodeError> {
    // No more than there are bytes for, whatever is stated.
    let there_max = reader.remaining() / CLOSED_PERIOD_BYTES;
    let mut periods: Vec<ClosedPeriod> = Vec::with_capacity(there_max.min(count as usize));
    for index in 0..count as usize {
        let (start_ms, end_ms, total_views) = (reader.u64()?, reader.u64()?, reader.u64()?);
        in_range("period end", end_ms, start_ms.saturating_add(1), u64::MAX)?;
        in_range("total views", total_views, 1, u64::MAX)?;
        if periods.last().is_some_and(|newer| end_ms > newer.start_ms) {
            return Err(DecodeError::Order { what: "closed period", index });
        }
        periods.push(ClosedPeriod { start_ms, end_ms, total_views });
    }
    Ok(periods)
}

/// The code of a period that has calendar bounds.
fn calendar_code(period: Period) -> u8 {
    assert_ne!(period, Period::AllTime, "all-time is never closed");
    period.code()
}

fn calendar_period(reader: &mut Reader<'_>) -> Result<Period, DecodeError> {
    let code = reader.u8()?;
    word("period of history", code, |code| Period::from_code(code).filter(|period| *period != Period::AllTime))
}

fn mark(field: &'static str, code: u8) -> Result<bool, DecodeError> {
    word(field, code, |code| [false, true].get(usize::from(code)).copied())
}

/// Refuses a number that stands where there is nothing.
fn zero(field: &'static str, found: u64) -> Result<(), DecodeError> {
    in_range(field, found, 0, 0)
}
