//! What cores say to each other in their lanes besides rows and markers: questions, answers and notes, as cells.
//!
//! | word | question | answer | note |
//! |---|---|---|---|
//! | 0 | number u32, ids << 32 | number u32, first id << 32 | 0 |
//! | 1 | tag << 56 | last u8, tag << 56 | code u8, tag << 56 |
//! | 2 | rows that the batch needs room for | bits of the ids from the first on | rows |
//! | 3 | bytes of long ids | 64 bits more | bytes of long ids |
//!
//! After a question come its ids, each as a row. Invariant: every message but those ids is one cell.

use highwater_ranking::{Cell, INLINE_ID_BYTES_MAX};

/// Ids that one answer cell tells of.
pub(crate) const IDS_PER_ANSWER: usize = 128;

const QUESTION: u8 = 3;
const ANSWER: u8 = 4;
const NOTE: u8 = 5;

/// Which of these ids are known to the core that owns them?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    /// The asker's number for it.
    pub(crate) number: u32,
    /// Ids that follow.
    pub(crate) ids: u32,
    /// Rows for which the asker wants credit, if they are all new.
    pub(crate) needs: Amount,
}

/// A part of the answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whose answer it is.
    pub(crate) number: u32,
    /// The id that the lowest bit is about.
    pub(crate) first: u32,
    /// Set where the id is known.
    pub(crate) bits: [u64; 2],
    /// Whether no further part follows.
    pub(crate) is_last: bool,
}

/// Rows, and the bytes of their long ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) rows: u64,
    pub(crate) long_id_bytes: u64,
}

impl Amount {
    /// Adds one row with an id of this length.
    pub(crate) fn add(&mut self, id_len: usize) {
        self.add_rows(id_len, 1);
    }

    /// Adds rows with ids of this length.
    pub(crate) fn add_rows(&mut self, id_len: usize, rows: u64) {
        self.rows += rows;
        self.long_id_bytes += if id_len > INLINE_ID_BYTES_MAX { rows * id_len as u64 } else { 0 };
    }
}

/// One thing that a core lets another know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// To core 0: late views have reached their budget here, a cut is wanted.
    CutWanted,
    /// To core 0, at a shutdown: nothing more will be pushed; `dirty` if anything was since the last cut.
    Settled { dirty: bool },
    /// From core 0, at a shutdown: there will be no further marker.
    End,
    /// Give back the credit that you have and do not use.
    GiveBack,
    /// All that was given back since the start.
    GivenBack(Amount),
}

/// A message of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Question(Question),
    Answer(Answer),
    Note(Note),
}

impl Message {
    pub(crate) fn encode(&self) -> Cell {
        let head = |tag: u8, code: u8| u64::from(tag) << 56 | u64::from(code);
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        match *self {
            Self::Question(Question { number, ids, needs }) => {
                Cell([pair(number, ids), head(QUESTION, 0), needs.rows, needs.long_id_bytes])
            }
            Self::Answer(Answer { number, first, bits, is_last }) => {
                Cell([pair(number, first), head(ANSWER, u8::from(is_last)), bits[0], bits[1]])
            }
            Self::Note(note) => {
                let (code, words) = match note {
                    Note::CutWanted => (0, [0, 0]),
                    Note::Settled { dirty } => (1, [u64::from(dirty), 0]),
                    Note::End => (2, [0, 0]),
                    Note::GiveBack => (3, [0, 0]),
                    Note::GivenBack(total) => (4, [total.rows, total.long_id_bytes]),
                };
                Cell([0, head(NOTE, code), words[0], words[1]])
            }
        }
    }

    /// The message that this first cell is.
    ///
    /// # Panics
    /// When it is none: only this process writes into lanes.
    pub(crate) fn decode(cell: &Cell) -> Self {
        let [first, head, low, high] = cell.0;
        let (number, other) = (first as u32, (first >> 32) as u32);
        match (cell.tag(), head as u8) {
            (QUESTION, _) => {
                Self::Question(Question { number, ids: other, needs: Amount { rows: low, long_id_bytes: high } })
            }
            (ANSWER, last) => Self::Answer(Answer { number, first: other, bits: [low, high], is_last: last == 1 }),
            (NOTE, 0) => Self::Note(Note::CutWanted),
            (NOTE, 1) => Self::Note(Note::Settled { dirty: low == 1 }),
            (NOTE, 2) => Self::Note(Note::End),
            (NOTE, 3) => Self::Note(Note::GiveBack),
            (NOTE, 4) => Self::Note(Note::GivenBack(Amount { rows: low, long_id_bytes: high })),
            (tag, code) => panic!("a lane held a cell of tag {tag} and code {code}, which nobody sends"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip() {
        let needs = Amount { rows: 8192, long_id_bytes: 1 << 20 };
        let notes = [
            Note::CutWanted,
            Note::Settled { dirty: false },
            Note::Settled { dirty: true },
            Note::End,
            Note::GiveBack,
            Note::GivenBack(Amount { rows: u64::MAX, long_id_bytes: 7 }),
        ];
        let question = Message::Question(Question { number: u32::MAX, ids: 8192, needs });
        let answer = Message::Answer(Answer { number: 3, first: 8064, bits: [u64::MAX, 1], is_last: true });
        for message in notes.map(Message::Note).into_iter().chain([question, answer]) {
            assert_eq!(Message::decode(&message.encode()), message);
        }
    }
}
