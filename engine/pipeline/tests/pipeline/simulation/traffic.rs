//! What the simulated clients do: views of all times, batches sent, sent again and out of spite, lost connections.

use super::{MINUTE_MS, Simulation};
use crate::client::{Link, Sent};
use crate::ledger::Viewed;
use crate::world::payload;
use highwater_pipeline::SessionId;
use highwater_proto::ProducerId;
use highwater_proto::limits::TIMESTAMP_MS_MAX;
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

    /// A batch of new views.
    pub(super) fn make_sent(&mut self, producer: ProducerId, sequence: u64) -> Sent {
        let views = self.views();
        let named: Vec<(&str, u64)> = views.iter().map(|&(video, at_ms)| (self.ids[video].as_str(), at_ms)).collect();
        let field_len = if sequence.is_multiple_of(5) { 255 } else { 3 };
        Sent { sequence, payload: payload(producer, sequence, &named, field_len), views, over: None }
    }

    /// Sends the next batch of a client that is connected, if it has or may have one.
    pub(super) fn send_next(&mut self, index: usize, may_make: bool) -> bool {
        let Link::Up(session) = self.clients[index].link else { return false };
        if self.clients[index].cursor == self.clients[index].unacked.len() {
            if !may_make || self.clients[index].unacked.len() >= 20 {
                return false;
            }
            let (producer, sequence) = (self.clients[index].producer, self.clients[index].sequence_next);
            let sent = self.make_sent(producer, sequence);
            self.clients[index].sequence_next += 1;
            self.clients[index].unacked.push_back(sent);
        }
        let client = &mut self.clients[index];
        let sent = &mut client.unacked[client.cursor];
        client.cursor += 1;
        let over = *sent.over.get_or_insert(session);
        let sent = sent.clone();
        self.tally.faults.resent += u64::from(over != session);
        self.dispatch(session, sent);
        true
    }

    pub(super) fn act(&mut self, index: usize) {
        match (self.clients[index].link, self.below(40)) {
            (Link::Down, _) => self.connect(index),
            (Link::Greeting(_), 0) => self.client_leaves(index),
            (Link::Greeting(session), _) | (Link::Up(session), 30..) => {
                self.deliver_to_client(session);
                if self.chance(4) {
                    self.client_times_out(index);
                }
            }
            (Link::Up(session), 0..4) => self.send_again(index, session),
            (Link::Up(_), _) => {
                for _ in 0..1 + self.below(3) {
                    self.send_next(index, true);
                }
            }
        }
    }

    /// Sends a batch once more that was sent before, whatever became of it.
    fn send_again(&mut self, index: usize, session: SessionId) {
        let client = &self.clients[index];
        let appended = self.ledger.last_appended(client.producer);
        let seen = |sent: &&Sent| sent.sequence <= appended && sent.sequence + 40 > appended;
        let known: Vec<Sent> = client.acked.iter().chain(&client.unacked).filter(seen).cloned().collect();
        if !known.is_empty() {
            let which = self.below(known.len() as u64) as usize;
            self.dispatch(session, known[which].clone());
        }
    }
}
