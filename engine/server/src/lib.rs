//! The engine as a library: what the binary `highwater` is made of.

pub mod park;
pub mod quic;
pub mod tls;
