//! The supervision tree of muster: every actor, the libp2p swarm, and all timers.
//!
//! One actor is one file: what it owns, who tells it, whom it tells, what a restart forgets and what bounds it stand at
//! its head. What an actor decides by is in [`protocol`]; what it keeps over restarts is in [`store`](::store).

pub mod alerts;
pub mod audit;
pub mod auditor;
mod bandwidth;
pub mod beacon;
pub mod bridge;
pub mod claim;
pub mod config;
pub mod context;
mod deliver;
mod discover;
pub mod fetch;
pub mod gate;
pub mod gc;
pub mod handle;
pub mod health;
pub mod heartbeat;
pub mod host;
mod leave;
pub mod lookup;
pub mod outbox;
pub mod peers;
pub mod planner;
pub mod policy;
pub mod pool;
pub mod presence;
mod probe;
mod promises;
mod reach;
pub mod registry;
pub mod relay;
pub mod report;
pub mod resources;
pub mod revocations;
pub mod root;
pub mod score;
pub mod search;
mod secret_file;
mod serve;
pub mod settings;
pub mod sharing;
mod spot;
pub mod stats;
pub mod store;
pub mod suggestions;
pub mod supervision;
pub mod swarm;
#[cfg(test)]
mod testing;
pub mod traces;
pub mod view;
pub mod webhook;
mod witness;

pub use handle::Handle;
pub use root::{End, Running, Start, start};
