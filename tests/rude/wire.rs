//! Clients that break the protocol, each closed with its reason.
