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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Parking;
    use highwater_proto::{BoardRow, FRAME_HEADER_BYTES, FrameHeader};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    const DAY_MS: u64 = 86_400_000;
    const INSTANCE: InstanceId = InstanceId(7);

    /// Days in memory, the oldest first.
    #[derive(Clone, Default)]
    struct Days(Arc<Mutex<DayBook>>);

    #[derive(Default)]
    struct DayBook {
        lists: Vec<ClosedList>,
        damaged: bool,
    }

    impl Days {
        fn of(days: &[u64]) -> Self {
            let list = |day: &u64| ClosedList {
                period: Period::Day,
                start_ms: day * DAY_MS,
                end_ms: (day + 1) * DAY_MS,
                total_views: day + 10,
                rows: vec![BoardRow { video_id: "a".into(), view_count: *day }],
            };
            Self(Arc::new(Mutex::new(DayBook { lists: days.iter().map(list).collect(), damaged: false })))
        }

        fn check(&self) -> Result<Vec<ClosedList>, StorageError> {
            let book = self.0.lock().unwrap();
            if book.damaged {
                let why = "a test says so".to_owned();
                return Err(StorageError::Missing { file: "history/closed.hw".to_owned(), why });
            }
            Ok(book.lists.clone())
        }
    }

    impl ClosedLists for Days {
        fn bounds(&self, period: Period) -> Result<HistoryBounds, StorageError> {
            let lists = self.check()?;
            let mut lists = lists.iter().filter(|list| list.period == period);
            let closed_until_ms = lists.clone().next_back().map_or(0, |list| list.end_ms);
            let oldest_start_ms = lists.next().map(|list| list.start_ms);
            Ok(HistoryBounds { closed_until_ms, oldest_start_ms, lateness_max_ms: 600_000 })
        }

        fn list(&self, period: Period, start_ms: u64) -> Result<Option<ClosedList>, StorageError> {
            let lists = self.check()?;
            Ok(lists.into_iter().find(|list| (list.period, list.start_ms) == (period, start_ms)))
        }

        fn periods(&self, period: Period, before_ms: u64, limit: usize) -> Result<Vec<ClosedPeriod>, StorageError> {
            let lists = self.check()?;
            let older = lists.iter().rev().filter(|list| list.period == period && list.start_ms < before_ms);
            let of_list = |list: &ClosedList| {
                let &ClosedList { start_ms, end_ms, total_views, .. } = list;
                ClosedPeriod { start_ms, end_ms, total_views }
            };
            Ok(older.map(of_list).take(limit).collect())
        }
    }

    fn opened(days: &Days, cores: usize) -> (HistoryHelper, Vec<HistoryPort>, HistoryDoor) {
        let wakers: Vec<Waker> = (0..cores).map(|_| Parking::new().unwrap().waker()).collect();
        open(Box::new(days.clone()), INSTANCE, &wakers)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn answer(port: &mut HistoryPort) -> (StreamKey, Bytes) {
        for _ in 0..10_000 {
            if let Some(answer) = port.answered() {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the helper does not answer");
    }

    fn payload(frame: &Bytes) -> (FrameKind, &[u8]) {
        let (header, payload) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
        (FrameHeader::decode(header).unwrap().kind, payload)
    }

    #[test]
    fn clients_at_every_core_and_readers_get_the_same_answers() {
        let (historian, mut ports, door) = opened(&Days::of(&[3, 4, 6]), 2);
        let helper = std::thread::spawn(move || historian.run());
        let asked = History { period: Period::Day, start_ms: 4 * DAY_MS };
        let listing = Periods { period: Period::Day, limit: 2, before_ms: 6 * DAY_MS };
        let (list, periods) = runtime().block_on(async {
            let none = door.list(History { start_ms: 5 * DAY_MS, ..asked }).await.unwrap();
            assert_eq!((none.list, none.bounds.closed_until_ms), (Ok(None), 7 * DAY_MS));
            assert!(door.periods(Periods { limit: 1, ..listing }).await.unwrap().periods.unwrap().more);
            (door.list(asked).await.unwrap(), door.periods(listing).await.unwrap())
        });
        assert_eq!((list.instance, list.list.as_ref().unwrap().as_ref().unwrap().total_views), (INSTANCE, 14));
        let listed = periods.periods.as_ref().unwrap();
        assert_eq!((listed.periods.len(), listed.periods[0].start_ms, listed.more), (2, 4 * DAY_MS, false));
        for (port, index) in ports.iter_mut().zip(5..) {
            let stream = StreamKey::made_up(index);
            port.ask(stream, Question::List(asked));
            let (to, frame) = answer(port);
            assert_eq!((to, payload(&frame).0), (stream, FrameKind::HistoryAnswer));
            assert_eq!(HistoryAnswer::decode(payload(&frame).1).as_ref(), Ok(&list));
            port.ask(stream, Question::Periods(listing));
            let (to, frame) = answer(port);
            assert_eq!((to, payload(&frame).0), (stream, FrameKind::PeriodsAnswer));
            assert_eq!(PeriodsAnswer::decode(payload(&frame).1).as_ref(), Ok(&periods));
        }
        drop(ports);
        helper.join().unwrap();
        let late = runtime().block_on(door.list(asked));
        assert!(matches!(late, Err(LookupError::Unreachable(_))), "{late:?}");
    }

    #[test]
    fn a_core_has_room_again_with_each_answer() {
        let (historian, mut ports, _door) = opened(&Days::of(&[3]), 1);
        let port = &mut ports[0];
        let asked = Question::List(History { period: Period::Day, start_ms: 3 * DAY_MS });
        for index in 0..CORE_WAITING_MAX as u32 {
            port.ask(StreamKey::made_up(index), asked);
        }
        assert!(!port.has_room() && port.answered().is_none(), "nobody answers yet");
        let helper = std::thread::spawn(move || historian.run());
        for index in 0..CORE_WAITING_MAX as u32 {
            assert_eq!(answer(port).0, StreamKey::made_up(index), "in the order of the questions");
            assert!(port.has_room());
        }
        drop(ports);
        helper.join().unwrap();
    }

    #[test]
    fn a_full_door_and_a_silent_helper_are_told() {
        let (historian, _ports, door) = opened(&Days::default(), 1);
        let asked = History { period: Period::Hour, start_ms: 0 };
        runtime().block_on(async {
            for _ in 0..READERS_WAITING_MAX {
                let asking = tokio::time::timeout(Duration::ZERO, door.list(asked));
                assert!(asking.await.is_err(), "nobody answers");
            }
            assert_eq!(door.list(asked).await, Err(LookupError::Busy));
            historian.readers.try_iter().for_each(drop);
            assert_eq!(door.list(asked).await, Err(LookupError::Late));
        });
    }

    #[test]
    fn what_cannot_be_read_is_said_not_left_out() {
        let days = Days::of(&[3]);
        days.0.lock().unwrap().damaged = true;
        let (mut historian, _ports, _door) = opened(&days, 1);
        let asked = History { period: Period::Day, start_ms: 3 * DAY_MS };
        let listing = Periods { period: Period::Day, limit: 2, before_ms: u64::MAX };
        assert_eq!(historian.list(asked).list, Err(Unreadable));
        assert_eq!(historian.periods(listing).periods, Err(Unreadable));
        assert!(historian.trouble.contains("history/closed.hw"), "{}", historian.trouble);
        days.0.lock().unwrap().damaged = false;
        assert!(historian.list(asked).list.unwrap().is_some());
    }
}
