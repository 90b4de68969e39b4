//! The supervision tree of muster.

pub mod handle;
pub mod swarm;
pub mod view;
