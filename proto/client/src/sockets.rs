//! The client's UDP sockets, and what it knows of the addresses of an engine's cores.
//!
//! Shared by everything that one process asks of one engine. Invariant: what is known of the cores is what the engine
//! said last, at most [`CORES_MAX`] addresses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, OnceLock, PoisonError};

use highwater_proto::{CORES_MAX, Redirect};
use quinn::{Connection, Endpoint};

use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::stream::{Broken, connection_broken};

/// Sockets and trust for one engine, and the addresses that it is known by.
#[derive(Debug)]
pub(crate) struct Sockets {
    engine: String,
    quinn: quinn::ClientConfig,
    server_name: String,
    endpoint_v4: OnceLock<Endpoint>,
    endpoint_v6: OnceLock<Endpoint>,
    /// Learnt from redirects, in the order of the cores.
    cores: Mutex<Vec<SocketAddr>>,
}

impl Sockets {
    /// Checks the configuration; opens nothing yet.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, ClientError> {
        let quinn = config.quinn()?;
        let server_name = match &config.server_name {
            Some(name) => name.clone(),
            None => config.host()?.to_owned(),
        };
        Ok(Self {
            engine: config.engine.clone(),
            quinn,
            server_name,
            endpoint_v4: OnceLock::new(),
            endpoint_v6: OnceLock::new(),
            cores: Mutex::default(),
        })
    }

    /// Every address the engine's name stands for, then those of its cores that are known; at least one.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, Broken> {
        let known = self.cores.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let resolved = tokio::net::lookup_host(&self.engine).await.map(Vec::from_iter);
        let mut addresses = match resolved {
            Ok(addresses) => addresses,
            Err(_) if !known.is_empty() => Vec::new(),
            Err(error) => return Err(Broken::Lost(format!("the name cannot be resolved: {error}"))),
        };
        for address in known {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(Broken::Lost("the name stands for no address".into()));
        }
        Ok(addresses)
    }

    /// Learns the cores' addresses from a redirect that came from `dialled`; returns that of the home core.
    pub(crate) async fn redirected(&self, redirect: &Redirect, dialled: SocketAddr) -> Result<SocketAddr, Broken> {
        let home = usize::from(redirect.home_core);
        let port = redirect.ports.get(home).copied().ok_or_else(|| {
            let text = format!("it redirected to core {} of {} ports", redirect.home_core, redirect.ports.len());
            Broken::Fatal(ClientError::Protocol(text))
        })?;
        let ip = if redirect.host.is_empty() {
            dialled.ip()
        } else {
            let host = &redirect.host;
            let mut addresses = tokio::net::lookup_host((host.as_str(), port))
                .await
                .map_err(|error| Broken::Lost(format!("redirected to {host}, which cannot be resolved: {error}")))?;
            let address = addresses.next();
            address.ok_or_else(|| Broken::Lost(format!("redirected to {host}, which stands for no address")))?.ip()
        };
        let cores = redirect.ports.iter().take(CORES_MAX).map(|&port| SocketAddr::new(ip, port)).collect();
        *self.cores.lock().unwrap_or_else(PoisonError::into_inner) = cores;
        Ok(SocketAddr::new(ip, port))
    }

    /// One attempt to connect.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connection, Broken> {
        let endpoint = self.endpoint(address)?;
        let connecting = endpoint.connect_with(self.quinn.clone(), address, &self.server_name).map_err(|error| {
            ClientError::Config { what: "engine address", value: address.to_string(), reason: error.to_string() }
        })?;
        connecting.await.map_err(|error| match connection_broken(&error) {
            Broken::Fatal(ClientError::Handshake { reason, .. }) => {
                Broken::Fatal(ClientError::Handshake { engine: address.to_string(), reason })
            }
            broken => broken,
        })
    }

    fn endpoint(&self, address: SocketAddr) -> Result<&Endpoint, ClientError> {
        let (slot, any) = if address.is_ipv4() {
            (&self.endpoint_v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
        } else {
            (&self.endpoint_v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        };
        if slot.get().is_none() {
            let endpoint = Endpoint::client(any)
                .map_err(|error| ClientError::System(format!("no UDP socket on {any}: {error}")))?;
            // Whoever was faster has set one that is as good.
            let _ = slot.set(endpoint);
        }
        slot.get().ok_or_else(|| ClientError::System(format!("no UDP socket on {any}")))
    }

    /// The sockets that were opened.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        [&self.endpoint_v4, &self.endpoint_v6].into_iter().filter_map(OnceLock::get)
    }
}
