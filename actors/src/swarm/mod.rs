//! Everything that touches the network: transport, doors, streams.

pub mod doors;
mod muxer;
pub mod streams;
pub mod transport;
