//! One board: the candidates of one ranking on one core, kept exact under increments and
//! decrements.
//!
//! A board does not hold counts; it holds a threshold θ and which videos are members. It decides
//! nothing about windows: it is told of each change of its counter.
//!
//! # Definitions
//! θ is a rank (count, id): a video is *at or above* θ if its count is larger, or equal and its id
//! is not greater by bytes. The *minimum* θ is (1, any id): every video that has a view. A *member*
//! is a video with the board's bit in its line; `members` lists exactly those, fewer than 4K
//! between calls. n is the number of members at or above θ. During a scan, E is the larger of θ and
//! `exact`, the θ in force before the scan; otherwise E is θ.
//!
//! # Invariants
//! 1. *n is exact.* The views of a row change whether the video is at or above θ only when its new count is at least
//!    θ's and at most so many more; a member is tested with the old and the new count, a new member adds
//!    one. A decrement tests members with both counts. Raising and lowering recount.
//! 2. *Every video at or above E is a member.* An increment that leaves a video at or above θ makes
//!    it one (not only one that carries it over θ: during a scan it may be above θ and not yet
//!    seen). A decrement moves no video up. Members lose their bit only below θ, when θ is raised,
//!    or at count 0, when θ is lowered. Lowering θ keeps E, until the scan ends: then every video
//!    at or above θ is a member, since θ only rises while the scan runs (a lowering restarts it), so
//!    each such video was at or above the θ in force when the scan passed it, and was added, or
//!    got there by a later increment, and was added; either way it was never below θ at a
//!    raise.
//! 3. *θ follows the state.* At 4K members θ is raised: the fallen go, and if more than 3K are left
//!    the 3K-th becomes θ. When decrements have left n < 2K and θ is above the minimum, θ becomes
//!    the minimum at once and a scan begins. So without a scan θ is the minimum or n ≥ 2K once
//!    [`Board::settle`] was called.
//! 4. *What is published is exact.* The first K members are the first K videos if at least K
//!    members are at or above E, for every video at or above E is a member and all others rank
//!    below; or if θ is the minimum and no scan is pending, for then every video with a view is a
//!    member. By 3 one of the two holds without a scan. With one, [`Board::blocked`] says whether
//!    the first does; no list is taken while neither does. A count of 0 is never listed.

use std::cmp::Ordering;

use highwater_proto::{Period, Window};

use crate::shard::Shard;
use crate::top::CoreBoard;

/// Boards of a core. The bit of a board in a line, and the number of its counter, is its place.
pub(crate) const BOARDS: usize = 7;

/// Period and window of each board.
pub(crate) const PERIODS: [(Period, Window); BOARDS] = [
    (Period::AllTime, Window::Sliding),
    (Period::Hour, Window::Sliding),
    (Period::Day, Window::Sliding),
    (Period::Month, Window::Sliding),
    (Period::Hour, Window::Tumbling),
    (Period::Day, Window::Tumbling),
    (Period::Month, Window::Tumbling),
];

/// θ: the rank that members are at or above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Theta {
    /// Its count, at least 1.
    pub(crate) count: u64,
    /// Its id; `None` is greater than every id, so all videos of that count are at or above.
    pub(crate) id: Option<Box<[u8]>>,
}

impl Theta {
    /// Every video that has a view is at or above.
    pub(crate) const MINIMUM: Self = Self { count: 1, id: None };

    /// Whether a video of this count and id is at or above.
    #[inline]
    pub(crate) fn covers(&self, count: u64, id: &[u8]) -> bool {
        count > self.count || (count == self.count && self.id.as_deref().is_none_or(|theta| id <= theta))
    }

    /// Whether this is the minimum.
    pub(crate) fn is_minimum(&self) -> bool {
        *self == Self::MINIMUM
    }

    /// The higher rank of the two.
    pub(crate) fn higher<'a>(&'a self, other: &'a Self) -> &'a Self {
        let ahead = match (self.count.cmp(&other.count), &self.id, &other.id) {
            (Ordering::Greater, _, _) | (Ordering::Equal, _, None) => true,
            (Ordering::Equal, Some(a), Some(b)) => a <= b,
            _ => false,
        };
        if ahead { self } else { other }
    }
}

/// A video: the place of its shard on the core, and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Member {
    /// Place of the shard among the core's shards.
    pub(crate) shard: u16,
    /// Its slot there.
    pub(crate) slot: u32,
}

impl Member {
    /// Its id.
    #[inline]
    pub(crate) fn id(self, shards: &[Shard]) -> &[u8] {
        shards[usize::from(self.shard)].videos.id(self.slot)
    }
}

/// A scan that has yet to look at the slots from its cursor on.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// Where it goes on.
    pub(crate) cursor: Member,
    /// The θ before the scan.
    pub(crate) exact: Theta,
}

/// One board.
pub(crate) struct Board {
    place: usize,
    k: usize,
    pub(crate) theta: Theta,
    /// Members at or above θ.
    pub(crate) n: usize,
    /// All videos with the board's bit, in no order.
    pub(crate) members: Vec<Member>,
    pub(crate) scan: Option<Scan>,
    ranked: Vec<(u64, Member)>,
}

impl Board {
    /// An empty board: its place among the boards, and K.
    pub(crate) fn new(place: usize, k: usize) -> Self {
        Self {
            place,
            k,
            theta: Theta::MINIMUM,
            n: 0,
            members: Vec::with_capacity(4 * k),
            scan: None,
            ranked: Vec::with_capacity(4 * k),
        }
    }

    /// Acts on the rise of a video's count from `count_before`, already added. May be called for any view counted; need
    /// not for those that [`Shard::count`] leaves out.
    pub(crate) fn increased(&mut self, shards: &mut [Shard], video: Member, count_before: u64) {
        let (count, member) = self.state_of(shards, video);
        let id = video.id(shards);
        if !self.theta.covers(count, id) {
            return;
        }
        if member {
            self.n += usize::from(!self.theta.covers(count_before, id));
        } else {
            self.add(shards, video);
        }
    }

    /// Acts on the fall of a video's count from `count_before`, already subtracted.
    pub(crate) fn decremented(&mut self, shards: &[Shard], video: Member, count_before: u64) {
        let (count, member) = self.state_of(shards, video);
        if !member {
            return;
        }
        let id = video.id(shards);
        if self.theta.covers(count_before, id) && !self.theta.covers(count, id) {
            self.n -= 1;
        }
    }

    /// Lets all members go: the board's window is a new one, in which nothing is counted yet.
    pub(crate) fn empty(&mut self, shards: &mut [Shard]) {
        self.ranked.clear();
        self.keep_ranked(shards);
        self.theta = Theta::MINIMUM;
        self.scan = None;
    }

    /// Begins the scan that is due; called when decrements are done, before anything is published.
    pub(crate) fn settle(&mut self, shards: &mut [Shard]) {
        if self.n < 2 * self.k && !self.theta.is_minimum() {
            self.begin_scan(shards);
        }
    }

    /// Whether a list taken now could be wrong, so that the scan has to end first.
    pub(crate) fn blocked(&self, shards: &[Shard]) -> bool {
        let Some(scan) = &self.scan else { return false };
        let exact = scan.exact.higher(&self.theta);
        let at_or_above = self.members.iter().filter(|&&video| {
            let (count, _) = self.state_of(shards, video);
            exact.covers(count, video.id(shards))
        });
        at_or_above.count() < self.k
    }

    /// Looks at up to `budget` slots for the pending scan. Returns the slots looked at.
    pub(crate) fn scan_slice(&mut self, shards: &mut [Shard], budget: usize) -> usize {
        let mut looked_at = 0;
        while looked_at < budget
            && let Some(Scan { cursor, .. }) = self.scan
        {
            let place = usize::from(cursor.shard);
            let Some(shard) = shards.get(place) else {
                self.scan = None;
                break;
            };
            let slots = shard.videos.len();
            let end = slots.min(cursor.slot.saturating_add(u32::try_from(budget - looked_at).unwrap_or(u32::MAX)));
            for slot in cursor.slot..end {
                let line = &shards[place].videos.lines[slot as usize];
                if line.fresh_count(self.place) >= self.theta.count && !line.is_member(self.place) {
                    self.scanned(shards, Member { slot, ..cursor });
                }
            }
            looked_at += (end - cursor.slot) as usize;
            let cursor =
                if end == slots { Member { shard: cursor.shard + 1, slot: 0 } } else { Member { slot: end, ..cursor } };
            if let Some(scan) = &mut self.scan {
                scan.cursor = cursor;
            }
        }
        looked_at
    }

    /// Builds the board anew from the counters, whatever it was; all bits must be clear.
    pub(crate) fn rebuild(&mut self, shards: &mut [Shard]) {
        self.begin_scan(shards);
        while self.scan.is_some() {
            self.scan_slice(shards, usize::MAX);
        }
    }

    /// The core's top K now, best first, of a window that holds `total_views`.
    ///
    /// Must not be called while [`Self::blocked`].
    pub(crate) fn freeze(&mut self, shards: &[Shard], total_views: u64) -> CoreBoard {
        self.rank_members(shards);
        if self.ranked.len() > self.k {
            self.ranked.select_nth_unstable_by(self.k - 1, |a, b| by_rank(shards, a, b));
            self.ranked.truncate(self.k);
        }
        self.ranked.sort_unstable_by(|a, b| by_rank(shards, a, b));
        let row = |&(count, video): &(u64, Member)| {
            let id = std::str::from_utf8(video.id(shards)).expect("bug: a video id that is not UTF-8 was accepted");
            (Box::from(id), count)
        };
        let (period, window) = PERIODS[self.place];
        CoreBoard { period, window, total_views, rows: self.ranked.iter().map(row).collect() }
    }

    /// The video's count, and whether it is a member.
    #[inline]
    fn state_of(&self, shards: &[Shard], video: Member) -> (u64, bool) {
        let line = &shards[usize::from(video.shard)].videos.lines[video.slot as usize];
        (line.fresh_count(self.place), line.is_member(self.place))
    }

    /// Makes a video at or above θ a member.
    fn add(&mut self, shards: &mut [Shard], video: Member) {
        shards[usize::from(video.shard)].videos.lines[video.slot as usize].join(self.place);
        self.members.push(video);
        self.n += 1;
        if self.members.len() >= 4 * self.k {
            self.raise(shards);
        }
    }

    /// Acts on a video that the scan found, no member and with at least θ's count.
    fn scanned(&mut self, shards: &mut [Shard], video: Member) {
        let (count, _) = self.state_of(shards, video);
        if self.theta.covers(count, video.id(shards)) {
            self.add(shards, video);
        }
    }

    /// Lets the fallen go and, if more than 3K are left, makes the 3K-th the new θ.
    fn raise(&mut self, shards: &mut [Shard]) {
        self.rank_members(shards);
        assert!(
            self.ranked.len() == self.n,
            "bug: board {} counts {} members at or above its threshold, there are {}",
            self.place,
            self.n,
            self.ranked.len()
        );
        let keep = 3 * self.k;
        if self.ranked.len() > keep {
            self.ranked.select_nth_unstable_by(keep - 1, |a, b| by_rank(shards, a, b));
            self.ranked.truncate(keep);
            let (count, video) = self.ranked[keep - 1];
            self.theta = Theta { count, id: Some(video.id(shards).into()) };
        }
        self.keep_ranked(shards);
    }

    /// Sets θ to the minimum and begins a scan, or begins the pending one anew.
    fn begin_scan(&mut self, shards: &mut [Shard]) {
        let exact = match self.scan.take() {
            Some(scan) => scan.exact.higher(&self.theta).clone(),
            None => self.theta.clone(),
        };
        self.theta = Theta::MINIMUM;
        self.rank_members(shards);
        self.keep_ranked(shards);
        self.scan = Some(Scan { cursor: Member { shard: 0, slot: 0 }, exact });
    }

    /// Fills `ranked` with the members at or above θ, in no order.
    fn rank_members(&mut self, shards: &[Shard]) {
        let mut ranked = std::mem::take(&mut self.ranked);
        ranked.clear();
        ranked.extend(self.members.iter().filter_map(|&video| {
            let (count, _) = self.state_of(shards, video);
            self.theta.covers(count, video.id(shards)).then_some((count, video))
        }));
        self.ranked = ranked;
    }

    /// Makes the videos in `ranked` the only members.
    fn keep_ranked(&mut self, shards: &mut [Shard]) {
        for video in self.members.drain(..) {
            shards[usize::from(video.shard)].videos.lines[video.slot as usize].leave(self.place);
        }
        for &(_, video) in &self.ranked {
            shards[usize::from(video.shard)].videos.lines[video.slot as usize].join(self.place);
            self.members.push(video);
        }
        self.n = self.members.len();
    }
}

/// Best first: count descending, then id ascending by bytes.
fn by_rank(shards: &[Shard], a: &(u64, Member), b: &(u64, Member)) -> Ordering {
    b.0.cmp(&a.0).then_with(|| a.1.id(shards).cmp(b.1.id(shards)))
}
