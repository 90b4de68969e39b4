//! The rules of muster: what is true of records, wire messages, scores, pools, admission and search.
//!
//! Nothing in this crate is async, reads a clock, draws a random number, opens a socket or a file.
//! Time comes in as [`time::Mono`] or [`jiff::Timestamp`], chance as `&mut impl rand::Rng`, bytes as slices.
//! One module is one topic; the actor that runs a rule and the table that keeps its rows carry the same name.

pub mod addr;
pub mod admission;
pub mod alerts;
pub mod bandwidth;
pub mod bans;
pub mod beacon;
pub mod behaviour;
pub mod book;
pub mod bus;
pub mod catalogue;
pub mod change;
pub mod clock;
pub mod delivery;
pub mod dht;
pub mod diversity;
pub mod event;
pub mod frame;
pub mod gate;
pub mod health;
pub mod heartbeat;
pub mod hello;
pub mod identity;
pub mod json;
pub mod keyring;
pub mod log_limit;
pub mod names;
pub mod offload;
pub mod planner;
pub mod pool;
pub mod presence;
pub mod profile;
pub mod record;
pub mod relation;
pub mod report;
pub mod restarts;
pub mod restraint;
pub mod revocations;
pub mod sampling;
pub mod score;
pub mod search;
pub mod session;
mod shares;
pub mod signed;
pub mod sim;
pub mod spot;
pub mod suggestions;
pub mod table;
#[cfg(test)]
mod testing;
pub mod time;
pub mod trace;
pub mod watchdog;
pub mod webhook;
pub mod wire;
pub mod witness;

pub use jiff::Timestamp;
pub use libp2p_identity::PeerId;
