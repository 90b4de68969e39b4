//! Presence: what indexers tell each other of their coming and going, and what nodes sign so that an indexer cannot
//! make up how many of them it serves.
//!
//! [`topic`] is the gossip on `oc-presence`: heard, and never believed without a check of one's own. [`token`] is what a
//! node gives its indexers, once per epoch. [`audit`] is how others count those tokens: an indexer that a hash chooses, and
//! in their [`rounds`] the nodes themselves.

pub mod audit;
pub mod rounds;
pub mod token;
pub mod topic;
