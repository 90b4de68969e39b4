//! Audit: the tokens that our nodes gave us, shown to those who count them.
//!
//! Owns [`protocol::presence::token::Tokens`]. The tasks that serve heartbeats bring tokens, those that serve audits ask for
//! some; it tells nobody. A restart forgets tokens until their nodes sign for the next epoch: auditors find us short for two
//! epochs, which exposes nobody. Bounds: those of the tokens.

use protocol::{
    PeerId,
    presence::{
        audit::Salt,
        token::{PresenceToken, Tokens},
    },
    signed::{SignedObject as _, Verified},
    wire::Refused,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    context::Context,
    supervision::{Envelope, Reply, Seat},
};

/// The actor.
pub struct Audit;

/// What one life is given.
pub struct Args {
    /// Its seat.
    pub seat: Seat<Msg>,
    /// The daemon's.
    pub context: Context,
}

/// What it holds.
pub struct State {
    seat: Seat<Msg>,
    context: Context,
    tokens: Tokens,
}

/// What it is told and asked.
pub enum Msg {
    /// A node of ours signed that we serve it.
    Presented(Box<Verified<PresenceToken>>),
    /// An auditor wants to see tokens.
    Show {
        /// Who.
        asker: PeerId,
        /// What it drew.
        salt: Salt,
        /// Which epoch is now, by its clock.
        epoch: u64,
        /// The first tokens under the salt.
        reply: Reply<Result<Vec<Verified<PresenceToken>>, Refused>>,
    },
}

impl Actor for Audit {
    type Msg = Envelope<Msg>;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        Args { seat, context }: Args,
    ) -> Result<State, ActorProcessingErr> {
        let tokens = Tokens::new(context.settings.gate.max_nodes);
        Ok(State { seat, context, tokens })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match envelope.open() {
            Msg::Presented(token) => state.presented(*token),
            Msg::Show { asker, salt, epoch, reply } => reply.send(state.show(asker, &salt, epoch)),
        }
        Ok(())
    }
}

impl State {
    fn presented(&mut self, token: Verified<PresenceToken>) {
        if self.tokens.keep(token, self.seat.now().wall) {
            self.context.stats.tokens_kept.inc();
        }
    }

    fn show(&mut self, asker: PeerId, salt: &Salt, epoch: u64) -> Result<Vec<Verified<PresenceToken>>, Refused> {
        let shown = self.tokens.show(asker, salt, epoch, self.seat.now().wall);
        if shown.is_ok() {
            self.context.stats.audits_answered.inc();
        }
        shown
    }
}

/// What a heartbeat's token says of itself: enough to see whether it is worth verifying.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Claimed<'a> {
    indexer: &'a str,
    node: &'a str,
    epoch: u64,
}

/// The epoch of a token that `node` seems to have signed for `indexer`; nothing is verified.
pub(crate) fn claimed_epoch(text: &str, indexer: &PeerId, node: &PeerId) -> Option<u64> {
    if text.len() > PresenceToken::BYTES_MAX {
        return None;
    }
    let claimed: Claimed<'_> = serde_json::from_str(text).ok()?;
    let is_ours = claimed.indexer.parse().ok() == Some(*indexer) && claimed.node.parse().ok() == Some(*node);
    is_ours.then_some(claimed.epoch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::identity::Keys;

    use super::*;

    #[test]
    fn a_token_for_another_indexer_or_of_another_node_is_not_worth_verifying() {
        let (indexer, node) = (Keys::from_seed([1; 32]).peer_id(), Keys::from_seed([2; 32]).peer_id());
        let text = format!(r#"{{"indexer":"{indexer}","node":"{node}","epoch":7}}"#);
        assert_eq!(claimed_epoch(&text, &indexer, &node), Some(7));
        assert_eq!(claimed_epoch(&text, &node, &node), None);
        assert_eq!(claimed_epoch(&text, &indexer, &indexer), None);
        assert_eq!(claimed_epoch(&format!("{text}{}", " ".repeat(512)), &indexer, &node), None);
        assert_eq!(claimed_epoch("{}", &indexer, &node), None);
    }
}
