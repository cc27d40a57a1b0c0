//! What is closed: the helper that reads it, and the ways from cores and from HTTP to it.
//!
//! It decides nothing and keeps nothing. Invariants: no core waits for a disk; what waits for the helper is at most
//! [`READERS_WAITING_MAX`] questions of HTTP and [`CORE_WAITING_MAX`] of each core, so a core's question and its answer
//! always have room.

use crate::fatal::fatal;
use crate::quic::StreamKey;
use crate::runtime::Waker;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never, select};
use highwater_proto::{
    ClosedList, ClosedPeriod, ClosedPeriods, FrameKind, History, HistoryAnswer, HistoryBounds, InstanceId, Period,
    Periods, PeriodsAnswer, Unreadable,
};
use highwater_sidecar::{LOOKUP_WAIT, LookupError};
use highwater_storage::StorageError;
use tokio::sync::oneshot;

/// Questions of HTTP that may wait for the helper.
pub const READERS_WAITING_MAX: usize = 64;

/// Questions of one core's clients that may be with the helper; more wait at the core, one for each open stream.
pub const CORE_WAITING_MAX: usize = 16;

/// Where the helper finds what is closed. The period is an hour, a day or a month, never all-time.
pub trait ClosedLists: Send {
    /// How far history reaches. Asked for before a list is looked for, so that a period which is closed by then and has
    /// no list had no view.
    ///
    /// # Errors
    /// When the disk refuses or a file is damaged.
    fn bounds(&self, period: Period) -> Result<HistoryBounds, StorageError>;

    /// The final list of the period that starts at `start_ms`; `None` where none is kept or no such period starts.
    ///
    /// # Errors
    /// As of [`bounds`](Self::bounds).
    fn list(&self, period: Period, start_ms: u64) -> Result<Option<ClosedList>, StorageError>;

    /// The newest periods that have a list and start before `before_ms`, the newest first, at most `limit`.
    ///
    /// # Errors
    /// As of [`bounds`](Self::bounds).
    fn periods(&self, period: Period, before_ms: u64, limit: usize) -> Result<Vec<ClosedPeriod>, StorageError>;
}

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// For one list.
    List(History),
    /// Which lists there are.
    Periods(Periods),
}

/// A question from inside the process, and where its answer goes; whoever asked may have gone.
#[derive(Debug)]
enum ReaderQuestion {
    List(History, oneshot::Sender<HistoryAnswer>),
    Periods(Periods, oneshot::Sender<PeriodsAnswer>),
}

/// The helper's state.
pub struct HistoryHelper {
    lists: Box<dyn ClosedLists>,
    instance: InstanceId,
    clients: Receiver<(u16, StreamKey, Question)>,
    readers: Receiver<ReaderQuestion>,
    /// Where answers to clients go, by core: whole frames.
    cores: Vec<(Sender<(StreamKey, Bytes)>, Waker)>,
    /// What was last wrong, so that it is said once and not with each question.
    trouble: String,
}

/// A core's end.
#[derive(Debug)]
pub struct HistoryPort {
    core: u16,
    questions: Sender<(u16, StreamKey, Question)>,
    answers: Receiver<(StreamKey, Bytes)>,
    waiting: usize,
}

/// HTTP's end.
#[derive(Debug, Clone)]
pub struct HistoryDoor {
    questions: Sender<ReaderQuestion>,
}

/// A helper over `lists`, a port for the core of each waker, and the door for HTTP.
#[must_use]
pub fn open(
    lists: Box<dyn ClosedLists>,
    instance: InstanceId,
    wakers: &[Waker],
) -> (HistoryHelper, Vec<HistoryPort>, HistoryDoor) {
    let (questions, clients) = bounded(CORE_WAITING_MAX * wakers.len());
    let (reader_questions, readers) = bounded(READERS_WAITING_MAX);
    let (mut cores, mut ports) = (Vec::new(), Vec::new());
    for (core, waker) in (0..).zip(wakers) {
        let (sender, answers) = bounded(CORE_WAITING_MAX);
        cores.push((sender, waker.clone()));
        ports.push(HistoryPort { core, questions: questions.clone(), answers, waiting: 0 });
    }
    let helper = HistoryHelper { lists, instance, clients, readers, cores, trouble: String::new() };
    (helper, ports, HistoryDoor { questions: reader_questions })
}

impl HistoryHelper {
    /// Answers until the cores hang up.
    pub fn run(mut self) {
        let (clients, mut readers) = (self.clients.clone(), self.readers.clone());
        loop {
            select! {
                recv(clients) -> asked => match asked {
                    Ok((core, stream, question)) => self.answer_client(core, stream, question),
                    Err(_) => return,
                },
                recv(readers) -> asked => match asked {
                    Ok(question) => self.answer_reader(question),
                    Err(_) => readers = never(),
                },
            }
        }
    }

    fn answer_client(&mut self, core: u16, stream: StreamKey, question: Question) {
        let mut frame = Vec::new();
        match question {
            Question::List(asked) => self.list(asked).encode(&mut frame),
            Question::Periods(asked) => self.periods(asked).encode(&mut frame),
        }
        let (answers, waker) = &self.cores[usize::from(core)];
        // A core that is gone needs no answer.
        if answers.send((stream, frame.into())).is_ok() {
            waker.wake();
        }
    }

    fn answer_reader(&mut self, question: ReaderQuestion) {
        match question {
            ReaderQuestion::List(asked, answer) => drop(answer.send(self.list(asked))),
            ReaderQuestion::Periods(asked, answer) => drop(answer.send(self.periods(asked))),
        }
    }

    fn list(&mut self, asked: History) -> HistoryAnswer {
        let History { period, start_ms } = asked;
        let bounds = self.lists.bounds(period);
        let found = bounds.and_then(|bounds| Ok((bounds, self.lists.list(period, start_ms)?)));
        let (bounds, list) = match found {
            Ok((bounds, list)) => (bounds, Ok(list)),
            Err(error) => (HistoryBounds::default(), Err(self.unreadable(&error))),
        };
        HistoryAnswer { instance: self.instance, period, start_ms, bounds, list }
    }

    fn periods(&mut self, asked: Periods) -> PeriodsAnswer {
        let Periods { period, limit, before_ms } = asked;
        let limit = usize::from(limit);
        let bounds = self.lists.bounds(period);
        // One more than asked for tells whether there are more.
        let found = bounds.and_then(|bounds| Ok((bounds, self.lists.periods(period, before_ms, limit + 1)?)));
        let (bounds, periods) = match found {
            Ok((bounds, mut periods)) => {
                let more = periods.len() > limit;
                periods.truncate(limit);
                (bounds, Ok(ClosedPeriods { periods, more }))
            }
            Err(error) => (HistoryBounds::default(), Err(self.unreadable(&error))),
        };
        PeriodsAnswer { instance: self.instance, period, bounds, periods }
    }

    fn unreadable(&mut self, error: &StorageError) -> Unreadable {
        let trouble = error.to_string();
        if trouble != self.trouble {
            tracing::error!("the history cannot be read: {trouble}");
            self.trouble = trouble;
        }
        Unreadable
    }
}

impl Question {
    /// The kind of frame that asks it.
    #[must_use]
    pub fn kind(self) -> FrameKind {
        match self {
            Self::List(_) => FrameKind::History,
            Self::Periods(_) => FrameKind::Periods,
        }
    }
}

impl HistoryPort {
    /// Whether another question may be asked now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting < CORE_WAITING_MAX
    }

    /// Asks the helper; its answer wakes the core.
    ///
    /// # Panics
    /// Without room.
    pub fn ask(&mut self, stream: StreamKey, question: Question) {
        assert!(self.has_room(), "{CORE_WAITING_MAX} questions are with the helper");
        self.waiting += 1;
        if self.questions.try_send((self.core, stream, question)).is_err() {
            fatal("the history helper is gone", &"its thread ended");
        }
    }

    /// The next answer that has come: a whole frame for that stream.
    pub fn answered(&mut self) -> Option<(StreamKey, Bytes)> {
        let answer = self.answers.try_recv().ok()?;
        self.waiting -= 1;
        Some(answer)
    }
}

impl HistoryDoor {
    /// Asks for one list.
    ///
    /// # Errors
    /// [`LookupError`] when the helper has too much to answer, does not answer in time or has ended.
    pub async fn list(&self, asked: History) -> Result<HistoryAnswer, LookupError> {
        let (answer, answered) = oneshot::channel();
        self.ask(ReaderQuestion::List(asked, answer), answered).await
    }

    /// Asks which lists there are.
    ///
    /// # Errors
    /// As of [`list`](Self::list).
    pub async fn periods(&self, asked: Periods) -> Result<PeriodsAnswer, LookupError> {
        let (answer, answered) = oneshot::channel();
        self.ask(ReaderQuestion::Periods(asked, answer), answered).await
    }

    async fn ask<T>(&self, question: ReaderQuestion, answered: oneshot::Receiver<T>) -> Result<T, LookupError> {
        let stopping = || LookupError::Unreachable("the engine is shutting down".to_owned());
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => LookupError::Busy,
            TrySendError::Disconnected(_) => stopping(),
        })?;
        match tokio::time::timeout(LOOKUP_WAIT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(LookupError::Late),
        }
    }
}
