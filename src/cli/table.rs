//! `muster table`: the routing table of a member's part of the DHT.

use actors::view::BinView;
use clap::builder::styling::AnsiColor;

use super::{
    Context,
    exit::Failure,
    output::{clean, colour, or_dash, table},
};

/// Asks and shows.
pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let bins: Vec<BinView> = context.client()?.get("/api/v1/table").await?;
    context.output.list(&bins, text)
}

fn text(bins: &[BinView]) -> String {
    if bins.is_empty() {
        return "the routing table is empty: no indexer has said hello yet".to_owned();
    }
    let mut table = table(["bits in common", "name", "link", "peer id", "address"]);
    for bin in bins {
        for (at, peer) in bin.peers.iter().enumerate() {
            table.add_row([
                if at == 0 { bin.common.to_string() } else { String::new() },
                or_dash(&peer.name),
                if peer.connected { "open" } else { "–" }.to_owned(),
                peer.peer_id.to_string(),
                peer.addrs.first().map_or_else(|| "–".to_owned(), |addr| clean(&addr.to_string())),
            ]);
        }
    }
    let peers = || bins.iter().flat_map(|bin| &bin.peers);
    let connected = peers().filter(|peer| peer.connected).count();
    let connected = colour(&format!("{connected} connected"), AnsiColor::Green);
    format!("{table}\n{} indexers in {} bins, {connected}", peers().count(), bins.len())
}

#[cfg(test)]
mod tests {
    use actors::view::TablePeerView;

    use super::*;

    #[test]
    fn a_bin_is_named_once_and_its_peers_stand_below_each_other() {
        let peer = |name: &str, connected| TablePeerView {
            peer_id: crate::admin::testing::peer(),
            name: name.to_owned(),
            connected,
            addrs: Vec::new(),
        };
        let bins = [
            BinView { common: 0, peers: vec![peer("rome\u{1b}", true), peer("oslo", false)] },
            BinView { common: 7, peers: vec![peer("bonn", true)] },
        ];
        let text = text(&bins);
        let first = |name: &str| text.lines().find(|line| line.contains(name)).map(|line| line.trim().to_owned());
        assert!(first("rome\u{fffd}").is_some_and(|line| line.starts_with('0')), "{text}");
        assert!(first("oslo").is_some_and(|line| line.starts_with("oslo")), "{text}");
        assert!(first("bonn").is_some_and(|line| line.starts_with('7')), "{text}");
        assert!(text.contains("3 indexers in 2 bins"), "{text}");
    }

    #[test]
    fn an_empty_table_is_said_in_words() {
        assert!(text(&[]).contains("empty"));
    }
}
