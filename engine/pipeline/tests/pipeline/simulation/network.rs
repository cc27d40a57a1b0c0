//! The simulated network between clients and the engine.
//!
//! A connection is two queues, one each way, and two ends that can be gone without the other's knowing. What is queued
//! arrives in order, in pieces, when chance has it; between connections there is no order at all. When a connection
//! dies, the tail of either queue is lost. So batches of one producer come late, twice, over several connections and
//! behind the hello that fences them; hellos overtake each other; acknowledgements are lost; and either side goes on
//! talking to nobody.
//!
//! Below this seam is QUIC: packets that are lost, doubled, reordered or damaged on their way are quinn's to mend, and
//! an ordered stream without gaps is all that our code ever sees of them. What a stream can do to us is here; what
//! packets do to a stream is in the tests of quinn-proto, which drop and reorder them.

use super::Simulation;
use super::events::Event;
use crate::client::{Link, Sent};
use crate::engine::Answer;
use crate::ledger::{Place, time_refusals};
use bytes::Bytes;
use highwater_pipeline::{Intake, SessionId, home_core};
use highwater_proto::{Hello, HelloMode, PROTOCOL_VERSION, ProducerId};
use std::collections::{BTreeMap, VecDeque};

/// Something on its way to the engine.
#[derive(Debug)]
enum Frame {
    Hello(Hello),
    Batch(Sent),
}

/// A connection with its one producer stream.
#[derive(Debug)]
pub(super) struct Connection {
    client: usize,
    producer: ProducerId,
    core: usize,
    /// On their way, in order.
    to_engine: VecDeque<Frame>,
    /// What the engine has of the first of them, if that is a batch.
    arrived: Vec<Bytes>,
    arrived_bytes: usize,
    to_client: VecDeque<Answer>,
    client_gone: bool,
    engine_gone: bool,
    /// Whether the engine has closed it, and does not know yet that it is gone.
    is_closed: bool,
}

/// All connections of which an end is left.
#[derive(Debug, Default)]
pub(super) struct Network {
    connections: BTreeMap<SessionId, Connection>,
    sessions: u64,
    /// By producer: the session whose hello the engine took last, until that ends. All others are fenced.
    newest: BTreeMap<ProducerId, SessionId>,
}

impl Network {
    /// A number that no session has had.
    pub(super) fn session(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId(self.sessions)
    }

    /// Whether nothing is on its way, and no end is left alone.
    pub(super) fn is_quiet(&self) -> bool {
        let is_quiet = |one: &Connection| {
            one.to_engine.is_empty() && one.to_client.is_empty() && one.client_gone == one.engine_gone
        };
        self.connections.values().all(is_quiet)
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.connections.keys().copied().collect()
    }
}

impl Simulation {
    fn connection(&mut self, session: SessionId) -> &mut Connection {
        self.network.connections.get_mut(&session).expect("an end of it is left")
    }

    /// A client opens a connection, to its home core or to another, and says hello.
    pub(super) fn connect(&mut self, index: usize) {
        let mode = if self.clients[index].welcomed {
            HelloMode::Resume
        } else {
            self.clients[index].producer = ProducerId(self.producer_next);
            self.producer_next += 1;
            HelloMode::New
        };
        let producer = self.clients[index].producer;
        let cores = self.engine().cores.len();
        let home = usize::from(home_core(producer, cores as u16));
        let aim = self.clients[index].aim.take().filter(|core| *core < cores);
        let core = if self.chance(4) { self.below(cores as u64) as usize } else { aim.unwrap_or(home) };
        let session = self.network.session();
        let hello = Hello { version: PROTOCOL_VERSION, mode, producer, token: Vec::new() };
        let connection = Connection {
            client: index,
            producer,
            core,
            to_engine: VecDeque::from([Frame::Hello(hello)]),
            arrived: Vec::new(),
            arrived_bytes: 0,
            to_client: VecDeque::new(),
            client_gone: false,
            engine_gone: false,
            is_closed: false,
        };
        self.network.connections.insert(session, connection);
        self.clients[index].link = Link::Greeting(session);
        self.events.note(Some(core), Event::Connects { session, producer });
    }

    /// Puts a batch on its way; into the void where the engine is gone and its client does not know.
    pub(super) fn dispatch(&mut self, session: SessionId, sent: Sent) {
        let connection = self.connection(session);
        if !connection.engine_gone {
            connection.to_engine.push_back(Frame::Batch(sent));
            return;
        }
        self.tally.faults.batches_into_void += 1;
        let index = self.connection(session).client;
        if self.chance(3) {
            self.client_times_out(index);
        }
    }

    /// Lets something arrive somewhere.
    pub(super) fn deliver(&mut self) {
        let sessions = self.network.sessions();
        if sessions.is_empty() {
            return;
        }
        let session = sessions[self.below(sessions.len() as u64) as usize];
        if self.chance(3) {
            self.deliver_to_client(session);
        } else {
            self.deliver_to_engine(session);
        }
    }

    /// Lets everything arrive that there is room for; returns whether anything did.
    pub(super) fn deliver_all(&mut self) -> bool {
        let mut worked = false;
        for session in self.network.sessions() {
            while self.deliver_to_engine(session) {
                worked = true;
            }
            while self.deliver_to_client(session) {
                worked = true;
            }
        }
        worked
    }

    /// Lets the next answer arrive.
    pub(super) fn deliver_to_client(&mut self, session: SessionId) -> bool {
        let Some(connection) = self.network.connections.get_mut(&session) else { return false };
        let index = connection.client;
        let Some(answer) = connection.to_client.pop_front() else { return false };
        self.events.note(None, Event::Hears { session, answer: answer.name() });
        self.clients[index].hear(answer);
        if self.clients[index].session() != Some(session) {
            self.client_ends(session);
        }
        true
    }

    /// Lets the next hello, or a piece of the next batch, arrive.
    pub(super) fn deliver_to_engine(&mut self, session: SessionId) -> bool {
        let Some(connection) = self.network.connections.get_mut(&session) else { return false };
        match connection.to_engine.pop_front() {
            _ if connection.engine_gone => false,
            None => false,
            Some(Frame::Hello(hello)) => self.deliver_hello(session, hello),
            Some(Frame::Batch(sent)) => self.deliver_piece(session, sent),
        }
    }

    fn deliver_hello(&mut self, session: SessionId, hello: Hello) -> bool {
        let connection = self.connection(session);
        let (core, producer) = (connection.core, hello.producer);
        self.events.note(Some(core), Event::HelloArrives { session });
        if self.engine().hello_to(core, session, &hello) == Intake::NoRoom {
            self.connection(session).to_engine.push_front(Frame::Hello(hello));
            return false;
        }
        let before = self.network.newest.insert(producer, session);
        self.distribute();
        match before {
            // It was refused or redirected, and fences nobody.
            Some(before) if !self.network.newest.contains_key(&producer) => {
                self.network.newest.insert(producer, before);
            }
            Some(before) => self.tally.faults.late_hellos += u64::from(before > session),
            None => {}
        }
        true
    }

    fn deliver_piece(&mut self, session: SessionId, sent: Sent) -> bool {
        let missing = sent.payload.len() - self.connection(session).arrived_bytes;
        let len = if self.chance(2) { missing } else { self.below(missing as u64 + 1) as usize };
        let connection = self.network.connections.get_mut(&session).expect("an end of it is left");
        if missing > 0 {
            connection.arrived.push(sent.payload.slice(connection.arrived_bytes..connection.arrived_bytes + len));
            connection.arrived_bytes += len;
        }
        if len < missing {
            connection.to_engine.push_front(Frame::Batch(sent));
            self.tally.faults.pieces += 1;
            self.events.note(None, Event::PieceArrives { session, bytes: len });
            return true;
        }
        let pieces = std::mem::take(&mut connection.arrived);
        if self.engine().at(session).handle_batch(session, &pieces, sent.payload.len()) == Intake::NoRoom {
            let connection = self.connection(session);
            connection.arrived = pieces;
            connection.to_engine.push_front(Frame::Batch(sent));
            return false;
        }
        self.connection(session).arrived_bytes = 0;
        self.judge(session, sent);
        true
    }

    /// The engine has taken a batch: what must become of it, by what is known outside.
    fn judge(&mut self, session: SessionId, sent: Sent) {
        let Connection { producer, core, client_gone, client, .. } = *self.connection(session);
        let is_newest = self.network.newest.get(&producer) == Some(&session);
        let is_next = sent.sequence == self.ledger.last_appended(producer) + 1;
        let refused_before = self.tally.progress.batches_refused;
        // Appended, or refused: then the refusal is there at once.
        let stats = self.engine().stats();
        let said = stats.iter().flat_map(|stats| stats.batches_refused).sum::<u64>();
        let is_refused = said > self.refused_in_life;
        self.refused_in_life = said;
        assert!(is_newest || !is_refused, "a fenced session is told of a refusal");
        let fate = match (is_newest, is_refused, is_next) {
            (false, ..) => "fenced",
            (_, true, _) => "refused",
            (.., true) => "appended",
            _ => "seen",
        };
        self.events.note(Some(core), Event::BatchArrives { session, sequence: sent.sequence, fate });
        self.tally.faults.late_batches += u64::from(!is_newest);
        if fate == "appended" {
            let arrival_ms = self.now_ms[core];
            let refused = time_refusals(&sent.views, arrival_ms, self.setup.skew_max_ms);
            let place = Place { core, published: self.last.map_or(0, |(epoch, _)| epoch), arrival_ms };
            self.ledger.append(place, producer, sent.sequence, sent.views, refused);
            self.tally.faults.overtaken += u64::from(client_gone);
        }
        self.distribute();
        assert_eq!(self.tally.progress.batches_refused > refused_before, is_refused, "client {client}");
    }

    /// Checks what clients are told, and puts it on its way.
    pub(super) fn distribute(&mut self) {
        for (session, answer) in self.engine().outputs() {
            let cores = self.now_ms.len() as u16;
            let Some(connection) = self.network.connections.get_mut(&session).filter(|one| !one.engine_gone) else {
                panic!("{answer:?} for nobody")
            };
            let (producer, core) = (connection.producer, connection.core);
            let home = usize::from(home_core(producer, cores));
            self.events.note(Some(core), Event::Told { session, answer: answer.name(), sequence: answer.sequence() });
            let mut ends = false;
            match &answer {
                Answer::Ack(ack) => {
                    self.ledger.check_ack(producer, ack);
                    self.note_told(&format!("{ack:?}"));
                    self.tally.progress.duplicates += u64::from(ack.duplicate > 0);
                    self.tally.progress.views_refused += u64::from(ack.refused_count() > 0);
                }
                Answer::Refused(_) => self.tally.progress.batches_refused += 1,
                Answer::Redirect(redirect) => {
                    assert!(usize::from(redirect.home_core) == home && core != home, "{redirect:?} from core {core}");
                    assert_eq!(redirect.ports.len(), usize::from(cores));
                    self.tally.faults.redirects += 1;
                    ends = true;
                }
                Answer::Welcome(_) => assert_eq!(core, home, "{producer:?} is welcome at another core"),
                Answer::Close(..) => ends = true,
                Answer::Finish => {}
            }
            if ends && self.network.newest.get(&producer) == Some(&session) {
                self.network.newest.remove(&producer);
            }
            let closes = matches!(answer, Answer::Close(..));
            let cuts = closes && self.chance(2);
            let connection = self.connection(session);
            connection.is_closed |= closes;
            if !connection.client_gone {
                // A close overtakes what is on its way.
                let lost = if cuts { connection.to_client.drain(..).count() } else { 0 };
                connection.to_client.push_back(answer);
                self.tally.faults.answers_lost += lost as u64;
            }
        }
        self.engine().check_balance();
    }

    /// The client gives its connection up. The engine does not know yet, and what is on its way may still arrive.
    pub(super) fn client_leaves(&mut self, index: usize) {
        let Some(session) = self.clients[index].session() else { return };
        self.clients[index].link = Link::Down;
        self.client_ends(session);
        self.lose_tail(session);
    }

    fn client_ends(&mut self, session: SessionId) {
        self.events.note(None, Event::ClientLeaves { session });
        let connection = self.connection(session);
        connection.client_gone = true;
        let (lost, engine_gone) = (connection.to_client.drain(..).count(), connection.engine_gone);
        self.tally.faults.answers_lost += lost as u64;
        self.tally.faults.half_open_engine += u64::from(!engine_gone);
        self.bury(session);
    }

    /// Of what is on its way to the engine, the last are lost.
    fn lose_tail(&mut self, session: SessionId) {
        let Some(connection) = self.network.connections.get(&session) else { return };
        let left = connection.to_engine.len() as u64;
        let keeps = self.below(left + 1) as usize;
        let connection = self.connection(session);
        // The first may have arrived in part, and is then no more than that.
        let lost = connection.to_engine.drain(keeps..).filter(|frame| matches!(frame, Frame::Batch(_))).count();
        let is_cut_short = keeps == 0 && connection.arrived_bytes > 0;
        self.tally.faults.batches_lost += lost as u64;
        if is_cut_short {
            self.engine_loses(session);
        }
    }

    /// The engine finds that a connection is gone, or takes it to be. What it said last may still reach the client.
    pub(super) fn engine_loses(&mut self, session: SessionId) {
        if self.connection(session).engine_gone {
            return;
        }
        self.distribute();
        self.engine().at(session).handle_disconnect(session);
        self.forget_at_engine(session);
    }

    /// Nothing more comes out of a connection at the engine.
    fn forget_at_engine(&mut self, session: SessionId) {
        self.events.note(None, Event::EngineLoses { session });
        let unheard = self.connection(session).to_client.len() as u64;
        let keeps = self.below(unheard + 1) as usize;
        let connection = self.connection(session);
        connection.engine_gone = true;
        let lost = connection.to_engine.drain(..).filter(|frame| matches!(frame, Frame::Batch(_))).count();
        let unheard = connection.to_client.drain(keeps..).count();
        let (was_within, client_gone) = (connection.arrived_bytes > 0, connection.client_gone);
        let producer = connection.producer;
        if self.network.newest.get(&producer) == Some(&session) {
            self.network.newest.remove(&producer);
        }
        self.tally.faults.batches_lost += lost as u64;
        self.tally.faults.cut_short += u64::from(was_within);
        self.tally.faults.answers_lost += unheard as u64;
        self.tally.faults.half_open_client += u64::from(!client_gone);
        self.bury(session);
    }

    fn bury(&mut self, session: SessionId) {
        let connection = self.connection(session);
        if connection.client_gone && connection.engine_gone {
            self.network.connections.remove(&session);
        }
    }

    /// The engine's process is gone, and with it its end of every connection.
    pub(super) fn engine_is_gone(&mut self) {
        for session in self.network.sessions() {
            if !self.connection(session).engine_gone {
                self.forget_at_engine(session);
            }
        }
        assert!(self.network.newest.is_empty());
    }

    /// A client whose engine is gone finds out, when it has heard all that was still on its way.
    pub(super) fn client_times_out(&mut self, index: usize) {
        let Some(session) = self.clients[index].session() else { return };
        let connection = self.connection(session);
        if connection.engine_gone && connection.to_client.is_empty() {
            self.clients[index].link = Link::Down;
            self.client_ends(session);
        }
    }

    /// The engine finds out about connections that their clients have given up, or that it has closed itself.
    pub(super) fn engine_times_out(&mut self, session: SessionId) {
        let connection = self.connection(session);
        if (connection.client_gone && connection.to_engine.is_empty()) || connection.is_closed {
            self.engine_loses(session);
        }
    }

    /// Something befalls a connection.
    pub(super) fn network_fault(&mut self) {
        let sessions = self.network.sessions();
        if sessions.is_empty() {
            return;
        }
        let session = sessions[self.below(sessions.len() as u64) as usize];
        let index = self.connection(session).client;
        match self.below(8) {
            0 => {
                self.tally.faults.severed += 1;
                self.events.note(None, Event::Fault("severed"));
                let is_link = self.clients[index].session() == Some(session);
                self.engine_loses(session);
                if is_link {
                    self.client_leaves(index);
                }
            }
            1 => self.client_leaves(index),
            2 => self.engine_loses(session),
            // A new connection at once, so that the old one's frames and the new one's hello race.
            3 => {
                self.client_leaves(index);
                self.connect(index);
            }
            // And once more, so that the hellos do.
            4 => {
                self.client_leaves(index);
                self.connect(index);
                self.client_leaves(index);
                self.connect(index);
            }
            5 => self.twin_sends(session),
            _ => sessions.into_iter().for_each(|session| self.engine_times_out(session)),
        }
    }

    /// A twin of a fenced client, an old process that wakes up, sends batches of its own.
    fn twin_sends(&mut self, session: SessionId) {
        let Connection { producer, is_closed, engine_gone, .. } = *self.connection(session);
        let is_fenced = is_closed && self.network.newest.get(&producer).is_some_and(|newest| *newest != session);
        if engine_gone || !is_fenced {
            return;
        }
        for ahead in 0..=self.below(3) {
            let sequence = self.ledger.last_appended(producer) + ahead;
            let sent = self.make_sent(producer, sequence.max(1));
            self.dispatch(session, sent);
            self.tally.faults.zombie_batches += 1;
        }
    }
}
