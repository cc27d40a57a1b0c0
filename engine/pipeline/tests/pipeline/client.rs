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
    /// What was said and not heard yet.
    pub(crate) inbox: VecDeque<Answer>,
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
            inbox: VecDeque::new(),
            unacked: VecDeque::new(),
            cursor: 0,
            acked: VecDeque::new(),
            sequence_next: 1,
            refusals: [0; BatchRefusal::ALL.len()],
        }
    }

    /// The connection is gone, and with it what was not heard.
    pub(crate) fn lose(&mut self) -> Option<SessionId> {
        self.inbox.clear();
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Down => None,
            Link::Greeting(session) | Link::Up(session) => Some(session),
        }
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.link {
            Link::Down => None,
            Link::Greeting(session) | Link::Up(session) => Some(session),
        }
    }

    /// Hears the next answer.
    pub(crate) fn hear(&mut self) {
        match self.inbox.pop_front() {
            None => {}
            Some(Answer::Welcome(welcome)) => {
                let Link::Greeting(session) = self.link else { panic!("{welcome:?} comes to {:?}", self.link) };
                let acked = self.acked.iter().map(|sent| sent.sequence).max().unwrap_or(0);
                assert!(welcome.last.0 >= acked, "{welcome:?} is behind what was acknowledged");
                self.welcomed = true;
                self.link = Link::Up(session);
                self.cursor = 0;
            }
            Some(Answer::Ack(ack)) => {
                let Some(index) = self.unacked.iter().position(|sent| sent.sequence == ack.sequence.0) else { return };
                let sent = self.unacked.remove(index).unwrap();
                self.cursor -= usize::from(index < self.cursor);
                self.acked.push_back(sent);
                if self.acked.len() > 80 {
                    self.acked.pop_front();
                }
            }
            Some(Answer::Refused(refused)) => {
                self.refusals[usize::from(refused.reason.code()) - 1] += 1;
                if let Some(index) = self.unacked.iter().position(|sent| sent.sequence == refused.sequence.0) {
                    self.cursor = self.cursor.min(index);
                }
            }
            Some(Answer::Close(reason, text)) => {
                let expected = [CloseReason::Overloaded, CloseReason::ShuttingDown];
                assert!(expected.contains(&reason), "{reason:?}: {text}");
                self.lose();
            }
            Some(answer @ (Answer::Redirect(_) | Answer::Finish)) => panic!("{answer:?}"),
        }
    }
}
