//! When a table is nearly full: a core asks the owner which ids of a batch it knows, before it appends the batch.
//!
//! The asker first waits until its own rows are in the lanes, so that the question goes behind all of them. The owner
//! then has applied them; if it has no room for as many new ids as the batch may hold, it takes back the credit that
//! other cores do not use, gives what there is to the asker, and answers. Whatever credit the asker lacks then, it
//! counts known ids only.
//!
//! An answer holds until the asker's next marker. A question that goes behind marker e is answered when the owner has
//! frozen e, so the answer knows every id of every snapshot that can be out before the asker pushes the next marker;
//! later it could refuse an id that readers see already.
//!
//! Invariant: a core has at most one question under way to each core, itself included, and its answer has room
//! reserved.

use crate::counting::Counting;
use crate::mesh::LaneOut;
use crate::notes::{Amount, Answer, IDS_PER_ANSWER, Message, Note, Question};
use crate::ownership::Targets;
use crate::verdicts::{KnownIds, ids_of_core};
use highwater_proto::{Batch, Epoch, ProducerId, Sequence};
use highwater_ranking::{Cell, FinalityClass, Minute, Row, cells_of, push_row};
use std::collections::VecDeque;

/// Names a batch, by its content too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchKey {
    pub(crate) producer: ProducerId,
    pub(crate) sequence: Sequence,
    pub(crate) crc: u32,
}

/// The asker's side: at most one batch whose ids are asked about.
#[derive(Debug, Default)]
pub(crate) struct Asker {
    waiting: Option<Waiting>,
    number: u32,
    /// Cores that owe an answer, to this batch or to one that is gone.
    due: Vec<usize>,
}

#[derive(Debug)]
struct Waiting {
    batch: BatchKey,
    /// Views in the batch.
    views: usize,
    known: Vec<Option<KnownIds>>,
    /// The asker's last marker when it asked.
    asked: Option<Epoch>,
}

impl Asker {
    /// Whether this batch must wait for another one's answer, or for its own.
    pub(crate) fn must_wait(&self, producer: ProducerId, sequence: Sequence, all_pushed: bool) -> bool {
        match &self.waiting {
            None => false,
            Some(waiting) if (waiting.batch.producer, waiting.batch.sequence) != (producer, sequence) => true,
            Some(waiting) => self.is_owed_answers() || (waiting.asked.is_none() && !all_pushed),
        }
    }

    /// Whether an answer is on its way, to the batch that waits or to one that is gone.
    pub(crate) fn is_owed_answers(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether a batch waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The answers about this batch, if there were any since marker `marked`: of each core, what it knows, or that it
    /// was not asked.
    pub(crate) fn known(&self, batch: BatchKey, marked: Epoch) -> Option<&[Option<KnownIds>]> {
        let waiting = self.waiting.as_ref()?;
        (waiting.batch == batch && waiting.asked == Some(marked)).then_some(&*waiting.known)
    }

    /// Lets a batch wait until everything before it is pushed.
    pub(crate) fn wait(&mut self, batch: BatchKey, views: usize, cores: usize) {
        self.waiting = Some(Waiting { batch, views, known: vec![None; cores], asked: None });
    }

    /// Forgets the batch: it is appended, or its producer is gone.
    pub(crate) fn forget(&mut self, producer: ProducerId) {
        self.waiting.take_if(|waiting| waiting.batch.producer == producer);
    }

    /// Asks `core` about the ids of the batch that waits; the cells of the question.
    pub(crate) fn ask(
        &mut self,
        core: usize,
        batch: &Batch<'_>,
        needs: Amount,
        targets: &Targets,
        marked: Epoch,
    ) -> Vec<Cell> {
        let Some(waiting) = &mut self.waiting else { return Vec::new() };
        if waiting.asked.replace(marked).is_none() {
            self.number = self.number.wrapping_add(1);
        }
        waiting.known[core] = Some(vec![0; waiting.views.div_ceil(64).next_multiple_of(2)]);
        self.due.push(core);
        let mut cells = vec![Cell::default()];
        let mut ids = 0;
        for id in ids_of_core(batch, targets, core) {
            let row = Row { hash: targets.hash().hash(id), minute: Minute(0), class: FinalityClass::IN_HOUR, views: 1 };
            push_row(&mut cells, row, id);
            ids += 1;
        }
        cells[0] = Message::Question(Question { number: self.number, ids, needs }).encode();
        cells
    }

    /// Takes a part of a core's answer.
    pub(crate) fn handle_answer(&mut self, core: usize, answer: &Answer) {
        if answer.number == self.number
            && let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.asked.is_some())
            && let Some(known) = &mut waiting.known[core]
        {
            let word = answer.first as usize / 64;
            known[word..word + 2].copy_from_slice(&answer.bits);
        }
        if answer.is_last {
            self.due.retain(|one| *one != core);
        }
    }
}

/// Cells of the question to `core` about a batch: a row for each view that it would count, and one that begins them.
pub(crate) fn question_cells(batch: &Batch<'_>, targets: &Targets, core: usize) -> usize {
    1 + ids_of_core(batch, targets, core).map(|id| cells_of(id.len())).sum::<usize>()
}

/// The owner's side: questions in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Answerer {
    asked: VecDeque<Asked>,
    /// Cores that were told to give back credit and have not yet.
    returning: Vec<usize>,
}

#[derive(Debug)]
struct Asked {
    from: usize,
    question: Question,
    bits: Vec<[u64; 2]>,
    /// Whether the others were told to give back.
    reclaimed: bool,
}

impl Answerer {
    pub(crate) fn handle_question(&mut self, from: usize, question: Question, bits: Vec<[u64; 2]>) {
        self.asked.push_back(Asked { from, question, bits, reclaimed: false });
    }

    /// A core gave back what it did not use.
    pub(crate) fn handle_returned(&mut self, from: usize) {
        self.returning.retain(|one| *one != from);
    }

    /// Whether free room is being collected for an asker, so that nobody else may be granted any.
    pub(crate) fn is_reclaiming(&self) -> bool {
        !self.returning.is_empty()
    }

    /// Answers what can be answered, and takes credit back for what cannot; returns whether anything was done.
    pub(crate) fn turn(&mut self, counting: &mut Counting, lanes: &mut [LaneOut]) -> bool {
        let mut worked = false;
        while self.returning.is_empty()
            && let Some(asked) = self.asked.front_mut()
        {
            worked = true;
            let from = asked.from;
            let (room, has) = (counting.room(), counting.lanes[from].outstanding());
            let lacks = asked.question.needs.rows > has.rows + room.rows
                || asked.question.needs.long_id_bytes > has.long_id_bytes + room.long_id_bytes;
            if lacks && !std::mem::replace(&mut asked.reclaimed, true) {
                for (core, lane) in lanes.iter_mut().enumerate().filter(|(core, _)| *core != from) {
                    if counting.lanes[core].outstanding() != Amount::default() {
                        lane.tell(&Message::Note(Note::GiveBack));
                        self.returning.push(core);
                    }
                }
                continue;
            }
            counting.top_up(from);
            let room = counting.room();
            counting.lanes[from].top_up(asked.question.needs, room);
            if let Some(asked) = self.asked.pop_front() {
                asked.answer(&mut lanes[from]);
            }
        }
        worked
    }
}

impl Asked {
    fn answer(&self, lane: &mut LaneOut) {
        let number = self.question.number;
        for (bits, first) in self.bits.iter().zip((0..).step_by(IDS_PER_ANSWER)) {
            let is_last = first as usize + IDS_PER_ANSWER >= self.question.ids as usize;
            lane.tell(&Message::Answer(Answer { number, first, bits: *bits, is_last }));
        }
    }
}
