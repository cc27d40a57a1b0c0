//! A client as PROTOCOL.md describes it, as far as the simulation needs: resend in order until acknowledged.

use crate::engine::Answer;
use crate::ledger::Viewed;
use bytes::Bytes;
use highwater_pipeline::SessionId;
use highwater_proto::{BatchRefusal, CloseReason, ProducerId};
use std::collections::VecDeque;

/// An encoded batch.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) sequence: u64,
    pub(crate) payload: Bytes,
    pub(crate) views: Vec<Viewed>,
    /// The connection that it was first sent over.
    pub(crate) over: Option<SessionId>,
}

/// Where the client's session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Down,
    Greeting(SessionId),
    Up(SessionId),
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) producer: ProducerId,
    /// Whether it was ever welcomed; before that, it takes a fresh id for each hello.
    pub(crate) welcomed: bool,
    pub(crate) link: Link,
    /// The core that it was redirected to.
    pub(crate) aim: Option<usize>,
    /// Batches without an acknowledgement, ascending.
    pub(crate) unacked: VecDeque<Sent>,
    /// Index in `unacked` of the next one to send.
    pub(crate) cursor: usize,
    /// Batches that were acknowledged, to be sent again out of spite.
    pub(crate) acked: VecDeque<Sent>,
    pub(crate) sequence_next: u64,
    /// Times that it was refused.
    pub(crate) refusals: [u64; BatchRefusal::ALL.len()],
}

impl Client {
    pub(crate) fn new(producer: ProducerId) -> Self {
        Self {
            producer,
            welcomed: false,
            link: Link::Down,
            aim: None,
            unacked: VecDeque::new(),
            cursor: 0,
            acked: VecDeque::new(),
            sequence_next: 1,
            refusals: [0; BatchRefusal::ALL.len()],
        }
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.link {
            Link::Down => None,
            Link::Greeting(session) | Link::Up(session) => Some(session),
        }
    }

    /// Hears an answer on its connection, and gives that up where nothing more comes of it.
    pub(crate) fn hear(&mut self, answer: Answer) {
        match answer {
            Answer::Welcome(welcome) => {
                let Link::Greeting(session) = self.link else { panic!("{welcome:?} comes to {:?}", self.link) };
                let acked = self.acked.iter().map(|sent| sent.sequence).max().unwrap_or(0);
                assert!(welcome.last.0 >= acked, "{welcome:?} is behind what was acknowledged");
                assert!(welcome.last.0 < self.sequence_next, "{welcome:?} is ahead of what was sent");
                self.welcomed = true;
                self.link = Link::Up(session);
                self.cursor = 0;
            }
            Answer::Ack(ack) => {
                let Some(index) = self.unacked.iter().position(|sent| sent.sequence == ack.sequence.0) else { return };
                let sent = self.unacked.remove(index).unwrap();
                self.cursor -= usize::from(index < self.cursor);
                self.acked.push_back(sent);
                if self.acked.len() > 80 {
                    self.acked.pop_front();
                }
            }
            Answer::Refused(refused) => {
                self.refusals[usize::from(refused.reason.code()) - 1] += 1;
                if let Some(index) = self.unacked.iter().position(|sent| sent.sequence == refused.sequence.0) {
                    self.cursor = self.cursor.min(index);
                }
            }
            Answer::Close(reason, text) => {
                // Fenced it is by an earlier hello of its own that comes late.
                let expected = [CloseReason::Overloaded, CloseReason::ShuttingDown, CloseReason::Fenced];
                assert!(expected.contains(&reason), "{reason:?}: {text}");
                self.link = Link::Down;
            }
            Answer::Redirect(redirect) => {
                assert!(matches!(self.link, Link::Greeting(_)), "{redirect:?} comes to {:?}", self.link);
                self.aim = Some(usize::from(redirect.home_core));
                self.link = Link::Down;
            }
            Answer::Finish => panic!("the redirect before it has ended the connection"),
        }
    }
}
