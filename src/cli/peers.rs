//! `muster peers`: the peers that a member knows.

use actors::view::PeerView;
use clap::builder::styling::AnsiColor;
use jiff::Timestamp;

use super::{
    Context,
    exit::Failure,
    output::{ago, clean, colour, or_dash, table},
    status,
};

/// Asks and shows.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let peers: Vec<PeerView> = context.client()?.get("/api/v1/peers").await?;
    context.output.list(&peers, |peers| text(peers, Timestamp::now()))
}

fn text(peers: &[PeerView], now: Timestamp) -> String {
    if peers.is_empty() {
        return "no peer is known yet".to_owned();
    }
    let mut table = table(["name", "role", "link", "last seen", "peer id", "address"]);
    for peer in peers {
        table.add_row([
            or_dash(&peer.name),
            status::role(peer.role).to_owned(),
            if peer.connected { "open" } else { "–" }.to_owned(),
            peer.last_seen.map_or_else(|| "–".to_owned(), |seen| ago(now, seen)),
            peer.peer_id.to_string(),
            peer.addrs.first().map_or_else(|| "–".to_owned(), |addr| clean(&addr.addr.to_string())),
        ]);
    }
    let connected = peers.iter().filter(|peer| peer.connected).count();
    format!("{table}\n{} known, {}", peers.len(), colour(&format!("{connected} connected"), AnsiColor::Green))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libp2p_identity::Keypair;
    use protocol::wire::Role;

    use super::*;

    #[test]
    fn a_peer_that_names_itself_with_an_escape_shows_none() {
        let peer = PeerView {
            peer_id: Keypair::generate_ed25519().public().to_peer_id(),
            name: "pa\u{1b}[31mris".to_owned(),
            did: String::new(),
            role: Role { node: true, indexer: false },
            agent: String::new(),
            connected: true,
            last_seen: None,
            network_keys: Vec::new(),
            addrs: Vec::new(),
        };
        let text = text(&[peer], Timestamp::UNIX_EPOCH);
        assert!(text.contains("pa\u{fffd}[31mris"), "{text}");
        assert!(text.contains("1 known"), "{text}");
    }

    #[test]
    fn nobody_known_is_said_in_words() {
        assert_eq!(text(&[], Timestamp::UNIX_EPOCH), "no peer is known yet");
    }
}
