//! The opening of a producer stream: hello from the client, then welcome or redirect from the engine.
//!
//! What it is not: the session behind it (fencing, `new` against `resume`), which the pipeline keeps. Invariant: a
//! decoded welcome or redirect names at least one port, its home core has one, and every limit in it is within the
//! protocol's.

use crate::error::DecodeError;
use crate::frame::FrameKind;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCH_VIEWS_MAX, CORES_MAX, ENCODING_PLAIN_BIT, IN_FLIGHT_BATCHES_MAX,
    PROTOCOL_VERSION, TIMESTAMP_MS_MAX, TOKEN_BYTES_MAX,
};
use crate::wire::{Reader, in_range, length_u8, put_frame, word};
use crate::words::{InstanceId, ProducerId, Sequence};
use std::fmt;

/// Whether the producer has ever been welcomed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HelloMode {
    /// Never: the engine must not know the id yet.
    New = 1,
    /// Before: the engine must know the id.
    Resume = 2,
}

impl HelloMode {
    /// The mode's number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The mode with that number.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::New, Self::Resume].into_iter().find(|mode| mode.code() == code)
    }
}

/// The first frame of a producer stream. Its debug text leaves the token out.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// The client's protocol version.
    pub version: u16,
    /// Whether the producer is new.
    pub mode: HelloMode,
    /// The producer.
    pub producer: ProducerId,
    /// A shared secret where the engine asks for one; up to 1024 bytes, else empty.
    pub token: Vec<u8>,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("mode", &self.mode)
            .field("producer", &self.producer)
            .field("token_bytes", &self.token.len())
            .finish()
    }
}

impl Hello {
    /// Appends the whole frame to `out`.
    ///
    /// # Panics
    /// If the token is over its limit.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::Hello, |out| {
            out.extend_from_slice(&self.version.to_le_bytes());
            out.extend_from_slice(&[self.mode.code(), 0]);
            out.extend_from_slice(&(self.token.len() as u32).to_le_bytes());
            out.extend_from_slice(&self.producer.0.to_le_bytes());
            out.extend_from_slice(&self.token);
        });
    }

    /// Reads the payload of a HELLO frame. A version other than this side's is an error before anything else is read.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Hello, payload)?;
        let version = version(&mut reader)?;
        let mode = word("hello mode", reader.u8()?, HelloMode::from_code)?;
        reader.zeros::<1>()?;
        let token_bytes = reader.u32()?;
        in_range("token length", u64::from(token_bytes), 0, TOKEN_BYTES_MAX as u64)?;
        let producer = ProducerId(reader.u128()?);
        let token = reader.take(token_bytes as usize)?.to_vec();
        reader.finish()?;
        Ok(Self { version, mode, producer, token })
    }
}

/// The engine's answer to a hello that it takes: where the producer stands, and the limits to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version of this stream.
    pub version: u16,
    /// The producer welcomed.
    pub producer: ProducerId,
    /// The engine's data directory.
    pub instance: InstanceId,
    /// The producer's last durable batch; the next one is `last + 1`.
    pub last: Sequence,
    /// The core that this connection is on.
    pub home_core: u16,
    /// The UDP port of each core, 1 to 64 of them.
    pub ports: Vec<u16>,
    /// The host to dial; empty = the address that was dialled.
    pub host: String,
    /// Most views per batch.
    pub batch_views_max: u32,
    /// Largest payload of a batch in bytes.
    pub batch_bytes_max: u32,
    /// Most batches without an answer.
    pub in_flight_batches_max: u16,
    /// How far ahead of the engine's clock a view may be.
    pub skew_max_ms: u64,
    /// Bit n: column encoding n is accepted. Bit 0 is always set.
    pub encodings: u32,
}

impl Welcome {
    /// Appends the whole frame to `out`.
    ///
    /// # Panics
    /// If host or ports are over their limits.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::Welcome, |out| {
            for number in [self.version, self.home_core, self.ports.len() as u16, self.in_flight_batches_max] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&self.producer.0.to_le_bytes());
            out.extend_from_slice(&self.instance.0.to_le_bytes());
            out.extend_from_slice(&self.last.0.to_le_bytes());
            out.extend_from_slice(&self.skew_max_ms.to_le_bytes());
            for number in [self.batch_views_max, self.batch_bytes_max, self.encodings] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&[length_u8("host", self.host.len()), 0, 0, 0]);
            put_addresses(out, &self.ports, &self.host);
        });
    }

    /// Reads the payload of a WELCOME frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Welcome, payload)?;
        let version = version(&mut reader)?;
        let home_core = reader.u16()?;
        let port_count = reader.u16()?;
        let in_flight_batches_max = reader.u16()?;
        in_range("in_flight_batches_max", in_flight_batches_max.into(), 1, IN_FLIGHT_BATCHES_MAX.into())?;
        let producer = ProducerId(reader.u128()?);
        let instance = InstanceId(reader.u128()?);
        let last = Sequence(reader.u64()?);
        let skew_max_ms = reader.u64()?;
        in_range("skew_max_ms", skew_max_ms, 0, TIMESTAMP_MS_MAX)?;
        let batch_views_max = reader.u32()?;
        in_range("batch_views_max", batch_views_max.into(), 1, BATCH_VIEWS_MAX.into())?;
        let batch_bytes_max = reader.u32()?;
        in_range("batch_bytes_max", batch_bytes_max.into(), BATCH_BYTES_MIN as u64, BATCH_BYTES_MAX as u64)?;
        let encodings = reader.u32()?;
        if encodings & ENCODING_PLAIN_BIT == 0 {
            return Err(DecodeError::UnknownCode { field: "set of encodings without plain", found: encodings.into() });
        }
        let (ports, host) = addresses(&mut reader, home_core, port_count)?;
        reader.finish()?;
        Ok(Self {
            version,
            producer,
            instance,
            last,
            home_core,
            ports,
            host,
            batch_views_max,
            batch_bytes_max,
            in_flight_batches_max,
            skew_max_ms,
            encodings,
        })
    }
}

/// The engine's answer on a core that is not the producer's home; the stream ends after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The producer's home core; connect to `ports[home_core]`.
    pub home_core: u16,
    /// The UDP port of each core, 1 to 64 of them.
    pub ports: Vec<u16>,
    /// The host to dial; empty = the address that was dialled.
    pub host: String,
}

impl Redirect {
    /// Appends the whole frame to `out`.
    ///
    /// # Panics
    /// If host or ports are over their limits.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::Redirect, |out| {
            out.extend_from_slice(&self.home_core.to_le_bytes());
            out.extend_from_slice(&(self.ports.len() as u16).to_le_bytes());
            out.extend_from_slice(&[length_u8("host", self.host.len()), 0, 0, 0]);
            put_addresses(out, &self.ports, &self.host);
        });
    }

    /// Reads the payload of a REDIRECT frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Redirect, payload)?;
        let home_core = reader.u16()?;
        let port_count = reader.u16()?;
        let (ports, host) = addresses(&mut reader, home_core, port_count)?;
        reader.finish()?;
        Ok(Self { home_core, ports, host })
    }
}

fn version(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    let found = reader.u16()?;
    if found == PROTOCOL_VERSION {
        return Ok(found);
    }
    Err(DecodeError::Version { found, supported: PROTOCOL_VERSION })
}

fn put_addresses(out: &mut Vec<u8>, ports: &[u16], host: &str) {
    assert!((1..=CORES_MAX).contains(&ports.len()), "{} ports, allowed are 1 to {CORES_MAX}", ports.len());
    for port in ports {
        out.extend_from_slice(&port.to_le_bytes());
    }
    out.extend_from_slice(host.as_bytes());
}

/// Reads host length, three reserved bytes, the ports and the host.
fn addresses(reader: &mut Reader<'_>, home_core: u16, port_count: u16) -> Result<(Vec<u16>, String), DecodeError> {
    in_range("port count", port_count.into(), 1, CORES_MAX as u64)?;
    in_range("home core", home_core.into(), 0, u64::from(port_count) - 1)?;
    let host_bytes = reader.u8()?;
    reader.zeros::<3>()?;
    let (pairs, _) = reader.take(2 * usize::from(port_count))?.as_chunks::<2>();
    let ports: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    if ports.contains(&0) {
        return Err(DecodeError::OutOfRange { field: "port", found: 0, min: 1, max: u16::MAX.into() });
    }
    let host = reader.text(host_bytes.into(), "host")?.to_owned();
    Ok((ports, host))
}
