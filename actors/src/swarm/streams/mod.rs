//! Streams of our JSON protocols: bounded both ways, refused aloud, nothing kept of a connection that is gone.
//!
//! libp2p-stream drops inbound streams silently when its acceptor is busy and leaks per connection, so this is a behaviour
//! of our own. A stream that a peer opens is, as soon as its protocol is agreed on, either delivered to the channel of that
//! protocol with its permits in hand, or answered with a [`Refused`](protocol::wire::Refused) line and closed; only when
//! even refusals are too many at once is it reset. Every one of these is counted.
//!
//! - [`behaviour`]: which connections there are; opening, admitting, closing.
//! - `handler`: one per connection; agrees on protocols, delivers, refuses.
//! - [`counters`]: what happened, for the metrics.
//! - [`io`]: values over one stream, with limits and deadlines.
//! - `link`: what behaviour, handler and streams of one connection share.

pub mod behaviour;
pub mod counters;
mod handler;
pub mod io;
mod link;

pub use behaviour::{Accept, Inbound, Open, OpenError, Settings, Streams};
pub use counters::{Counters, RefusalCause};
pub use handler::Handler;
pub use io::{Bytes, Io, IoError, Patience, Value};
