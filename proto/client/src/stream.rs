//! Frames over one QUIC stream, and what a broken connection means.
//!
//! It keeps no session. Invariant: a payload is read only after its header passed the protocol's limits.

use highwater_proto::{CloseAction, CloseReason, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use quinn::{ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};

use crate::error::ClientError;

/// Why a session or an attempt is over.
#[derive(Debug)]
pub(crate) enum Broken {
    /// A new connection may mend it.
    Lost(String),
    /// Nothing mends it.
    Fatal(ClientError),
}

impl<E: Into<ClientError>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}

/// A frame as read: its kind and payload.
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) payload: Vec<u8>,
}

/// Reads one whole frame.
pub(crate) async fn read_frame(receive: &mut RecvStream) -> Result<Frame, Broken> {
    let mut header = [0; FRAME_HEADER_BYTES];
    receive.read_exact(&mut header).await.map_err(read_broken)?;
    let header = FrameHeader::decode(&header).map_err(ClientError::from)?;
    let mut payload = vec![0; header.payload_bytes as usize];
    receive.read_exact(&mut payload).await.map_err(read_broken)?;
    Ok(Frame { kind: header.kind, payload })
}

/// Writes one whole frame.
pub(crate) async fn write_frame(send: &mut SendStream, frame: &[u8]) -> Result<(), Broken> {
    send.write_all(frame).await.map_err(write_broken)
}

/// A frame that the session's state does not allow.
pub(crate) fn unexpected(kind: FrameKind, instead_of: &str) -> Broken {
    Broken::Fatal(ClientError::Protocol(format!("a {kind} frame came where {instead_of} was due")))
}

fn read_broken(error: ReadExactError) -> Broken {
    match error {
        ReadExactError::FinishedEarly(_) => Broken::Lost("the engine ended the stream".into()),
        ReadExactError::ReadError(ReadError::ConnectionLost(error)) => connection_broken(&error),
        ReadExactError::ReadError(error) => Broken::Lost(error.to_string()),
    }
}

pub(crate) fn write_broken(error: WriteError) -> Broken {
    match error {
        WriteError::ConnectionLost(error) => connection_broken(&error),
        error => Broken::Lost(error.to_string()),
    }
}

/// Judges a connection's end: which reasons a new connection may mend.
pub(crate) fn connection_broken(error: &ConnectionError) -> Broken {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let text = printable(&close.reason);
            match CloseReason::from_code(close.error_code.into_inner()) {
                None => Broken::Fatal(ClientError::Protocol(format!(
                    "it closed the connection with the unknown code {}: {text}",
                    close.error_code
                ))),
                Some(reason) => match reason.action() {
                    CloseAction::Finish | CloseAction::Reconnect => Broken::Lost(format!("{reason}: {text}")),
                    CloseAction::FreshProducer | CloseAction::Stop => {
                        Broken::Fatal(ClientError::Closed { reason, text })
                    }
                },
            }
        }
        ConnectionError::TransportError(error) if is_tls_alert(error.code.into()) => {
            Broken::Fatal(ClientError::Handshake { engine: String::new(), reason: error.to_string() })
        }
        ConnectionError::ConnectionClosed(close) if is_about_client(close.error_code.into()) => {
            Broken::Fatal(ClientError::ClientCertificate { reason: printable(close.to_string().as_bytes()) })
        }
        ConnectionError::ConnectionClosed(close) if is_tls_alert(close.error_code.into()) => {
            Broken::Fatal(ClientError::Handshake { engine: String::new(), reason: close.to_string() })
        }
        error => Broken::Lost(error.to_string()),
    }
}

/// Characters that move a cursor or turn the direction of text.
fn is_unsafe(character: char) -> bool {
    let turns =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns
}

/// The other side's words for people, with nothing in them that moves a cursor: they end up on terminals and in logs.
fn printable(reason: &[u8]) -> String {
    let mut text = String::with_capacity(reason.len());
    for character in String::from_utf8_lossy(reason).chars() {
        if is_unsafe(character) { text.extend(character.escape_unicode()) } else { text.push(character) }
    }
    text
}

/// TLS alerts travel as transport errors 0x100 to 0x1ff (RFC 9001, section 4.8).
fn is_tls_alert(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}

/// The alerts that an engine sends about a client's certificate (RFC 8446, section 6.2): bad, unsupported, revoked,
/// expired or unknown, of an unknown authority, lacking.
fn is_about_client(code: u64) -> bool {
    is_tls_alert(code) && matches!(code - 0x100, 42..=46 | 48 | 51 | 116)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_other_side_do_not_reach_the_terminal_raw() {
        assert_eq!(printable(b"no \x1b[2J\n\xff \"q\" \xc2\x9b"), "no \\u{1b}[2J\\u{a}\u{fffd} \"q\" \\u{9b}");
        assert_eq!(printable("\u{202e}x\u{e9}".as_bytes()), "\\u{202e}x\u{e9}");
    }
}
