//! Counting the nodes of one's own indexers: what `actors/src/auditor.rs` does between the rules.
//!
//! Tokens are played without their signatures: an indexer shows the nodes that it serves, and a liar can show no others.

use std::time::Duration;

use libp2p_identity::PeerId;
use rand::Rng as _;

use super::{
    member::Member,
    message::{Message, What},
    report::Kind,
    world::World,
};
use crate::{
    presence::audit::{self, Finding, Salt, Verdict},
    score::Observation,
};

/// An indexer shows its tokens within this: `SHOW_WITHIN` of the actor.
const WITHIN: Duration = Duration::from_secs(10);

/// Bytes of a question, and of each token of its answer.
const QUESTION_BYTES: usize = 100;
const TOKEN_BYTES: usize = 335;

/// One audit under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audit {
    to: u32,
    claimed: u32,
    salt: Salt,
}

impl Member {
    /// Begins an audit where one is due.
    pub(super) fn audit(&mut self, world: &mut World) {
        let now = self.now(world).mono;
        let claims: Vec<(PeerId, u32)> =
            self.beats.iter().filter_map(|(at, beat)| Some((world.id(*at), beat.claimed?))).collect();
        let Some(peer) = self.turns.due(&claims, &self.evidence, now) else { return };
        let (Some(to), Some((_, claimed))) = (world.at(&peer), claims.iter().find(|(member, _)| *member == peer))
        else {
            return;
        };
        if world.net.connection(self.own.at, to).is_none() {
            return;
        }
        let mut salt = [0; 32];
        self.rng.fill_bytes(&mut salt);
        let number = world.fresh();
        self.audits.insert(number, Audit { to, claimed: *claimed, salt });
        world.send(self.own.at, to, Kind::Audit, QUESTION_BYTES, Message::AskTokens { number, salt });
        world.after(WITHIN, self.own.at, What::AuditLate { number });
    }

    /// Shows the first nodes under a salt.
    pub(super) fn show_tokens(&self, to: u32, number: u64, salt: &Salt, world: &mut World) {
        let Some(host) = &self.host else { return };
        let nodes = audit::first(salt, host.nodes().map(|node| (node, node)));
        let bytes = nodes.len() * TOKEN_BYTES;
        world.send(self.own.at, to, Kind::Audit, bytes, Message::Tokens { number, nodes });
    }

    pub(super) fn tokens_shown(&mut self, number: u64, nodes: Vec<PeerId>, world: &mut World) {
        if let Some(Audit { to, claimed, salt }) = self.audits.remove(&number) {
            self.audited(to, audit::count(claimed, &salt, nodes.into_iter()), world);
        }
    }

    /// It did not answer in time. Without a connection by now the fault may be the network's.
    pub(super) fn audit_late(&mut self, number: u64, world: &mut World) {
        let Some(Audit { to, claimed, .. }) = self.audits.remove(&number) else { return };
        if world.net.connection(self.own.at, to).is_some() {
            self.audited(to, audit::evaded(claimed), world);
        }
    }

    fn audited(&mut self, to: u32, finding: Option<Finding>, world: &mut World) {
        let Some(finding) = finding else { return };
        let (peer, now) = (world.id(to), self.now(world).mono);
        let seen = match self.evidence.add(peer, &finding) {
            Verdict::Clear => return,
            Verdict::Suspected => None,
            Verdict::Exposed { .. } => (finding.step > 0.0).then_some(Observation::Exposed),
            Verdict::Cleared => Some(Observation::Cleared),
        };
        let name = world.names[to as usize].clone();
        world.note(
            self.own.at,
            format_args!("audits {name}: claims {}, {:.0} by its tokens", finding.claimed, finding.estimate),
        );
        if let Some(seen) = seen {
            self.book.observe(peer, &seen, now);
        }
    }
}
