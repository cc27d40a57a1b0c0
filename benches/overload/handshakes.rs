//! Attacks by single datagrams: first packets of handshakes that nobody goes on with, and bytes that mean nothing.

use crate::attack::{block_on, is_over};
use crate::line::Target;
use anyhow::{Context, Result};
use quinn_proto::{Endpoint, EndpointConfig};
use rand::{Rng, RngExt};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Sockets kept to count what comes back to them.
const SOCKETS: usize = 256;
/// Datagrams sent before a pause.
const BURST: usize = 20;

/// Does something so many times a second, in bursts, until it is told to stop.
async fn paced(per_second: usize, stop: &AtomicBool, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    let (began, mut done) = (Instant::now(), 0_usize);
    while !is_over(stop) {
        let due = (began.elapsed().as_secs_f64() * per_second as f64) as usize;
        for _ in 0..due.saturating_sub(done).min(BURST) {
            act()?;
            done += 1;
        }
        if done >= due {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

/// The first datagram of a handshake, each time of another connection.
fn initial(target: &Target, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let config = quinn_proto::ClientConfig::new(Arc::new(target.crypto()?));
    let now = Instant::now();
    let (_, mut connection) = endpoint.connect(now, config, target.quic, "localhost")?;
    let transmit = connection.poll_transmit(now, 1, out).context("a new connection has nothing to send")?;
    out.truncate(transmit.size);
    Ok(())
}

/// A socket with what was sent and came back.
struct Stranger {
    socket: UdpSocket,
    sent: u64,
    came: u64,
}

impl Stranger {
    fn new() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("no UDP socket")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, sent: 0, came: 0 })
    }

    fn listen(&mut self) {
        let mut bytes = [0; 2048];
        while let Ok(count) = self.socket.recv(&mut bytes) {
            self.came += count as u64;
        }
    }
}

pub(crate) fn half_handshakes(target: &Target, per_second: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let (mut strangers, mut datagram) = (Vec::<Stranger>::new(), Vec::new());
        let (mut sent, mut came, mut factor_max, mut next) = (0_u64, 0_u64, 0.0_f64, 0);
        let mut settle = |stranger: &mut Stranger| {
            stranger.listen();
            if stranger.sent > 0 {
                factor_max = factor_max.max(stranger.came as f64 / stranger.sent as f64);
            }
            came += stranger.came;
        };
        let mut count = 0_u64;
        paced(per_second, stop, || {
            // Each has a port of its own, as if from another client; the oldest is counted and makes room.
            if strangers.len() < SOCKETS {
                strangers.push(Stranger::new()?);
            } else {
                settle(&mut strangers[next]);
                strangers[next] = Stranger::new()?;
            }
            initial(target, &mut datagram)?;
            let stranger = &mut strangers[next];
            // A full buffer loses it, as the network may.
            if stranger.socket.send_to(&datagram, target.quic).is_ok() {
                stranger.sent += datagram.len() as u64;
                sent += datagram.len() as u64;
                count += 1;
            }
            next = (next + 1) % SOCKETS;
            Ok(())
        })
        .await?;
        strangers.iter_mut().for_each(&mut settle);
        Ok(format!(
            "{count} first packets of handshakes ({sent} bytes); {came} bytes came back, at most {factor_max:.1} times what one sent"
        ))
    })
}

pub(crate) fn garbage(target: &Target, per_second: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").context("no UDP socket")?;
        let mut random = rand::rng();
        let (mut bytes, mut sent) = ([0; 1400], 0_u64);
        paced(per_second, stop, || {
            random.fill_bytes(&mut bytes);
            // A third looks like first packets of QUIC version 1, a third like packets of connections that are there.
            match random.random_range(0..3) {
                0 => bytes[..5].copy_from_slice(&[0xC3, 0, 0, 0, 1]),
                1 => bytes[0] = 0x40 | (bytes[0] & 0x3F),
                _ => {}
            }
            let len = random.random_range(1..=bytes.len());
            sent += u64::from(socket.send_to(&bytes[..len], target.quic).is_ok());
            Ok(())
        })
        .await?;
        Ok(format!("{sent} datagrams of random bytes"))
    })
}
