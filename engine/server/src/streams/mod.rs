//! From the bytes of QUIC streams to whole frames for the pipeline, and back.
//!
//! A stream's first frame is its type. A producer stream holds at most one batch at a time: while the pipeline has no
//! room for it nothing more of that stream is read, and QUIC pushes back. Frames are not copied: their chunks are
//! handed on as they came. Who may come in is judged here, before the pipeline hears of a producer or a question.
//!
//! Invariant: a stream in `blocked` has a whole frame and is not read; every other open stream has less than one.

mod admission;
mod held;
mod stream;

use crate::access::{Refusals, Rules};
use crate::history::Question;
use crate::quic::{Application, ConnectionKey, LossReason, StreamKey, StreamReader};
use admission::Peer;
use held::Held;
use highwater_pipeline::{Intake, Pipeline, SessionId};
use highwater_proto::{CloseReason, DecodeError, Epoch, FrameKind, History, Lookup, Periods, Scope, Subscribe};
use rustls_pki_types::CertificateDer;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use stream::{Role, Stream};

/// Bytes asked of a stream at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// A stream that wants snapshots.
struct Subscriber {
    stream: StreamKey,
    /// The first epoch that it has not been sent and wants.
    next: Epoch,
}

/// Something the driver must do after its turn.
pub enum Deed {
    /// Read on.
    Resume(StreamKey),
    /// End a stream that nothing more comes of, both ways, so that the client may open another.
    End(StreamKey),
    /// Close the connection.
    Close(ConnectionKey, CloseReason, String),
}

/// All streams of one core's clients.
pub struct Streams {
    streams: BTreeMap<StreamKey, Stream>,
    sessions: HashMap<SessionId, StreamKey>,
    blocked: VecDeque<StreamKey>,
    subscribers: Vec<Subscriber>,
    /// Connections that a breach has closed and that are not gone yet: nothing more of them is read or counted.
    closing: HashSet<ConnectionKey>,
    sessions_begun: u64,
    deeds: VecDeque<Deed>,
    held: Held,
    /// The time of this turn.
    now: Instant,
    /// Streams that wait for one video's counts, each with one question: never more than there are open streams.
    lookups: VecDeque<(StreamKey, Box<str>)>,
    /// Streams that wait for what is closed, each with one question, until the helper is asked.
    history: VecDeque<(StreamKey, Question)>,
    /// Who is at the other end of each connection.
    peers: HashMap<ConnectionKey, Peer>,
    /// Who may come in.
    rules: Arc<Rules>,
    refusals: Refusals,
}

/// The streams together with the pipeline that their frames go to: what the driver tells things to.
pub struct Intakes<'a> {
    /// The streams.
    pub streams: &'a mut Streams,
    /// Where the frames go.
    pub pipeline: &'a mut Pipeline,
}

impl Streams {
    /// No streams yet. Frames that are not done with hold `held_bytes_max` bytes, and two frames more.
    pub fn new(rules: Arc<Rules>, held_bytes_max: usize) -> Self {
        Self {
            streams: BTreeMap::new(),
            sessions: HashMap::new(),
            blocked: VecDeque::new(),
            subscribers: Vec::new(),
            closing: HashSet::new(),
            sessions_begun: 0,
            deeds: VecDeque::new(),
            held: Held::new(held_bytes_max),
            now: Instant::now(),
            lookups: VecDeque::new(),
            history: VecDeque::new(),
            peers: HashMap::new(),
            rules,
            refusals: Refusals::default(),
        }
    }

    /// Bytes of frames that are not done with.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// The streams of a connection.
    fn of_connection(&self, connection: ConnectionKey) -> impl Iterator<Item = (&StreamKey, &Stream)> {
        let from_first = self.streams.range(StreamKey::first_of(connection)..);
        from_first.take_while(move |(key, _)| key.connection() == connection)
    }

    /// The frame of a stream is done with.
    fn clear(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(&key) {
            let batch_bytes = stream.batch_bytes();
            self.held.release(key, &mut stream.coming, batch_bytes);
            stream.clear();
        }
    }

    /// The next stream that waits for a video's counts, and the video.
    pub fn poll_lookup(&mut self) -> Option<(StreamKey, Box<str>)> {
        let (key, video_id) = self.lookups.pop_front()?;
        self.forget_finished(key);
        Some((key, video_id))
    }

    /// The next stream that waits for what is closed, and its question.
    pub fn poll_history(&mut self) -> Option<(StreamKey, Question)> {
        let (key, question) = self.history.pop_front()?;
        self.forget_finished(key);
        Some((key, question))
    }

    /// Nothing more comes of a stream whose question is taken and whose client has ended its side.
    fn forget_finished(&mut self, key: StreamKey) {
        if self.streams.get(&key).is_some_and(|stream| stream.finished) {
            self.forget(key);
        }
    }

    /// The next thing for the driver to do.
    pub fn poll_deed(&mut self) -> Option<Deed> {
        self.deeds.pop_front()
    }

    /// The stream of a session.
    pub fn of_session(&self, session: SessionId) -> Option<StreamKey> {
        self.sessions.get(&session).copied()
    }

    /// Whether anybody wants the snapshot of this epoch.
    pub fn is_wanted(&self, epoch: Epoch) -> bool {
        self.subscribers.iter().any(|one| one.next <= epoch)
    }

    /// The streams that want the snapshot of this epoch and to which `send` has sent it.
    pub fn send_snapshot(&mut self, epoch: Epoch, mut send: impl FnMut(StreamKey) -> bool) {
        for one in self.subscribers.iter_mut().filter(|one| one.next <= epoch) {
            if send(one.stream) {
                one.next = epoch.next();
            }
        }
    }

    fn forget(&mut self, key: StreamKey) -> Option<SessionId> {
        let mut stream = self.streams.remove(&key)?;
        let batch_bytes = stream.batch_bytes();
        self.held.release(key, &mut stream.coming, batch_bytes);
        self.sessions.remove(&stream.session);
        self.blocked.retain(|one| *one != key);
        self.subscribers.retain(|one| one.stream != key);
        if matches!(stream.role, Role::Question(_)) {
            self.lookups.retain(|(one, _)| *one != key);
            self.history.retain(|(one, _)| *one != key);
        }
        Some(stream.session)
    }
}

impl Intakes<'_> {
    /// Begins a turn: lets streams be read on that waited for memory, and gives up those that keep it for too long.
    pub fn begin_turn(&mut self, now: Instant) {
        let Streams { streams, held, deeds, .. } = &mut *self.streams;
        deeds.extend(held.poll_resumed(streams, now).into_iter().map(Deed::Resume));
        let slow = held.poll_slow(streams, now);
        self.streams.now = now;
        for (key, bytes, time) in slow {
            let text = format!(
                "{bytes} bytes of a frame came in the last {} ms, and the memory for frames that are not whole is used up; \
                 send 64 KiB or more in each second, and the batch again",
                time.as_millis()
            );
            self.abandon(key, CloseReason::Overloaded, text);
        }
    }

    /// Offers the frames that had no room again, oldest first; returns whether any was taken.
    pub fn retry_blocked(&mut self) -> bool {
        let mut taken = false;
        for _ in 0..self.streams.blocked.len() {
            let Some(key) = self.streams.blocked.pop_front() else { break };
            match self.offer_frame(key) {
                Intake::Taken => {
                    taken = true;
                    self.streams.deeds.push_back(Deed::Resume(key));
                }
                Intake::NoRoom => self.streams.blocked.push_back(key),
            }
        }
        taken
    }

    /// Reads frames until the stream has no more bytes or the pipeline has no more room.
    fn read_frames(&mut self, key: StreamKey, reader: &mut StreamReader<'_>) {
        loop {
            let Some(stream) = self.streams.streams.get_mut(&key) else { return };
            // What stands behind a breach is not read: it would be counted as another one.
            let is_closed =
                self.streams.closing.contains(&key.connection()) || self.pipeline.has_closed(stream.session);
            if stream.is_whole() || is_closed {
                return;
            }
            let (held, now) = (&mut self.streams.held, self.streams.now);
            // Other frames are small: they come out of what each connection has for itself, and wait for nobody.
            let is_batch = stream.is_batch();
            if is_batch && !held.may_read(key, &mut stream.coming, now) {
                return;
            }
            let Some(chunk) = reader.chunk(stream.bytes_wanted().min(CHUNK_BYTES_MAX)) else { return };
            let bytes = chunk.len();
            if let Err(error) = stream.take(chunk) {
                self.abandon(key, error.close_reason(), error.to_string());
                return;
            }
            if is_batch {
                let is_whole = stream.is_whole();
                held.came(key, &mut stream.coming, bytes, is_whole, now);
            }
            if let Some(frame) = stream.frame.filter(|frame| !stream.role.takes(frame.kind)) {
                let text = stream.role.misplaced(frame.kind);
                self.abandon(key, CloseReason::UnexpectedFrame, text);
                return;
            }
            if stream.is_whole() && self.offer_frame(key) == Intake::NoRoom {
                self.streams.blocked.push_back(key);
                return;
            }
        }
    }

    /// Hands a whole frame to the pipeline.
    fn offer_frame(&mut self, key: StreamKey) -> Intake {
        let Some(stream) = self.streams.streams.get_mut(&key) else { return Intake::Taken };
        let Some(frame) = stream.frame else { return Intake::Taken };
        let session = stream.session;
        let intake = match (stream.role, frame.kind) {
            (Role::Producer, FrameKind::Batch) => {
                self.pipeline.handle_batch(session, &stream.chunks, stream.chunk_bytes)
            }
            (Role::New, FrameKind::Hello) => return self.greet(key),
            (Role::New, FrameKind::Token) => return self.take_token(key),
            (Role::New | Role::Token, kind) if Role::Token.takes(kind) => return self.ask(key, kind),
            (role, kind) => {
                let text = role.misplaced(kind);
                return self.close(key, CloseReason::UnexpectedFrame, text);
            }
        };
        if intake == Intake::Taken {
            self.streams.clear(key);
            if let Some(stream) = self.streams.streams.get_mut(&key) {
                stream.coming.is_proven = true;
            }
        }
        intake
    }

    /// Takes a question, or a subscription, from a client that may read.
    fn ask(&mut self, key: StreamKey, kind: FrameKind) -> Intake {
        if let Err(text) = self.permit(key, Scope::Read, kind.as_str()) {
            return self.close(key, CloseReason::Unauthorized, text);
        }
        match kind {
            FrameKind::Lookup => self.look_up(key),
            FrameKind::History => self.look_back(key, |payload| History::decode(payload).map(Question::List)),
            FrameKind::Periods => self.look_back(key, |payload| Periods::decode(payload).map(Question::Periods)),
            _ => self.subscribe(key),
        }
    }

    fn look_up(&mut self, key: StreamKey) -> Intake {
        let Some(stream) = self.streams.streams.get_mut(&key) else { return Intake::Taken };
        match Lookup::decode(&stream.chunks.concat()) {
            Ok(lookup) => {
                stream.role = Role::Question(FrameKind::Lookup);
                self.streams.clear(key);
                self.streams.lookups.push_back((key, lookup.video_id));
                Intake::Taken
            }
            Err(error) => self.close(key, error.close_reason(), error.to_string()),
        }
    }

    fn look_back(&mut self, key: StreamKey, decode: impl Fn(&[u8]) -> Result<Question, DecodeError>) -> Intake {
        let Some(stream) = self.streams.streams.get_mut(&key) else { return Intake::Taken };
        match decode(&stream.chunks.concat()) {
            Ok(question) => {
                stream.role = Role::Question(question.kind());
                self.streams.clear(key);
                self.streams.history.push_back((key, question));
                Intake::Taken
            }
            Err(error) => self.close(key, error.close_reason(), error.to_string()),
        }
    }

    fn subscribe(&mut self, key: StreamKey) -> Intake {
        let Some(stream) = self.streams.streams.get_mut(&key) else { return Intake::Taken };
        match Subscribe::decode(&stream.chunks.concat()) {
            Ok(subscribe) => {
                stream.role = Role::Subscriber;
                self.streams.clear(key);
                self.streams.subscribers.push(Subscriber { stream: key, next: subscribe.from_epoch });
                Intake::Taken
            }
            Err(error) => self.close(key, error.close_reason(), error.to_string()),
        }
    }

    /// Gives up a stream and its connection; the frame at hand is done with.
    fn close(&mut self, key: StreamKey, reason: CloseReason, text: String) -> Intake {
        self.abandon(key, reason, text);
        Intake::Taken
    }

    /// Gives up a stream whose client wants nothing more of it.
    fn end(&mut self, key: StreamKey) {
        self.streams.forget(key);
        self.streams.deeds.push_back(Deed::End(key));
    }

    fn abandon(&mut self, key: StreamKey, reason: CloseReason, text: String) {
        if let Some(session) = self.streams.forget(key) {
            self.pipeline.handle_disconnect(session);
        }
        self.shut(key.connection(), reason, text);
    }

    /// Closes a connection; the first reason is the one that counts.
    fn shut(&mut self, connection: ConnectionKey, reason: CloseReason, text: String) {
        if self.streams.closing.insert(connection) {
            self.pipeline.count_violation(reason);
            if reason == CloseReason::Unauthorized {
                self.streams.tell_refusal(connection, &text);
            }
            self.streams.deeds.push_back(Deed::Close(connection, reason, text));
        }
    }
}

impl Application for Intakes<'_> {
    fn connection_opened(
        &mut self,
        connection: ConnectionKey,
        peer: SocketAddr,
        certificate: Option<&CertificateDer<'static>>,
    ) {
        self.meet(connection, peer, certificate);
    }

    fn stream_opened(&mut self, key: StreamKey) {
        self.streams.sessions_begun += 1;
        let session = SessionId(self.streams.sessions_begun);
        self.streams.sessions.insert(session, key);
        self.streams.streams.insert(key, Stream::new(session));
    }

    fn stream_readable(&mut self, key: StreamKey, reader: &mut StreamReader<'_>) {
        self.read_frames(key, reader);
    }

    fn stream_finished(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.streams.get_mut(&key) else { return };
        if stream.is_within_frame() {
            let text = stream.cut_short();
            self.abandon(key, CloseReason::Malformed, text);
        } else if matches!(stream.role, Role::New | Role::Token) {
            self.end(key);
        } else if matches!(stream.role, Role::Question(_)) {
            stream.finished = true;
            let waits = self.streams.lookups.iter().any(|(one, _)| *one == key)
                || self.streams.history.iter().any(|(one, _)| *one == key);
            if !waits {
                self.streams.forget(key);
            }
        }
    }

    fn stream_stopped(&mut self, key: StreamKey, _code: u64) {
        match self.streams.streams.get(&key).map(|stream| stream.role) {
            Some(Role::Producer) => {
                let text = "the client stopped reading its producer stream (STOP_SENDING); read every ACK, then close";
                self.abandon(key, CloseReason::UnexpectedFrame, text.to_owned());
            }
            Some(_) => self.end(key),
            None => {}
        }
    }

    fn connection_lost(&mut self, connection: ConnectionKey, _reason: &LossReason) {
        let gone: Vec<StreamKey> = self.streams.of_connection(connection).map(|(key, _)| *key).collect();
        self.streams.closing.remove(&connection);
        self.streams.peers.remove(&connection);
        for key in gone {
            if let Some(session) = self.streams.forget(key) {
                self.pipeline.handle_disconnect(session);
            }
        }
    }
}
