//! The UDP socket of one core: batched receive with GRO, send with GSO, and the one transmit that may be kept.
//!
//! It knows nothing of QUIC but sizes. Invariant: a transmit that would have blocked is kept and goes out before any
//! other; no GSO batch is larger than the kernel takes (64 KiB), because a larger one vanishes without an error that
//! the transport could see.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};

use super::QuicError;
use crate::diagnostics::Sockets;

/// Messages taken by one system call. Each may hold many datagrams of one peer.
const RECEIVE_BATCH: usize = 16;
/// Room for one message: the largest that UDP and GRO can deliver.
const RECEIVE_MESSAGE_BYTES: usize = 64 * 1024;
/// Datagrams copied out in one allocation.
const PIECE_DATAGRAMS: usize = 4;
/// The most that one GSO batch may hold, headers left aside.
const SEND_BATCH_BYTES_MAX: usize = 65_000;
/// Datagrams in one GSO batch; more bring nothing and make bursts.
const SEND_BATCH_DATAGRAMS_MAX: usize = 10;
/// The kernel tells twice what was asked for, since half of it is for its own use: socket(7).
const BUFFER_TOLD_TIMES: usize = 2;

const _: () = assert!(SEND_BATCH_BYTES_MAX < RECEIVE_MESSAGE_BYTES);
const _: () = assert!(RECEIVE_BATCH <= quinn_udp::BATCH_SIZE);

/// What became of a transmit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The kernel has it.
    Taken,
    /// The kernel refused it for good; to the transport it is a lost packet.
    Dropped,
    /// The socket's buffer is full. It is kept; send nothing else until [`Port::retry_blocked`] says so.
    Blocked,
}

/// The socket with its buffers.
pub(super) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    messages: Box<[u8]>,
    metas: [RecvMeta; RECEIVE_BATCH],
    /// Where the transport writes the next transmit; holds the kept one while `blocked` is some.
    outgoing: Vec<u8>,
    blocked: Option<Transmit>,
    granted: Sockets,
}

impl Port {
    pub(super) fn bind(address: SocketAddr, buffer_bytes: usize) -> Result<Self, QuicError> {
        let socket = UdpSocket::bind(address).map_err(|source| QuicError::Bind { address, source })?;
        let failed = |source| QuicError::Socket { address, source };
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(failed)?;
        raise_buffers(&socket, &state, buffer_bytes);
        let receive_buffer_bytes = state.recv_buffer_size(UdpSockRef::from(&socket)).map_err(failed)?;
        let send_buffer_bytes = state.send_buffer_size(UdpSockRef::from(&socket)).map_err(failed)?;
        let granted = Sockets {
            receive_buffer_bytes: (receive_buffer_bytes / BUFFER_TOLD_TIMES) as u64,
            send_buffer_bytes: (send_buffer_bytes / BUFFER_TOLD_TIMES) as u64,
            gso_segments: state.max_gso_segments(),
            gro_segments: state.gro_segments(),
        };
        Ok(Self {
            socket,
            state,
            messages: vec![0; RECEIVE_BATCH * RECEIVE_MESSAGE_BYTES].into(),
            metas: [RecvMeta::default(); RECEIVE_BATCH],
            outgoing: Vec::with_capacity(RECEIVE_MESSAGE_BYTES),
            blocked: None,
            granted,
        })
    }

    /// What the kernel gave to the socket.
    pub(super) fn granted(&self) -> Sockets {
        self.granted
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether packets are never fragmented on the way, so that the path's MTU can be searched for.
    pub(super) fn may_search_mtu(&self) -> bool {
        !self.state.may_fragment()
    }

    /// Takes what is there by one system call and returns how many messages [`Port::message`] then holds.
    pub(super) fn receive(&mut self) -> io::Result<usize> {
        let mut buffers = self.messages.chunks_exact_mut(RECEIVE_MESSAGE_BYTES).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
            std::array::from_fn(|_| buffers.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut self.metas)
    }

    /// What the kernel says of the message at `index` of the last [`Port::receive`].
    pub(super) fn meta(&self, index: usize) -> RecvMeta {
        self.metas[index]
    }

    /// Whole datagrams of the message at `index`, from the byte `start` on, copied out of the receive buffers. A few at
    /// a time: whoever keeps bytes of one of them keeps the memory of the piece.
    pub(super) fn piece(&self, index: usize, start: usize) -> BytesMut {
        let meta = &self.metas[index];
        let end = meta.len.min(start.saturating_add(meta.stride.max(1).saturating_mul(PIECE_DATAGRAMS)));
        let message = index * RECEIVE_MESSAGE_BYTES;
        BytesMut::from(&self.messages[message + start..message + end])
    }

    /// Most datagrams that one transmit may hold at this MTU.
    pub(super) fn datagrams_max(&self, mtu: u16) -> usize {
        let fit = SEND_BATCH_BYTES_MAX / usize::from(mtu.max(1));
        self.state.max_gso_segments().min(SEND_BATCH_DATAGRAMS_MAX).min(fit).max(1)
    }

    /// An empty buffer for the next transmit. Only while nothing is kept.
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        assert!(self.blocked.is_none(), "a transmit is kept and must go out first");
        self.outgoing.clear();
        &mut self.outgoing
    }

    /// Sends what the transport wrote into [`Port::outgoing`].
    pub(super) fn send(&mut self, transmit: Transmit) -> Sent {
        let sent = self.send_bytes(&transmit, &self.outgoing[..transmit.size]);
        if sent == Sent::Blocked {
            self.blocked = Some(transmit);
        }
        sent
    }

    /// Sends a stateless response once; it is dropped when the socket is full, and the peer asks again.
    pub(super) fn respond(&self, transmit: &Transmit, bytes: &[u8]) -> Sent {
        self.send_bytes(transmit, &bytes[..transmit.size])
    }

    /// Whether a transmit waits for room in the socket's buffer.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Tries the kept transmit again. `None` when there is none.
    pub(super) fn retry_blocked(&mut self) -> Option<(Sent, usize)> {
        let transmit = self.blocked.take()?;
        let bytes = transmit.size;
        Some((self.send(transmit), bytes))
    }

    fn send_bytes(&self, transmit: &Transmit, contents: &[u8]) -> Sent {
        let outgoing = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.map(|ecn| match ecn {
                EcnCodepoint::Ect0 => quinn_udp::EcnCodepoint::Ect0,
                EcnCodepoint::Ect1 => quinn_udp::EcnCodepoint::Ect1,
                EcnCodepoint::Ce => quinn_udp::EcnCodepoint::Ce,
            }),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.try_send(UdpSockRef::from(&self.socket), &outgoing) {
            Ok(()) => Sent::Taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Blocked,
            Err(error) => {
                tracing::debug!(%error, destination = %transmit.destination, bytes = contents.len(), "a transmit was refused");
                Sent::Dropped
            }
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for large buffers: past the system's limit where the process may, else up to it.
fn raise_buffers(socket: &UdpSocket, state: &UdpSocketState, bytes: usize) {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err()
        && let Err(error) = state.set_recv_buffer_size(UdpSockRef::from(socket), bytes)
    {
        tracing::debug!(%error, bytes, "cannot raise the udp receive buffer");
    }
    if sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err()
        && let Err(error) = state.set_send_buffer_size(UdpSockRef::from(socket), bytes)
    {
        tracing::debug!(%error, bytes, "cannot raise the udp send buffer");
    }
}

/// The transport's word for the ECN bits of a received message.
pub(super) fn ecn_of(meta: &RecvMeta) -> Option<EcnCodepoint> {
    meta.ecn.map(|ecn| match ecn {
        quinn_udp::EcnCodepoint::Ect0 => EcnCodepoint::Ect0,
        quinn_udp::EcnCodepoint::Ect1 => EcnCodepoint::Ect1,
        quinn_udp::EcnCodepoint::Ce => EcnCodepoint::Ce,
    })
}
