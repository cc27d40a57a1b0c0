//! A network that loses, repeats and reorders datagrams, both ways, between real producers and a real engine.
//!
//! What it is not: the frames' fate when connections break, which the pipeline's simulation has. Invariant: whatever
//! becomes of single datagrams, every view is counted once; a failure names the seed (`HIGHWATER_LOSS_SEED`).

use crate::support::{Engine, Load};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Of a hundred datagrams.
const LOST: u32 = 3;
const REPEATED: u32 = 3;
const HELD_BACK: u32 = 6;
/// One that is held back comes so much later at most.
const LATE_MS_MAX: u64 = 30;
const DATAGRAM_BYTES_MAX: usize = 9000;

/// What was done to the datagrams.
#[derive(Debug, Default)]
struct Deeds {
    passed: u64,
    lost: u64,
    repeated: u64,
    held_back: u64,
}

/// Stands between clients and an engine.
struct Network {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Deeds>,
}

/// A datagram on its way to a client, or from it.
struct Datagram {
    due: Instant,
    client: SocketAddr,
    to_engine: bool,
    bytes: Vec<u8>,
}

impl Network {
    fn before(engine: SocketAddr, seed: u64) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || carry(&front, engine, seed, &stopped));
        Self { address, stop, thread }
    }

    fn end(self) -> Deeds {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn carry(front: &UdpSocket, engine: SocketAddr, seed: u64, stop: &AtomicBool) -> Deeds {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut deeds, mut lines) = (Deeds::default(), BTreeMap::<SocketAddr, UdpSocket>::new());
    let mut waiting = VecDeque::<Datagram>::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    front.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let mut came = Vec::new();
        if let Ok((count, client)) = front.recv_from(&mut buffer) {
            came.push((client, true, buffer[..count].to_vec()));
            lines.entry(client).or_insert_with(|| {
                let line = UdpSocket::bind("127.0.0.1:0").unwrap();
                line.connect(engine).unwrap();
                line.set_nonblocking(true).unwrap();
                line
            });
        }
        for (client, line) in &lines {
            while let Ok(count) = line.recv(&mut buffer) {
                came.push((*client, false, buffer[..count].to_vec()));
            }
        }
        for (client, to_engine, bytes) in came {
            let fate = random.random_range(0..100);
            let mut late = Duration::ZERO;
            deeds.passed += 1;
            if fate < LOST {
                deeds.lost += 1;
                continue;
            } else if fate < LOST + REPEATED {
                deeds.repeated += 1;
                let due = Instant::now();
                waiting.push_back(Datagram { due, client, to_engine, bytes: bytes.clone() });
            } else if fate < LOST + REPEATED + HELD_BACK {
                deeds.held_back += 1;
                late = Duration::from_millis(random.random_range(1..=LATE_MS_MAX));
            }
            waiting.push_back(Datagram { due: Instant::now() + late, client, to_engine, bytes });
        }
        let now = Instant::now();
        waiting.retain(|datagram| {
            if datagram.due > now {
                return true;
            }
            // A full buffer, or an engine that is not there, loses it as the network may.
            let _ = if datagram.to_engine {
                lines[&datagram.client].send(&datagram.bytes)
            } else {
                front.send_to(&datagram.bytes, datagram.client)
            };
            false
        });
    }
    deeds
}

#[test]
fn over_a_network_that_loses_repeats_and_reorders_every_view_counts_once() {
    let seed = std::env::var("HIGHWATER_LOSS_SEED").map_or(u64::from(std::process::id()), |text| text.parse().unwrap());
    println!("rerun with HIGHWATER_LOSS_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    let network = Network::before(engine.address().parse().unwrap(), seed);
    let address = format!("--engine={}", network.address);
    let load =
        ["run", &address, "--rate=4000", "--duration=4s", "--videos=2000", "--producers=3", "--batch=200", "--seed=5"];
    let done = Load::through(&engine, &load).finish();
    let deeds = network.end();
    println!("{deeds:?}");
    done.assert_verified();
    assert!(deeds.lost > 0 && deeds.repeated > 0 && deeds.held_back > 0, "{deeds:?}");
    assert_eq!(engine.metric("views_counted_total"), done.figure("views_sent"));
}
