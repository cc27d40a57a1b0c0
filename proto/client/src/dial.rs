//! From an address to a welcomed producer stream, or to a stream for questions.
//!
//! It makes single attempts; repeating them is the caller's. Invariant: a welcome it returns is for the producer asked
//! for, from the producer's home core.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::{FrameKind, Hello, HelloMode, PROTOCOL_VERSION, ProducerId, Redirect, Welcome};
use quinn::{Connection, RecvStream, SendStream};

use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::sockets::Sockets;
use crate::stream::{Broken, connection_broken, read_frame, unexpected, write_frame};

/// A core redirects to the home core, which welcomes; a second redirect allows for a change of cores in between.
pub(crate) const REDIRECTS_MAX: u32 = 3;
/// How long closing waits for the engine to hear of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Dials one engine: its sockets and the last known home address.
#[derive(Debug)]
pub(crate) struct Dialer {
    config: ClientConfig,
    sockets: Arc<Sockets>,
    home: Option<SocketAddr>,
    attempts: usize,
}

/// A connection whose producer stream was welcomed.
#[derive(Debug)]
pub(crate) struct Welcomed {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
    pub(crate) welcome: Welcome,
}

enum Greeting {
    Welcomed(Box<Welcomed>),
    Redirected(Redirect),
}

impl Dialer {
    pub(crate) fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let sockets = Arc::new(Sockets::new(&config)?);
        Ok(Self::over(config, sockets))
    }

    /// Dials by sockets that others use too; they are of the same configuration.
    pub(crate) fn over(config: ClientConfig, sockets: Arc<Sockets>) -> Self {
        Self { config, sockets, home: None, attempts: 0 }
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// One attempt to be welcomed, following redirects.
    pub(crate) async fn welcome(&mut self, mode: HelloMode, producer: ProducerId) -> Result<Box<Welcomed>, Broken> {
        let mut address = self.next_address().await?;
        for _ in 0..=REDIRECTS_MAX {
            let connection = self.sockets.connect(address).await?;
            match self.greet(connection, mode, producer).await? {
                Greeting::Welcomed(welcomed) => {
                    self.home = Some(address);
                    self.attempts = 0;
                    return Ok(welcomed);
                }
                Greeting::Redirected(redirect) => {
                    address = self.sockets.redirected(&redirect, address).await?;
                }
            }
        }
        Err(Broken::Lost(format!("more than {REDIRECTS_MAX} redirects in a row")))
    }

    /// One attempt to open a stream with a first frame of its own.
    pub(crate) async fn open(&mut self, first: &[u8]) -> Result<(Connection, SendStream, RecvStream), Broken> {
        let address = self.next_address().await?;
        let connection = self.sockets.connect(address).await?;
        let (mut send, receive) = connection.open_bi().await.map_err(|error| connection_broken(&error))?;
        write_frame(&mut send, first).await?;
        self.attempts = 0;
        Ok((connection, send, receive))
    }

    /// The home core first, then in turn every address the engine is known by: after a restart the home may be
    /// elsewhere.
    async fn next_address(&mut self) -> Result<SocketAddr, Broken> {
        let turn = self.attempts;
        self.attempts = self.attempts.wrapping_add(1);
        if let Some(home) = self.home
            && turn.is_multiple_of(2)
        {
            return Ok(home);
        }
        let addresses = self.sockets.addresses().await?;
        let index = (turn / if self.home.is_some() { 2 } else { 1 }) % addresses.len();
        Ok(addresses[index])
    }

    async fn greet(&self, connection: Connection, mode: HelloMode, producer: ProducerId) -> Result<Greeting, Broken> {
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| connection_broken(&error))?;
        let hello = Hello { version: PROTOCOL_VERSION, mode, producer, token: self.config.token.clone() };
        let mut frame = Vec::new();
        hello.encode(&mut frame);
        write_frame(&mut send, &frame).await?;
        let answer = read_frame(&mut receive).await?;
        match answer.kind {
            FrameKind::Welcome => {
                let welcome = Welcome::decode(&answer.payload).map_err(ClientError::from)?;
                if welcome.producer != producer {
                    let text = format!("it welcomed producer {:032x} as {:032x}", producer.0, welcome.producer.0);
                    return Err(ClientError::Protocol(text).into());
                }
                Ok(Greeting::Welcomed(Box::new(Welcomed { connection, send, receive, welcome })))
            }
            FrameKind::Redirect => {
                connection.close(0_u8.into(), b"redirected");
                let redirect = Redirect::decode(&answer.payload).map_err(ClientError::from)?;
                Ok(Greeting::Redirected(redirect))
            }
            kind => Err(unexpected(kind, "WELCOME or REDIRECT")),
        }
    }

    /// Lets the engine hear that connections are closed; bounded.
    pub(crate) async fn farewell(&self) {
        for endpoint in self.sockets.endpoints() {
            // Nobody hears a farewell to a dead engine; the limit is the answer to that.
            let _unheard = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
        }
    }
}
