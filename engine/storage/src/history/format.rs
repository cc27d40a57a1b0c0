//! The file of one closed period's final list, and the file that tells up to where each kind is closed.
//!
//! Not which periods are due. Invariants: what is read back was written so, in order and adding up, or is refused; the
//! head of a list verifies by itself, so that periods can be listed without their rows.
//!
//! Body of `KIND-START.top` (sealed: magic, version, body, CRC32C over all): directory id u128, kind u32, start u32,
//! end u32, rows u32, final_ms u64, total_views u64, videos u64, CRC32C u32 over everything so far; then for each row:
//! length of the id u8, id, count varint. Body of `closed.hw`: directory id u128, then for hour, day and month: whether
//! any was closed u32, minute u32.

use highwater_proto::{TOP_K_MAX, VIDEO_ID_BYTES_MAX};
use highwater_ranking::{CALENDAR_PERIODS, CalendarPeriod, Minute};

use crate::codec::{PutLe, TakeLe};
use crate::position::DirectoryId;
use crate::sealed::SealedKind;

/// Rows of a final list at most.
pub const CLOSED_ROWS_MAX: usize = TOP_K_MAX;
/// Directory of the lists, relative to the data directory.
pub(crate) const HISTORY_DIR: &str = "history";
/// Path of the file that tells up to where each kind is closed.
pub(crate) const CLOSED_PATH: &str = "history/closed.hw";
pub(super) const CLOSED: SealedKind<'static> = SealedKind { path: CLOSED_PATH, magic: *b"HWCLOSED", version: 1 };
const LIST_MAGIC: [u8; 8] = *b"HWTOPS\0\0";
const LIST_VERSION: u32 = 1;
/// Magic and version before a body.
const SEAL_BYTES: usize = 12;
/// From the start of a list's file to the end of its head's checksum.
pub(super) const HEAD_BYTES: usize = SEAL_BYTES + 16 + 4 * 4 + 3 * 8 + 4;

/// The final list of a closed period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedList {
    /// Hour, day or month.
    pub kind: CalendarPeriod,
    /// Its first minute.
    pub start: Minute,
    /// The minute after its last.
    pub end: Minute,
    /// When it became final, in ms UTC: views that arrived later are not in it.
    pub final_ms: u64,
    /// All views of the period.
    pub total_views: u64,
    /// Videos with at least one of them.
    pub videos: u64,
    /// Ids and counts of the first, by count descending, then id ascending by bytes; [`CLOSED_ROWS_MAX`] at most.
    pub rows: Vec<(Box<str>, u64)>,
}

/// A closed period without its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedPeriod {
    /// Hour, day or month.
    pub kind: CalendarPeriod,
    /// Its first minute.
    pub start: Minute,
    /// The minute after its last.
    pub end: Minute,
    /// When it became final, in ms UTC.
    pub final_ms: u64,
    /// All views of the period.
    pub total_views: u64,
    /// Videos with at least one of them.
    pub videos: u64,
    /// Rows of its list.
    pub rows: u32,
}

impl ClosedList {
    /// The same without its rows.
    #[must_use]
    pub fn period(&self) -> ClosedPeriod {
        let Self { kind, start, end, final_ms, total_views, videos, ref rows } = *self;
        ClosedPeriod { kind, start, end, final_ms, total_views, videos, rows: rows.len() as u32 }
    }

    /// Whether it is in order and adds up.
    pub(super) fn is_sound(&self) -> bool {
        let before = |a: &(Box<str>, u64), b: &(Box<str>, u64)| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0);
        let sum = self.rows.iter().try_fold(0u64, |sum, (_, count)| sum.checked_add(*count));
        let id_fits = |id: &str| (1..=VIDEO_ID_BYTES_MAX).contains(&id.len());
        self.period().is_sound()
            && self.rows.windows(2).all(|pair| before(&pair[0], &pair[1]))
            && self.rows.iter().all(|(id, count)| *count > 0 && id_fits(id))
            && sum.is_some_and(|sum| sum <= self.total_views)
    }

    pub(super) fn encode(&self, directory: DirectoryId) -> Vec<u8> {
        let mut body = self.period().encode(directory);
        for (id, count) in &self.rows {
            body.put_u8(id.len() as u8);
            body.extend_from_slice(id.as_bytes());
            body.put_varint(*count);
        }
        body
    }

    /// Parses the body of a list, whose seal was found right.
    pub(super) fn decode(body: &[u8]) -> Option<(DirectoryId, Self)> {
        let (head, rest) = body.split_at_checked(HEAD_BYTES - SEAL_BYTES)?;
        let (directory, period) = ClosedPeriod::decode(head)?;
        let mut reader = TakeLe::new(rest);
        let mut rows = Vec::new();
        for _ in 0..period.rows {
            let len = usize::from(reader.u8()?);
            let id = std::str::from_utf8(reader.take(len)?).ok()?;
            rows.push((id.into(), reader.varint()?));
        }
        let ClosedPeriod { kind, start, end, final_ms, total_views, videos, rows: _ } = period;
        let list = Self { kind, start, end, final_ms, total_views, videos, rows };
        (reader.is_empty() && list.is_sound()).then_some((directory, list))
    }
}

/// What is wrong with the head of a list.
pub(super) enum HeadFault {
    Damaged,
    Newer(u32),
}

impl ClosedPeriod {
    fn is_sound(&self) -> bool {
        self.start < self.end
            && self.rows as usize <= CLOSED_ROWS_MAX
            && u64::from(self.rows) <= self.videos
            && (self.rows > 0) == (self.videos > 0)
            && self.videos <= self.total_views
    }

    fn encode(&self, directory: DirectoryId) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u128(directory.0);
        body.put_u32(self.kind as u32);
        body.put_u32(self.start.0);
        body.put_u32(self.end.0);
        body.put_u32(self.rows);
        body.put_u64(self.final_ms);
        body.put_u64(self.total_views);
        body.put_u64(self.videos);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&seal()), &body);
        body.put_u32(crc);
        body
    }

    /// Parses the head of a list's body.
    fn decode(head: &[u8]) -> Option<(DirectoryId, Self)> {
        let (fields, crc) = head.split_at_checked(HEAD_BYTES - SEAL_BYTES - 4)?;
        if crc != crc32c::crc32c_append(crc32c::crc32c(&seal()), fields).to_le_bytes() {
            return None;
        }
        let mut reader = TakeLe::new(fields);
        let directory = DirectoryId(reader.u128()?);
        let kind = *CalendarPeriod::ALL.get(reader.u32()? as usize)?;
        let (start, end) = (Minute(reader.u32()?), Minute(reader.u32()?));
        let rows = reader.u32()?;
        let (final_ms, total_views, videos) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let period = Self { kind, start, end, final_ms, total_views, videos, rows };
        period.is_sound().then_some((directory, period))
    }

    /// Parses the first [`HEAD_BYTES`] of a list's file.
    pub(super) fn decode_file_head(bytes: &[u8]) -> Result<(DirectoryId, Self), HeadFault> {
        let (seal, head) = bytes.split_at(SEAL_BYTES);
        let (magic, version) = seal.split_at(LIST_MAGIC.len());
        let version = TakeLe::new(version).u32().ok_or(HeadFault::Damaged)?;
        if magic == LIST_MAGIC && version > LIST_VERSION {
            return Err(HeadFault::Newer(version));
        }
        // The checksum is over the seal of this version, so that another one does not verify.
        Self::decode(head).filter(|_| seal == self::seal()).ok_or(HeadFault::Damaged)
    }
}

/// What a list's file begins with.
fn seal() -> [u8; SEAL_BYTES] {
    let mut seal = [0; SEAL_BYTES];
    seal[..LIST_MAGIC.len()].copy_from_slice(&LIST_MAGIC);
    seal[LIST_MAGIC.len()..].copy_from_slice(&LIST_VERSION.to_le_bytes());
    seal
}

/// The kind of file at a list's path.
pub(super) const fn list_kind(path: &str) -> SealedKind<'_> {
    SealedKind { path, magic: LIST_MAGIC, version: LIST_VERSION }
}

const fn kind_name(kind: CalendarPeriod) -> &'static str {
    match kind {
        CalendarPeriod::Hour => "hour",
        CalendarPeriod::Day => "day",
        CalendarPeriod::Month => "month",
    }
}

/// Path of a list, relative to the data directory.
pub(super) fn list_path(kind: CalendarPeriod, start: Minute) -> String {
    format!("{HISTORY_DIR}/{}-{:010}.top", kind_name(kind), start.0)
}

/// Kind and start of a file name made by [`list_path`].
pub(crate) fn parse_list_name(name: &str) -> Option<(CalendarPeriod, Minute)> {
    let (kind, start) = name.strip_suffix(".top")?.split_once('-')?;
    let kind = CalendarPeriod::ALL.into_iter().find(|known| kind_name(*known) == kind)?;
    let digits = start.len() == 10 && start.bytes().all(|byte| byte.is_ascii_digit());
    Some((kind, Minute(start.parse().ok().filter(|_| digits)?)))
}

/// Up to which minute the periods of each kind are closed.
pub(super) type ClosedUpTo = [Option<Minute>; CALENDAR_PERIODS];

pub(super) fn encode_closed(directory: DirectoryId, closed: &ClosedUpTo) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u128(directory.0);
    for minute in closed {
        body.put_u32(u32::from(minute.is_some()));
        body.put_u32(minute.unwrap_or_default().0);
    }
    body
}

pub(super) fn decode_closed(body: &[u8]) -> Option<(DirectoryId, ClosedUpTo)> {
    let mut reader = TakeLe::new(body);
    let directory = DirectoryId(reader.u128()?);
    let mut closed = ClosedUpTo::default();
    for minute in &mut closed {
        let (any, value) = (reader.u32()?, Minute(reader.u32()?));
        *minute = match any {
            0 if value == Minute(0) => None,
            1 => Some(value),
            _ => return None,
        };
    }
    reader.is_empty().then_some((directory, closed))
}
