//! Periods and windows: what a ranking is over.
//!
//! What it is not: lengths and bounds of windows, which ranking computes. Invariant: the number of a word (`code`) is
//! the same on the wire and as an array index, 0 first.

use crate::error::UnknownWord;
use std::{fmt, str::FromStr};

/// What length of time a ranking covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Period {
    /// 60 minutes, or a UTC hour.
    Hour = 0,
    /// 1440 minutes, or a UTC day.
    Day = 1,
    /// 30 days, or a UTC month.
    Month = 2,
    /// Every view ever accepted.
    AllTime = 3,
}

/// How a period moves with time. All-time has one window only, counted as sliding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Window {
    /// The last hour, day or 30 days up to now, moving by minutes.
    Sliding = 0,
    /// The current UTC hour, day or month so far.
    Tumbling = 1,
}

/// Every list that there is: each period in each of its windows, sliding ones first.
pub const LISTS: [(Period, Window); 7] = [
    (Period::Hour, Window::Sliding),
    (Period::Day, Window::Sliding),
    (Period::Month, Window::Sliding),
    (Period::AllTime, Window::Sliding),
    (Period::Hour, Window::Tumbling),
    (Period::Day, Window::Tumbling),
    (Period::Month, Window::Tumbling),
];

impl Period {
    /// Every period, shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Month, Self::AllTime];

    /// The period's name in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::AllTime => "all-time",
        }
    }

    /// The period's number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The period with that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The period's place in [`Period::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Window {
    /// Both windows, the default first.
    pub const ALL: [Self; 2] = [Self::Sliding, Self::Tumbling];

    /// The window's name in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sliding => "sliding",
            Self::Tumbling => "tumbling",
        }
    }

    /// The window's number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The window with that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl FromStr for Period {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|period| period.as_str() == text)
            .ok_or_else(|| UnknownWord::new("period", text, "hour, day, month or all-time"))
    }
}

impl FromStr for Window {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|window| window.as_str() == text)
            .ok_or_else(|| UnknownWord::new("window", text, "sliding or tumbling"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_by_its_name_and_number() {
        for period in Period::ALL {
            assert_eq!(period.as_str().parse(), Ok(period));
            assert_eq!(Period::from_code(period.code()), Some(period));
            assert_eq!(Period::ALL[period.index()], period);
        }
        for window in Window::ALL {
            assert_eq!(window.as_str().parse(), Ok(window));
            assert_eq!(Window::from_code(window.code()), Some(window));
        }
        assert_eq!(Period::from_code(4), None);
        assert_eq!(Window::from_code(2), None);
    }

    #[test]
    fn an_unknown_word_names_what_is_allowed() {
        let error = "week".parse::<Period>().unwrap_err();
        assert_eq!(error.to_string(), "unknown period \"week\": use hour, day, month or all-time");
    }
}
