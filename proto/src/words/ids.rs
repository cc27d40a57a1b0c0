//! Ids and times as newtypes, so that a sequence is never taken for an epoch nor a producer for an instance.
//!
//! What it is not: a clock or a source of random ids; both are arguments from outside. Invariant: order of the newtypes
//! is the order of their numbers.

use crate::limits::TIMESTAMP_MS_MAX;
use std::fmt;

/// A producer: a random 128-bit number that its client chose once and keeps. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub u128);

/// One data directory of an engine; in every welcome and snapshot. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u128);

/// The number of a snapshot; grows by at least 1 with each, also across restarts. 0 = before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The number of a batch within its producer: 1, 2, 3 and so on. 0 = none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// A time in milliseconds since 1970-01-01T00:00:00Z, at most [`TIMESTAMP_MS_MAX`] where it is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub u64);

impl ProducerId {
    /// The core that welcomes this producer: the id modulo the number of cores.
    ///
    /// # Panics
    /// If `cores` is 0.
    pub fn home_core(self, cores: u16) -> u16 {
        assert!(cores > 0, "an engine has at least one core");
        (self.0 % u128::from(cores)) as u16
    }
}

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Sequence {
    /// No batch yet.
    pub const NONE: Self = Self(0);
    /// The first batch of a producer.
    pub const FIRST: Self = Self(1);

    /// The sequence after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl TimestampMs {
    /// Latest valid time.
    pub const MAX: Self = Self(TIMESTAMP_MS_MAX);

    /// Whether the time is within the range that views may have.
    pub fn is_valid(self) -> bool {
        self <= Self::MAX
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_core_takes_all_128_bits() {
        assert_eq!(ProducerId(u128::MAX).home_core(7), (u128::MAX % 7) as u16);
        assert_eq!(ProducerId(1 << 64).home_core(3), 1);
        assert_eq!(ProducerId(5).home_core(1), 0);
    }

    #[test]
    fn ids_are_shown_in_hexadecimal_and_counters_in_decimal() {
        assert_eq!(ProducerId(0xab).to_string(), format!("{}ab", "0".repeat(30)));
        assert_eq!(Epoch(12).next().to_string(), "13");
        assert_eq!(Sequence::NONE.next(), Sequence::FIRST);
    }

    #[test]
    fn the_last_valid_time_is_in_the_year_9999() {
        assert!(TimestampMs(TIMESTAMP_MS_MAX).is_valid());
        assert!(!TimestampMs(TIMESTAMP_MS_MAX + 1).is_valid());
    }
}
