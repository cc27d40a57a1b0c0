//! Who is let in: tokens and certificates of clients against the rules in force, at their hello or question and when
//! the rules change.
//!
//! Invariant: no producer and no question passes to the pipeline that the rules in force at that moment do not permit,
//! and a change of the rules closes whom they permit no more.

use super::stream::Role;
use super::{Intakes, Stream, Streams};
use crate::access::{Rules, client_name};
use crate::quic::{ConnectionKey, StreamKey};
use highwater_pipeline::Intake;
use highwater_proto::{CloseReason, Hello, Scope, Token};
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// Who is at the other end of a connection.
pub(super) struct Peer {
    address: SocketAddr,
    /// The name in its certificate, where it showed one.
    name: Option<Box<str>>,
}

impl Stream {
    /// What a client with this stream does.
    const fn scope(&self) -> Scope {
        match self.role {
            Role::Producer => Scope::Produce,
            Role::New | Role::Token | Role::Question(_) | Role::Subscriber => Scope::Read,
        }
    }
}

impl Streams {
    /// Says in the log who was refused, unless another was said to be a moment ago.
    pub fn tell_refusal(&mut self, connection: ConnectionKey, text: &str) {
        let Some(unsaid) = self.refusals.say(Instant::now()) else { return };
        let peer = self.peers.get(&connection);
        let token = self.of_connection(connection).find_map(|(_, stream)| stream.grant.as_ref()?.name());
        let address = peer.map(|peer| tracing::field::display(peer.address));
        let certificate = peer.and_then(|peer| peer.name.as_deref());
        tracing::warn!(peer = address, token, certificate, unsaid, "refused a client: {text}");
    }
}

impl Intakes<'_> {
    /// Goes by other rules from now on, and closes the connections of whom they permit no more.
    pub fn set_rules(&mut self, rules: &Arc<Rules>) {
        self.streams.rules = Arc::clone(rules);
        let lapsed = |stream: &Stream| {
            stream.grant.as_ref().is_some_and(|grant| !rules.access.still_permits(grant, stream.scope()))
        };
        let lapsed: Vec<StreamKey> =
            self.streams.streams.iter().filter(|(_, stream)| lapsed(stream)).map(|(key, _)| *key).collect();
        for key in lapsed {
            let text = "the token that this connection came with was taken back; ask the engine's operator for another";
            self.abandon(key, CloseReason::Unauthorized, text.to_owned());
        }
    }

    /// A client has come. One whose certificate has no name cannot own anything, and is sent away.
    pub(super) fn meet(
        &mut self,
        connection: ConnectionKey,
        address: SocketAddr,
        certificate: Option<&CertificateDer<'static>>,
    ) {
        let name = certificate.and_then(|certificate| client_name(certificate));
        let is_nameless = certificate.is_some() && name.is_none();
        self.streams.peers.insert(connection, Peer { address, name: name.map(Into::into) });
        if is_nameless {
            let text = "the client certificate has no name of 1 to 255 bytes; give its subject a common name";
            self.shut(connection, CloseReason::Unauthorized, text.to_owned());
        }
    }

    /// Whether the rules permit this to the client of a stream.
    pub(super) fn permit(&self, key: StreamKey, scope: Scope, what: &str) -> Result<(), String> {
        let grant = self.streams.streams.get(&key).and_then(|stream| stream.grant.as_deref());
        self.streams.rules.access.permit(grant, scope, what)
    }

    /// Takes the token for the question that comes next.
    pub(super) fn take_token(&mut self, key: StreamKey) -> Intake {
        let rules = Arc::clone(&self.streams.rules);
        let Some(stream) = self.streams.streams.get_mut(&key) else { return Intake::Taken };
        let token = match Token::decode(&stream.chunks.concat()) {
            Ok(Token { token }) => token,
            Err(error) => return self.close(key, error.close_reason(), error.to_string()),
        };
        match rules.access.grant(&token, "TOKEN") {
            Ok(grant) => {
                stream.grant = grant;
                stream.role = Role::Token;
                self.streams.clear(key);
                Intake::Taken
            }
            Err(text) => self.close(key, CloseReason::Unauthorized, text),
        }
    }

    /// Takes a hello from a client that may produce.
    pub(super) fn greet(&mut self, key: StreamKey) -> Intake {
        let connection = key.connection();
        let is_producer = |(_, stream): (&StreamKey, &Stream)| stream.role == Role::Producer;
        if self.streams.of_connection(connection).any(is_producer) {
            let text = "a second HELLO came on this connection, which has its producer; open a connection for each";
            return self.close(key, CloseReason::UnexpectedFrame, text.to_owned());
        }
        let rules = Arc::clone(&self.streams.rules);
        let Some(stream) = self.streams.streams.get_mut(&key) else { return Intake::Taken };
        let hello = match Hello::decode(&stream.chunks.concat()) {
            Ok(hello) => hello,
            Err(error) => return self.close(key, error.close_reason(), error.to_string()),
        };
        let granted = rules.access.grant(&hello.token, "hello").and_then(|grant| {
            if grant.is_some() {
                rules.access.permit(grant.as_deref(), Scope::Produce, "hello")?;
            }
            Ok(grant)
        });
        let grant = match granted {
            Ok(grant) => grant,
            Err(text) => return self.close(key, CloseReason::Unauthorized, text),
        };
        let certificate = self.streams.peers.get(&connection).and_then(|peer| peer.name.as_deref());
        let claim = rules.access.claim(grant.as_deref(), certificate);
        let intake = self.pipeline.handle_hello(stream.session, &hello, claim);
        if intake == Intake::Taken {
            let token = grant.as_ref().and_then(|grant| grant.name());
            tracing::debug!(producer = %hello.producer, token, certificate, "a producer says hello");
            stream.grant = grant;
            stream.role = Role::Producer;
            self.streams.clear(key);
        }
        intake
    }
}
