//! What the bridge tells and asks of the actor that shares the catalogue.

use protocol::bus::{Announcement, Order};

use crate::supervision::Reply;

/// An order, and what it is known by when it comes again.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// Unique per message.
    pub id: String,
    /// What is to be done.
    pub order: Order,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is carried out and on the disk.
    Done,
    /// It was carried out before.
    Repeated,
    /// It never will be.
    Refused(String),
    /// It may be later.
    NotYet(String),
}

/// What it is told and asked.
pub enum Msg {
    /// Applications ordered something.
    Ordered {
        /// In the order in which they came.
        orders: Vec<Ordered>,
        /// One verdict for each.
        reply: Reply<Vec<Verdict>>,
    },
    /// What waits for the bus?
    NextForBus {
        /// After this one.
        after: u64,
        /// At most so many.
        limit: u32,
        /// In order.
        reply: Reply<Vec<Announcement>>,
    },
    /// The bus has these.
    Published {
        /// Which.
        ids: Vec<u64>,
    },
}
