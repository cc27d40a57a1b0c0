//! One connection: its transport state, its streams, and what waits to be written to them.
//!
//! It does no I/O and keeps no clock; the driver owns the socket and the deadlines. Invariants: the application is told
//! of a stream only between `connection_opened` and `connection_lost`; a paused stream is not told of until it is
//! resumed; bytes of one stream leave in the order in which they were written.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{
    Chunks, Connection, ConnectionHandle, Dir, Endpoint, Event, ReadError, StreamEvent, StreamId, VarInt,
};

use rustls_pki_types::CertificateDer;

use super::room::Room;
use super::{Application, ConnectionKey, LossReason, QuicLimits, StreamKey};

/// Smaller chunks are copied out of their datagrams, so that an application that keeps chunks keeps little else: a
/// full datagram's stream data is never smaller, so the copies are few.
const CHUNK_BYTES_SHARED_MIN: usize = 1024;

/// Reads one stream within [`Application::stream_readable`].
pub struct StreamReader<'a> {
    chunks: Chunks<'a>,
    budget_bytes: usize,
    end: ReadEnd,
}

/// How far a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadEnd {
    /// The application has not been told that nothing is left, so if it returns now it has paused the stream.
    Open,
    /// Everything received so far is read.
    Drained,
    /// There may be more, for the next turn.
    BudgetSpent,
    /// Everything is read and the peer has finished.
    Finished,
    /// The peer has abandoned the stream.
    Reset(u64),
}

impl StreamReader<'_> {
    /// The stream's next bytes, at most `bytes_max` of them and never empty, as a rule without a copy. `None`: nothing
    /// more for now; the application is called again when there is.
    ///
    /// # Panics
    /// If `bytes_max` is 0.
    pub fn chunk(&mut self, bytes_max: usize) -> Option<Bytes> {
        assert!(bytes_max > 0, "a chunk of no bytes would look like the end of what there is");
        if self.end != ReadEnd::Open {
            return None;
        }
        if self.budget_bytes == 0 {
            self.end = ReadEnd::BudgetSpent;
            return None;
        }
        self.end = match self.chunks.next(bytes_max.min(self.budget_bytes)) {
            Ok(Some(chunk)) => {
                self.budget_bytes -= chunk.bytes.len();
                return Some(unshared_if_small(chunk.bytes));
            }
            Ok(None) => ReadEnd::Finished,
            Err(ReadError::Blocked) => ReadEnd::Drained,
            Err(ReadError::Reset(code)) => ReadEnd::Reset(code.into_inner()),
        };
        None
    }
}

/// See [`CHUNK_BYTES_SHARED_MIN`].
fn unshared_if_small(bytes: Bytes) -> Bytes {
    if bytes.len() < CHUNK_BYTES_SHARED_MIN { Bytes::copy_from_slice(&bytes) } else { bytes }
}

/// What a connection's turn at reading came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadRound {
    /// Bytes that the application took.
    pub(super) bytes: usize,
    /// Some stream has more for the next turn.
    pub(super) more: bool,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake is under way; the application has not heard of it.
    Handshaking,
    /// The application knows it.
    Open,
    /// Closed or broken; the transport only drains, until the endpoint forgets it.
    Lost,
}

/// What became of bytes given to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkWrite {
    Taken,
    Closed,
    Overflow,
}

struct Stream {
    id: StreamId,
    /// Something may be there to read.
    to_read: bool,
    /// The application stopped reading by itself.
    paused: bool,
    read_done: bool,
    outgoing: VecDeque<Bytes>,
    outgoing_bytes: usize,
    finish_wanted: bool,
    write_done: bool,
}

impl Stream {
    fn new(id: StreamId) -> Self {
        Self {
            id,
            to_read: true,
            paused: false,
            read_done: false,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            finish_wanted: false,
            write_done: false,
        }
    }

    fn give_up_writing(&mut self) {
        self.outgoing.clear();
        self.outgoing_bytes = 0;
        self.write_done = true;
    }
}

/// One connection.
pub(super) struct Link {
    pub(super) key: ConnectionKey,
    pub(super) transport: Connection,
    pub(super) phase: Phase,
    /// In the driver's queue of connections with events.
    pub(super) in_service: bool,
    /// In the driver's queue of connections with packets to send.
    pub(super) in_transmit: bool,
    /// The time under which the driver's deadlines hold it; never later than what the transport asks for.
    pub(super) armed: Option<Instant>,
    /// The application has been told that it opened, and not yet that it is lost.
    announced: bool,
    loss: Option<LossReason>,
    streams: Vec<Stream>,
    windows: Windows,
    /// Bytes that wait for the peer's window, as the room was told.
    unsent_bytes: usize,
    /// When the peer last took some of them, or there were none.
    pub(super) unsent_since: Instant,
}

/// The windows of a connection, and how much of the receive window was used since it grew.
#[derive(Debug)]
struct Windows {
    receive_bytes: u64,
    send_bytes: u64,
    read_bytes: u64,
    taken_bytes: u64,
}

impl Link {
    pub(super) fn new(key: ConnectionKey, transport: Connection, limits: &QuicLimits, now: Instant) -> Self {
        Self {
            key,
            transport,
            phase: Phase::Handshaking,
            in_service: false,
            in_transmit: false,
            armed: None,
            announced: false,
            loss: None,
            streams: Vec::new(),
            windows: Windows {
                receive_bytes: limits.receive_window_bytes_min,
                send_bytes: limits.send_window_bytes_min,
                read_bytes: 0,
                taken_bytes: 0,
            },
            unsent_bytes: 0,
            unsent_since: now,
        }
    }

    /// Gives the connection larger windows where it has used up what it had, as far as there is room, and tells the
    /// room what is unsent. `read_bytes` were read since the last time.
    pub(super) fn settle(&mut self, read_bytes: usize, limits: &QuicLimits, room: &mut Room, now: Instant) {
        let windows = &mut self.windows;
        windows.read_bytes += read_bytes as u64;
        if windows.read_bytes >= windows.receive_bytes / 2 {
            windows.read_bytes = 0;
            let larger = (windows.receive_bytes * 2).min(limits.receive_window_bytes_max);
            let more = larger - windows.receive_bytes;
            if more > 0 && room.take(more) {
                windows.receive_bytes = larger;
                windows.taken_bytes += more;
                self.transport.set_receive_window(VarInt::from_u64(larger).unwrap_or(VarInt::MAX));
            }
        }
        let more = limits.send_window_bytes_max - self.windows.send_bytes;
        if more > 0 && self.streams.iter().any(|stream| stream.outgoing_bytes > 0) && room.take(more) {
            self.windows.send_bytes += more;
            self.windows.taken_bytes += more;
            self.transport.set_send_window(self.windows.send_bytes);
            for index in 0..self.streams.len() {
                self.write_waiting(self.streams[index].id);
            }
        }
        let unsent_bytes = self.streams.iter().map(|stream| stream.outgoing_bytes).sum();
        if unsent_bytes < self.unsent_bytes || self.unsent_bytes == 0 {
            self.unsent_since = now;
        }
        room.unsent(self.unsent_bytes, unsent_bytes);
        self.unsent_bytes = unsent_bytes;
    }

    /// Gives everything back at the end.
    pub(super) fn leave(&mut self, room: &mut Room) {
        room.unsent(std::mem::take(&mut self.unsent_bytes), 0);
        room.give_back(std::mem::take(&mut self.windows.taken_bytes));
    }

    /// Whether bytes wait for the peer's window.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent_bytes > 0
    }

    /// Marks the connection as gone. The application is told by the next [`Link::tell_loss`].
    pub(super) fn lose(&mut self, reason: LossReason) {
        if self.phase == Phase::Lost {
            return;
        }
        self.phase = Phase::Lost;
        self.loss = Some(reason);
        self.streams.clear();
    }

    /// Tells the application of the loss, if it knew the connection. Returns the reason, once, and whether it was told.
    pub(super) fn tell_loss(&mut self, application: &mut impl Application) -> Option<(LossReason, bool)> {
        let reason = self.loss.take()?;
        let told = std::mem::take(&mut self.announced);
        if told {
            application.connection_lost(self.key, &reason);
        }
        Some((reason, told))
    }

    /// Passes events between the endpoint and the transport until there are none. Returns whether the connection is
    /// drained: then the endpoint has forgotten it already.
    pub(super) fn exchange_events(&mut self, endpoint: &mut Endpoint) -> bool {
        let mut drained = false;
        let handle = ConnectionHandle(self.key.index as usize);
        while let Some(event) = self.transport.poll_endpoint_events() {
            drained |= event.is_drained();
            if let Some(answer) = endpoint.handle_event(handle, event) {
                self.transport.handle_event(answer);
            }
        }
        drained
    }

    /// Takes the transport's events: opens streams and marks which of them can be read. Returns whether the handshake
    /// was completed.
    pub(super) fn poll_events(&mut self, application: &mut impl Application) -> bool {
        let mut opened = false;
        while let Some(event) = self.transport.poll() {
            match event {
                Event::Connected => {
                    if self.phase == Phase::Handshaking {
                        self.phase = Phase::Open;
                        self.announced = true;
                        opened = true;
                        let shown = self.transport.crypto_session().peer_identity();
                        let chain = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
                        let certificate = chain.as_ref().and_then(|chain| chain.first());
                        application.connection_opened(self.key, self.transport.remote_address(), certificate);
                    }
                }
                Event::ConnectionLost { reason } => self.lose(reason.into()),
                Event::Stream(event) if self.phase != Phase::Lost => self.stream_event(event, application),
                Event::Stream(_) | Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
        opened
    }

    fn stream_event(&mut self, event: StreamEvent, application: &mut impl Application) {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = self.transport.streams().accept(Dir::Bi) {
                    self.streams.push(Stream::new(id));
                    application.stream_opened(self.stream_key(id));
                }
            }
            StreamEvent::Readable { id } => {
                if let Some(stream) = self.stream(id) {
                    stream.to_read = true;
                }
            }
            StreamEvent::Writable { id } => self.write_waiting(id),
            StreamEvent::Finished { id } => {
                if let Some(stream) = self.stream(id) {
                    stream.give_up_writing();
                }
                self.forget_closed_streams();
            }
            StreamEvent::Stopped { id, error_code } => {
                self.reset(id, error_code);
                application.stream_stopped(self.stream_key(id), error_code.into_inner());
                self.forget_closed_streams();
            }
            StreamEvent::Opened { dir: Dir::Uni } | StreamEvent::Available { .. } => {}
        }
    }

    /// Lets the application read the streams that may have bytes, `budget_bytes` in all.
    pub(super) fn read_streams(&mut self, application: &mut impl Application, budget_bytes: usize) -> ReadRound {
        let mut round = ReadRound { bytes: 0, more: false };
        for index in 0..self.streams.len() {
            let stream = &self.streams[index];
            if !stream.to_read || stream.paused || stream.read_done {
                continue;
            }
            if round.bytes >= budget_bytes {
                round.more = true;
                break;
            }
            round.bytes += self.read_stream(index, application, budget_bytes - round.bytes);
            round.more |= self.streams[index].to_read && !self.streams[index].paused && !self.streams[index].read_done;
        }
        if round.more {
            // The next turn begins with another stream, so that none waits for ever behind a busy one.
            self.streams.rotate_left(1);
        }
        self.forget_closed_streams();
        round
    }

    /// Returns the bytes taken; afterwards the stream says whether there is more.
    fn read_stream(&mut self, index: usize, application: &mut impl Application, budget_bytes: usize) -> usize {
        let id = self.streams[index].id;
        let key = self.stream_key(id);
        let mut receiver = self.transport.recv_stream(id);
        let Ok(chunks) = receiver.read(true) else {
            self.streams[index].read_done = true;
            return 0;
        };
        let mut reader = StreamReader { chunks, budget_bytes, end: ReadEnd::Open };
        application.stream_readable(key, &mut reader);
        let StreamReader { chunks, budget_bytes: budget_left, end } = reader;
        // Whether window credit became due does not matter: every serviced connection is asked for packets.
        let _ = chunks.finalize();
        let stream = &mut self.streams[index];
        match end {
            ReadEnd::Open => stream.paused = true,
            ReadEnd::Drained => stream.to_read = false,
            ReadEnd::BudgetSpent => {}
            ReadEnd::Finished => {
                stream.read_done = true;
                application.stream_finished(key);
            }
            ReadEnd::Reset(code) => {
                stream.read_done = true;
                application.stream_reset(key, code);
            }
        }
        budget_bytes - budget_left
    }

    /// Ends the application's pause. Returns whether the stream is to be read in the next turn.
    pub(super) fn resume(&mut self, id: StreamId) -> bool {
        match self.stream(id) {
            Some(stream) if stream.paused => {
                stream.paused = false;
                stream.to_read = true;
                true
            }
            _ => false,
        }
    }

    /// Writes to a stream, keeping up to `unsent_bytes_max` bytes that the transport has no room for.
    pub(super) fn write(&mut self, id: StreamId, bytes: Bytes, unsent_bytes_max: usize) -> LinkWrite {
        let Some(stream) = self.stream(id) else {
            return LinkWrite::Closed;
        };
        if stream.write_done || stream.finish_wanted {
            return LinkWrite::Closed;
        }
        stream.outgoing_bytes += bytes.len();
        if !bytes.is_empty() {
            stream.outgoing.push_back(bytes);
        }
        if stream.outgoing.len() == 1 {
            self.write_waiting(id);
        }
        match self.stream(id) {
            Some(stream) if stream.outgoing_bytes > unsent_bytes_max => LinkWrite::Overflow,
            Some(_) => LinkWrite::Taken,
            None => LinkWrite::Closed,
        }
    }

    /// Bytes of a stream that the transport had no room for yet.
    pub(super) fn unsent_bytes(&self, id: StreamId) -> usize {
        self.streams.iter().find(|stream| stream.id == id).map_or(0, |stream| stream.outgoing_bytes)
    }

    /// Finishes the engine's half of a stream after what was written.
    pub(super) fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.stream(id)
            && !stream.write_done
        {
            stream.finish_wanted = true;
            self.write_waiting(id);
        }
    }

    /// Asks the peer to send no more on a stream and drops what was not read.
    pub(super) fn stop_reading(&mut self, id: StreamId, code: VarInt) {
        if let Some(stream) = self.stream(id)
            && !stream.read_done
        {
            stream.read_done = true;
            // Fails only for a stream that is over already.
            let _ = self.transport.recv_stream(id).stop(code);
            self.forget_closed_streams();
        }
    }

    fn reset(&mut self, id: StreamId, code: VarInt) {
        if let Some(stream) = self.stream(id) {
            stream.give_up_writing();
            // Fails only for a stream that is over already.
            let _ = self.transport.send_stream(id).reset(code);
        }
    }

    /// Gives the transport what waits for a stream, as far as there is room.
    fn write_waiting(&mut self, id: StreamId) {
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) else {
            return;
        };
        let mut sender = self.transport.send_stream(id);
        while let Some(front) = stream.outgoing.front_mut() {
            match sender.write_chunks(std::slice::from_mut(front)) {
                Ok(written) => {
                    stream.outgoing_bytes -= written.bytes;
                    if written.chunks == 1 {
                        stream.outgoing.pop_front();
                    }
                }
                Err(quinn_proto::WriteError::Blocked) => return,
                Err(quinn_proto::WriteError::Stopped(_) | quinn_proto::WriteError::ClosedStream) => {
                    stream.give_up_writing();
                    return;
                }
            }
        }
        if stream.finish_wanted && !stream.write_done {
            // The stream stays known until the peer has everything (`Finished`), or stops it.
            stream.write_done = sender.finish().is_err();
        }
    }

    fn forget_closed_streams(&mut self) {
        self.streams.retain(|stream| !(stream.read_done && stream.write_done));
    }

    fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    fn stream_key(&self, stream: StreamId) -> StreamKey {
        StreamKey { connection: self.key, stream }
    }
}
