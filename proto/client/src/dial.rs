//! From an address to a welcomed producer stream, or to a stream for questions.
//!
//! It makes single attempts; repeating them is the caller's. Invariant: a welcome it returns is for the producer asked
//! for, from the producer's home core.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use highwater_proto::{FrameKind, Hello, HelloMode, PROTOCOL_VERSION, ProducerId, Redirect, Welcome};
use quinn::{Connection, Endpoint, RecvStream, SendStream};

use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::stream::{Broken, connection_broken, read_frame, unexpected, write_frame};

/// A core redirects to the home core, which welcomes; a second redirect allows for a change of cores in between.
const REDIRECTS_MAX: u32 = 3;
/// How long closing waits for the engine to hear of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Dials one engine: its sockets, trust and the last known home address.
#[derive(Debug)]
pub(crate) struct Dialer {
    config: ClientConfig,
    quinn: quinn::ClientConfig,
    server_name: String,
    endpoint_v4: Option<Endpoint>,
    endpoint_v6: Option<Endpoint>,
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
        let quinn = config.quinn()?;
        let server_name = match &config.server_name {
            Some(name) => name.clone(),
            None => config.host()?.to_owned(),
        };
        Ok(Self { config, quinn, server_name, endpoint_v4: None, endpoint_v6: None, home: None, attempts: 0 })
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// One attempt to be welcomed, following redirects.
    pub(crate) async fn welcome(&mut self, mode: HelloMode, producer: ProducerId) -> Result<Box<Welcomed>, Broken> {
        let mut address = self.next_address().await?;
        for _ in 0..=REDIRECTS_MAX {
            let connection = self.connect(address).await?;
            match self.greet(connection, mode, producer).await? {
                Greeting::Welcomed(welcomed) => {
                    self.home = Some(address);
                    self.attempts = 0;
                    return Ok(welcomed);
                }
                Greeting::Redirected(redirect) => address = redirected(&redirect, address).await?,
            }
        }
        Err(Broken::Lost(format!("more than {REDIRECTS_MAX} redirects in a row")))
    }

    /// One attempt to open a stream with a first frame of its own.
    pub(crate) async fn open(&mut self, first: &[u8]) -> Result<(Connection, SendStream, RecvStream), Broken> {
        let address = self.next_address().await?;
        let connection = self.connect(address).await?;
        let (mut send, receive) = connection.open_bi().await.map_err(|error| connection_broken(&error))?;
        write_frame(&mut send, first).await?;
        self.attempts = 0;
        Ok((connection, send, receive))
    }

    /// The home core first, then in turn every address the engine's name stands for: after a restart the home may be
    /// elsewhere.
    async fn next_address(&mut self) -> Result<SocketAddr, Broken> {
        let turn = self.attempts;
        self.attempts = self.attempts.wrapping_add(1);
        if let Some(home) = self.home
            && turn.is_multiple_of(2)
        {
            return Ok(home);
        }
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&self.config.engine)
            .await
            .map_err(|error| Broken::Lost(format!("the name cannot be resolved: {error}")))?
            .collect();
        let index = (turn / if self.home.is_some() { 2 } else { 1 }) % addresses.len().max(1);
        addresses.get(index).copied().ok_or_else(|| Broken::Lost("the name stands for no address".into()))
    }

    async fn connect(&mut self, address: SocketAddr) -> Result<Connection, Broken> {
        let quinn = self.quinn.clone();
        let server_name = self.server_name.clone();
        let connecting = self.endpoint(address)?.connect_with(quinn, address, &server_name).map_err(|error| {
            ClientError::Config { what: "engine address", value: address.to_string(), reason: error.to_string() }
        })?;
        connecting.await.map_err(|error| match connection_broken(&error) {
            Broken::Fatal(ClientError::Handshake { reason, .. }) => {
                Broken::Fatal(ClientError::Handshake { engine: address.to_string(), reason })
            }
            broken => broken,
        })
    }

    fn endpoint(&mut self, address: SocketAddr) -> Result<&Endpoint, ClientError> {
        let (slot, any) = if address.is_ipv4() {
            (&mut self.endpoint_v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
        } else {
            (&mut self.endpoint_v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        };
        match slot {
            Some(endpoint) => Ok(endpoint),
            None => {
                let endpoint = Endpoint::client(any)
                    .map_err(|error| ClientError::System(format!("no UDP socket on {any}: {error}")))?;
                Ok(slot.insert(endpoint))
            }
        }
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
        for endpoint in [&self.endpoint_v4, &self.endpoint_v6].into_iter().flatten() {
            // Nobody hears a farewell to a dead engine; the limit is the answer to that.
            let _unheard = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
        }
    }
}

async fn redirected(redirect: &Redirect, dialled: SocketAddr) -> Result<SocketAddr, Broken> {
    let port = redirect.ports.get(usize::from(redirect.home_core)).copied().ok_or_else(|| {
        let text = format!("it redirected to core {} of {} ports", redirect.home_core, redirect.ports.len());
        Broken::Fatal(ClientError::Protocol(text))
    })?;
    if redirect.host.is_empty() {
        return Ok(SocketAddr::new(dialled.ip(), port));
    }
    let mut addresses = tokio::net::lookup_host((redirect.host.as_str(), port))
        .await
        .map_err(|error| Broken::Lost(format!("redirected to {}, which cannot be resolved: {error}", redirect.host)))?;
    addresses
        .next()
        .ok_or_else(|| Broken::Lost(format!("redirected to {}, which stands for no address", redirect.host)))
}
