//! Presence: what indexers tell each other of their coming and going, and what nodes sign so that an indexer cannot
//! make up how many of them it serves.
//!
//! [`topic`] is the gossip on `oc-presence`: heard, and never believed without a check of one's own. [`token`] is what a
//! node gives its indexers, once per epoch. [`audit`] is how another indexer, chosen by a hash, counts those tokens.

pub mod audit;
pub mod token;
pub mod topic;
