//! What the simulated clients do: views of all times, batches sent, sent again and out of spite, lost connections.

use super::{MINUTE_MS, Simulation};
use crate::client::{Link, Sent};
use crate::ledger::{Place, Viewed, time_refusals};
use crate::world::{offer, payload};
use highwater_pipeline::{Intake, SessionId};
use highwater_proto::limits::TIMESTAMP_MS_MAX;
use highwater_proto::{HelloMode, ProducerId};
use rand::RngExt;

impl Simulation {
    fn views(&mut self) -> Vec<Viewed> {
        let most = if self.chance(12) { 120 } else { 12 };
        let count = self.random.random_range(1..=most);
        let windows = self.setup.windows;
        (0..count)
            .map(|_| {
                let video = self.below(self.ids.len() as u64).min(self.below(self.ids.len() as u64)) as usize;
                let now_ms = self.now_ms[0];
                let ago = |minutes: u64| now_ms.saturating_sub(minutes * MINUTE_MS);
                let timestamp_ms = match self.below(40) {
                    0..20 => now_ms - self.below(20_000),
                    20..27 => ago(self.below(2 * u64::from(windows.hour))),
                    27..31 => ago(self.below(2 * u64::from(windows.day))),
                    31..34 => ago(self.below(2 * u64::from(windows.month))),
                    34..37 => now_ms + self.below(self.setup.skew_max_ms + 1),
                    37 => now_ms + self.below(4 * self.setup.skew_max_ms),
                    38 => [0, TIMESTAMP_MS_MAX, TIMESTAMP_MS_MAX + 1, u64::MAX][self.below(4) as usize],
                    _ => self.below(now_ms),
                };
                (video, timestamp_ms)
            })
            .collect()
    }

    fn make_batch(&mut self, index: usize) {
        let views = self.views();
        let client = &self.clients[index];
        let named: Vec<(&str, u64)> = views.iter().map(|&(video, at_ms)| (self.ids[video].as_str(), at_ms)).collect();
        let field_len = if client.sequence_next.is_multiple_of(5) { 255 } else { 3 };
        let sent = Sent {
            sequence: client.sequence_next,
            payload: payload(client.producer, client.sequence_next, &named, field_len),
            views,
        };
        self.clients[index].sequence_next += 1;
        self.clients[index].unacked.push_back(sent);
    }

    /// Sends the next batch of a client that is connected, if it has or may have one.
    pub(super) fn send_next(&mut self, index: usize, may_make: bool) -> bool {
        let Link::Up(session) = self.clients[index].link else { return false };
        if self.clients[index].cursor == self.clients[index].unacked.len() {
            if !may_make || self.clients[index].unacked.len() >= 20 {
                return false;
            }
            self.make_batch(index);
        }
        let sent = self.clients[index].unacked[self.clients[index].cursor].clone();
        if !self.send(index, session, &sent) {
            return false;
        }
        self.clients[index].cursor += 1;
        true
    }

    fn send(&mut self, index: usize, session: SessionId, sent: &Sent) -> bool {
        let producer = self.clients[index].producer;
        if offer(self.engine(), session, &sent.payload) == Intake::NoRoom {
            return false;
        }
        let is_next = sent.sequence == self.ledger.last_appended(producer) + 1;
        let refused_before = self.tally.batches_refused;
        // Appended, or refused: then the refusal is there at once.
        let stats = self.engine().stats();
        let said = stats.iter().flat_map(|stats| stats.batches_refused).sum::<u64>();
        let refused = said > self.refused_in_life;
        self.refused_in_life = said;
        if is_next && !refused {
            let core = self.engine().sessions[&session];
            let arrival_ms = self.now_ms[core];
            let refused = time_refusals(&sent.views, arrival_ms, self.setup.skew_max_ms);
            let place = Place { core, published: self.last.map_or(0, |(epoch, _)| epoch), arrival_ms };
            self.ledger.append(place, producer, sent.sequence, sent.views.clone(), refused);
        }
        self.distribute();
        assert_eq!(self.tally.batches_refused > refused_before, refused);
        true
    }

    pub(super) fn act(&mut self, index: usize) {
        match (self.clients[index].link, self.below(40)) {
            (Link::Down, _) => self.connect(index),
            (_, 0) => self.disconnect(index),
            // A connection that is lost without the engine's noticing is fenced by the next hello.
            (Link::Up(_), 1) => {
                self.clients[index].lose();
                self.connect(index);
            }
            (Link::Up(session), 2..6) => self.send_again(index, session),
            (Link::Up(_), 6..22) => {
                self.send_next(index, true);
            }
            _ => self.clients[index].hear(),
        }
    }

    pub(super) fn connect(&mut self, index: usize) {
        let mode = if self.clients[index].welcomed {
            HelloMode::Resume
        } else {
            self.clients[index].producer = ProducerId(self.producer_next);
            self.producer_next += 1;
            HelloMode::New
        };
        self.hello(index, mode);
        self.distribute();
    }

    fn disconnect(&mut self, index: usize) {
        if let Some(session) = self.clients[index].lose() {
            self.engine().at(session).handle_disconnect(session);
            self.distribute();
        }
    }

    /// Sends a batch once more that was sent before, whatever became of it.
    fn send_again(&mut self, index: usize, session: SessionId) {
        let client = &self.clients[index];
        let appended = self.ledger.last_appended(client.producer);
        let seen = |sent: &&Sent| sent.sequence <= appended && sent.sequence + 64 > appended;
        let known: Vec<Sent> = client.acked.iter().chain(&client.unacked).filter(seen).cloned().collect();
        if !known.is_empty() {
            let which = self.below(known.len() as u64) as usize;
            self.send(index, session, &known[which]);
        }
    }
}
