//! The driver: receives, routes, tells the application, keeps deadlines, sends.
//!
//! It decides nothing about what the bytes mean. Invariants: a connection with events is in `service_queue`, one that
//! may have packets is in `transmit_queue`, one with a timer is in `deadlines`; so nothing waits for a packet of
//! somebody else to be noticed. A blocked socket keeps one transmit and stops all sending until it is out.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{DatagramEvent, Endpoint, Incoming, ServerConfig, StreamId, VarInt};
use quinn_udp::RecvMeta;

use super::census::Census;
use super::drops::KernelDrops;
use super::link::{Link, LinkWrite, Phase, ReadRound};
use super::room::Room;
use super::socket::{Port, Sent, ecn_of};
use super::stats::{QuicStats, Turn, WriteOutcome};
use super::{Application, ConnectionKey, LossReason, QuicError, QuicLimits, StreamKey, config};
use crate::access::Refusals;
use crate::{diagnostics::Sockets, tls::ServerTls};

mod ends;
mod trust;

/// Receive calls in one turn.
const RECEIVE_CALLS_MAX: usize = 4;
/// No further receive call in a turn that has taken this much: at some 900 MB/s it is a quarter of a millisecond.
const RECEIVE_BYTES_PER_TURN: usize = 256 * 1024;
/// Transmits of one connection before the next one's turn.
const TRANSMITS_PER_ROUND: usize = 8;
/// Of every so many connections allowed one may be in its handshake before newcomers must prove their address.
const HANDSHAKES_DIVISOR: usize = 4;

/// The QUIC endpoint of one core.
pub struct QuicDriver {
    port: Port,
    endpoint: Endpoint,
    /// What new connections are accepted by.
    server: Arc<ServerConfig>,
    refusals: Refusals,
    limits: QuicLimits,
    /// By the endpoint's handle, which is reused; the generation in the key is not.
    links: Vec<Option<Box<Link>>>,
    generation: u32,
    deadlines: BTreeSet<(Instant, u32)>,
    service_queue: VecDeque<u32>,
    transmit_queue: VecDeque<u32>,
    census: Census,
    room: Room,
    closing: bool,
    response: Vec<u8>,
    now: Instant,
    stats: QuicStats,
}

impl QuicDriver {
    /// Binds `address` (port 0: any free one) for the core `core`, whose number goes into every connection id.
    ///
    /// # Errors
    /// [`QuicError`]: the address is taken, a limit is out of range, or the TLS configuration does not fit QUIC.
    pub fn bind(address: SocketAddr, tls: &ServerTls, core: u8, limits: QuicLimits) -> Result<Self, QuicError> {
        let server = config::server_config(tls.config.clone(), &limits)?;
        let endpoint_config = Arc::new(config::endpoint_config(core, &tls.reset_key)?);
        let port = Port::bind(address, limits.socket_buffer_bytes)?;
        let endpoint = Endpoint::new(endpoint_config, Some(server.clone()), port.may_search_mtu(), None);
        let room = Room::new(limits.windows_bytes, limits.unsent_bytes_total_max);
        Ok(Self {
            port,
            endpoint,
            server,
            refusals: Refusals::default(),
            limits,
            links: Vec::new(),
            generation: 0,
            deadlines: BTreeSet::new(),
            service_queue: VecDeque::new(),
            transmit_queue: VecDeque::new(),
            census: Census::default(),
            room,
            closing: false,
            response: Vec::new(),
            now: Instant::now(),
            stats: QuicStats::default(),
        })
    }

    /// The address bound, with the port that was taken for port 0.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.port.local_addr()
    }

    /// What the kernel gave to the socket.
    #[must_use]
    pub fn granted(&self) -> Sockets {
        self.port.granted()
    }

    /// What it holds and does at most.
    #[must_use]
    pub fn limits(&self) -> &QuicLimits {
        &self.limits
    }

    /// Bytes that windows have beyond the least, and bytes that wait for their peers' windows.
    #[must_use]
    pub fn taken(&self) -> (u64, u64) {
        self.room.taken()
    }

    /// The socket, to wait for: readable always, writable while [`QuicDriver::wants_write`].
    #[must_use]
    pub fn udp_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }

    /// Whether a transmit waits for room in the socket's buffer.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.port.is_blocked()
    }

    /// When the next turn is due even if nothing arrives; may be early, never late. Work left over makes it now.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        let sending = !self.transmit_queue.is_empty() && !self.port.is_blocked();
        if sending || !self.service_queue.is_empty() {
            return Some(self.now);
        }
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Connections in their handshake or open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.census.live
    }

    /// Whether nothing is left of any connection, closed ones included: after [`QuicDriver::close_all`], time to go.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.links.iter().all(Option::is_none)
    }

    /// Counts since the driver was made.
    #[must_use]
    pub fn stats(&self) -> QuicStats {
        self.stats
    }

    /// The count of datagrams that the kernel dropped because this core was late, for another thread to read.
    #[must_use]
    pub fn kernel_drops(&self) -> KernelDrops {
        KernelDrops::of(self.port.as_fd())
    }

    /// The address that a connection's packets come from.
    #[must_use]
    pub fn peer(&self, connection: ConnectionKey) -> Option<SocketAddr> {
        self.link(connection).map(|link| link.transport.remote_address())
    }

    /// One bounded round: receive, run timers, tell the application, send.
    pub fn turn(&mut self, now: Instant, application: &mut impl Application) -> Turn {
        self.now = now;
        let mut worked = self.receive(now);
        worked |= self.expire(now);
        let mut budget_bytes = self.limits.read_bytes_per_turn;
        for _ in 0..self.service_queue.len() {
            if budget_bytes == 0 {
                break;
            }
            let Some(index) = self.service_queue.pop_front() else { break };
            budget_bytes = budget_bytes.saturating_sub(self.service(index, application, budget_bytes));
            worked = true;
        }
        worked |= self.flush(now);
        Turn { worked: worked || !self.service_queue.is_empty() }
    }

    /// Sends what was written since the last turn, without receiving. Returns whether anything was sent.
    pub fn flush(&mut self, now: Instant) -> bool {
        self.now = now;
        let mut sent_any = false;
        if let Some((sent, bytes)) = self.port.retry_blocked() {
            self.stats.count_sent(sent, bytes);
            if sent == Sent::Blocked {
                return false;
            }
            sent_any = true;
        }
        for _ in 0..self.transmit_queue.len() {
            let Some(index) = self.transmit_queue.pop_front() else { break };
            sent_any |= self.transmit(index, now);
            if self.port.is_blocked() {
                break;
            }
        }
        sent_any
    }

    /// Writes to a stream. Sent by the next [`QuicDriver::turn`] or [`QuicDriver::flush`].
    pub fn write(&mut self, stream: StreamKey, bytes: Bytes) -> WriteOutcome {
        let unsent_bytes_max = self.limits.unsent_bytes_max;
        let (now, index) = (self.now, stream.connection.index);
        let Some(link) = self.open_link(stream.connection) else {
            return WriteOutcome::Closed;
        };
        let written = link.write(stream.stream, bytes, unsent_bytes_max);
        if let Some(link) = self.links[index as usize].as_deref_mut() {
            link.settle(0, &self.limits, &mut self.room, now);
        }
        match written {
            LinkWrite::Taken => {
                self.queue_transmit(index);
                if !self.room.has_room_for(0) {
                    self.close_slowest(now);
                }
                WriteOutcome::Taken
            }
            LinkWrite::Closed => WriteOutcome::Closed,
            LinkWrite::Overflow => {
                let text = format!(
                    "more than {unsent_bytes_max} bytes wait to be sent on one stream because the client does not read; \
                     read the engine's answers while sending"
                );
                self.close_overloaded(stream.connection, &text);
                WriteOutcome::Overloaded
            }
        }
    }

    /// Bytes written to a stream that wait for the peer's window; 0 for a stream that is gone.
    #[must_use]
    pub fn unsent_bytes(&self, stream: StreamKey) -> usize {
        self.link(stream.connection).map_or(0, |link| link.unsent_bytes(stream.stream))
    }

    /// Finishes the engine's half of a stream, after what was written to it.
    pub fn finish(&mut self, stream: StreamKey) {
        self.with_stream(stream, Link::finish);
    }

    /// Asks the peer to send no more on a stream, and drops what has not been read.
    pub fn stop_reading(&mut self, stream: StreamKey, code: u32) {
        self.with_stream(stream, |link, id| link.stop_reading(id, VarInt::from_u32(code)));
    }

    /// Ends the pause of a stream: the next turn lets the application read it again.
    pub fn resume(&mut self, stream: StreamKey) {
        if let Some(link) = self.open_link(stream.connection)
            && link.resume(stream.stream)
        {
            self.queue_service(stream.connection.index);
        }
    }

    fn receive(&mut self, now: Instant) -> bool {
        let mut bytes_taken = 0;
        for _ in 0..RECEIVE_CALLS_MAX {
            let count = match self.port.receive() {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.stats.receive_errors += 1;
                    tracing::debug!(%error, "a receive call failed");
                    break;
                }
            };
            for index in 0..count {
                let meta = self.port.meta(index);
                bytes_taken += meta.len;
                let mut start = 0;
                while start < meta.len {
                    let piece = self.port.piece(index, start);
                    start += piece.len();
                    self.take_datagrams(now, &meta, piece);
                }
            }
            if count == 0 || bytes_taken >= RECEIVE_BYTES_PER_TURN {
                break;
            }
        }
        self.stats.bytes_received += bytes_taken as u64;
        bytes_taken > 0
    }

    /// Takes a message apart into its datagrams and routes them.
    fn take_datagrams(&mut self, now: Instant, meta: &RecvMeta, mut bytes: BytesMut) {
        while !bytes.is_empty() {
            let datagram = bytes.split_to(meta.stride.clamp(1, bytes.len()));
            self.stats.datagrams_received += 1;
            self.response.clear();
            match self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn_of(meta), datagram, &mut self.response) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(link) = self.links.get_mut(handle.0).and_then(Option::as_deref_mut) {
                        link.transport.handle_event(event);
                        self.queue_service(handle.0 as u32);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.take_connection(now, incoming),
                Some(DatagramEvent::Response(transmit)) => self.respond(transmit),
                None => {}
            }
        }
    }

    /// Accepts, refuses, or asks for a proof of address.
    fn take_connection(&mut self, now: Instant, incoming: Incoming) {
        self.response.clear();
        let max = self.limits.connections_max;
        let connections = self.census.live;
        if self.closing || connections >= max {
            self.stats.connections_refused += 1;
            tracing::debug!(peer = %incoming.remote_address(), connections, max, "refused a connection");
            let transmit = self.endpoint.refuse(incoming, &mut self.response);
            self.respond(transmit);
            return;
        }
        let crowded = self.census.handshaking * HANDSHAKES_DIVISOR > max;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            self.stats.retries_sent += 1;
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.response) {
                self.respond(transmit);
            }
            return;
        }
        match self.endpoint.accept(incoming, now, &mut self.response, None) {
            Ok((handle, transport)) => {
                let index = handle.0;
                if self.links.len() <= index {
                    self.links.resize_with(index + 1, || None);
                }
                assert!(self.links[index].is_none(), "the endpoint reused handle {index} before it was drained");
                self.generation = self.generation.wrapping_add(1);
                let key = ConnectionKey { index: index as u32, generation: self.generation };
                self.links[index] = Some(Box::new(Link::new(key, transport, &self.limits, now)));
                self.census.began();
                self.queue_service(key.index);
            }
            Err(error) => {
                tracing::debug!(cause = %error.cause, "a connection attempt failed");
                if let Some(transmit) = error.response {
                    self.respond(transmit);
                }
            }
        }
    }

    fn respond(&mut self, transmit: quinn_proto::Transmit) {
        self.stats.count_sent(self.port.respond(&transmit, &self.response), transmit.size);
    }

    /// Runs the timers that are due.
    fn expire(&mut self, now: Instant) -> bool {
        let mut worked = false;
        while let Some(&(deadline, index)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(link) = self.links[index as usize].as_deref_mut() else { continue };
            link.armed = None;
            if link.transport.poll_timeout().is_some_and(|due| due <= now) {
                link.transport.handle_timeout(now);
                self.queue_service(index);
                worked = true;
            } else {
                self.arm(index);
            }
        }
        worked
    }

    /// Hands a connection's events round, reads its streams, forgets it once it is drained; returns the bytes read.
    fn service(&mut self, index: u32, application: &mut impl Application, budget_bytes: usize) -> usize {
        let Some(link) = self.links[index as usize].as_deref_mut() else { return 0 };
        link.in_service = false;
        let before = link.phase;
        let drained = link.exchange_events(&mut self.endpoint);
        self.stats.connections_opened += u64::from(link.poll_events(application));
        let round = match link.phase {
            Phase::Open => link.read_streams(application, budget_bytes),
            Phase::Handshaking | Phase::Lost => ReadRound { bytes: 0, more: false },
        };
        link.settle(round.bytes, &self.limits, &mut self.room, self.now);
        let (after, key) = (link.phase, link.key);
        if let Some((reason, told)) = link.tell_loss(application) {
            self.stats.connections_lost += u64::from(told);
            self.stats.handshakes_failed += u64::from(!told);
            if let (LossReason::Distrusted(why), false) = (&reason, told) {
                let peer = link.transport.remote_address();
                trust::distrusted(&mut self.stats, &mut self.refusals, self.now, peer, why);
            }
            tracing::debug!(%key, %reason, opened = told, "a connection ended");
        }
        self.census.moved(index, before, after);
        if drained {
            self.forget(index);
            return round.bytes;
        }
        if after == Phase::Lost {
            self.abandon_surplus();
        }
        if round.more {
            self.queue_service(index);
        }
        self.queue_transmit(index);
        round.bytes
    }

    /// Sends a connection's packets, a bounded number of them. Returns whether any was sent.
    fn transmit(&mut self, index: u32, now: Instant) -> bool {
        let Some(link) = self.links[index as usize].as_deref_mut() else { return false };
        link.in_transmit = false;
        let mut sent_any = false;
        let mut rounds = 0;
        let more = loop {
            let datagrams_max = self.port.datagrams_max(link.transport.current_mtu());
            let Some(transmit) = link.transport.poll_transmit(now, datagrams_max, self.port.outgoing()) else {
                break false;
            };
            let bytes = transmit.size;
            let sent = self.port.send(transmit);
            self.stats.count_sent(sent, bytes);
            sent_any |= sent == Sent::Taken;
            rounds += 1;
            if sent == Sent::Blocked || rounds == TRANSMITS_PER_ROUND {
                break true;
            }
        };
        if more {
            self.queue_transmit(index);
        }
        self.arm(index);
        sent_any
    }

    /// Makes sure that the deadlines hold the connection no later than its transport's next timer. A later timer leaves
    /// the old entry: it wakes once for nothing, which costs less than moving it with every packet.
    fn arm(&mut self, index: u32) {
        let Some(link) = self.links[index as usize].as_deref_mut() else { return };
        let Some(due) = link.transport.poll_timeout() else { return };
        match link.armed {
            Some(armed) if armed <= due => return,
            Some(armed) => {
                self.deadlines.remove(&(armed, index));
            }
            None => {}
        }
        link.armed = Some(due);
        self.deadlines.insert((due, index));
    }

    fn with_stream(&mut self, stream: StreamKey, act: impl FnOnce(&mut Link, StreamId)) {
        if let Some(link) = self.open_link(stream.connection) {
            act(link, stream.stream);
            self.queue_transmit(stream.connection.index);
        }
    }

    fn link(&self, connection: ConnectionKey) -> Option<&Link> {
        self.links.get(connection.index as usize)?.as_deref().filter(|link| link.key == connection)
    }

    fn open_link(&mut self, connection: ConnectionKey) -> Option<&mut Link> {
        let link = self.links.get_mut(connection.index as usize)?.as_deref_mut()?;
        (link.key == connection && link.phase == Phase::Open).then_some(link)
    }

    fn queue_service(&mut self, index: u32) {
        if let Some(link) = self.links[index as usize].as_deref_mut()
            && !std::mem::replace(&mut link.in_service, true)
        {
            self.service_queue.push_back(index);
        }
    }

    fn queue_transmit(&mut self, index: u32) {
        if let Some(link) = self.links[index as usize].as_deref_mut()
            && !std::mem::replace(&mut link.in_transmit, true)
        {
            self.transmit_queue.push_back(index);
        }
    }
}
