//! The indexer's guard: bans that outlive it, and nodes that are let go.

use std::{collections::BTreeSet, fs, time::Duration};

use actors::view::{BanView, MemberState};
use libp2p::Multiaddr;
use protocol::{
    identity::{Keys, PreSharedKey},
    wire::{RefusalCode, Refused},
};
use tokio::runtime::Runtime;

use crate::{
    harness::{Federation, Member, PATIENCE, Spec, until, until_true},
    thin::{Network, Thin},
};

/// P6 says so.
const CUT_WITHIN: Duration = Duration::from_secs(1);

fn thin(member: &Member, seed: u8) -> Thin {
    let text = fs::read_to_string(member.dir.join("swarm.key")).unwrap();
    let key: PreSharedKey = text.parse().unwrap();
    let network = Network { key: Some(*key.as_bytes()), id: "opencloud".to_owned() };
    Thin::start(Keys::from_seed([seed; 32]), &format!("thin-{seed}"), &network).unwrap()
}

/// A plain node with the key of this indexer.
fn with_key_of(indexer: &Member) -> Thin {
    let pem = fs::read_to_string(indexer.dir.join("identity.pem")).unwrap();
    Thin::start(Keys::from_pem(&pem).unwrap(), "thin", &indexer.network()).unwrap()
}

/// What a newcomer hears of an indexer that takes no nodes, and whom it is named instead.
async fn turned_away(newcomer: &Thin, address: &Multiaddr) -> (Refused, BTreeSet<String>) {
    let refused = newcomer.connect(address).await.unwrap_err().refusal().cloned().unwrap();
    assert_eq!(refused.refused, RefusalCode::Busy, "{refused:?}");
    let named = refused.alternatives.iter().map(|other| other.id.to_string()).collect();
    (refused, named)
}

/// A verb that changes the member, with its token.
#[track_caller]
fn order(member: &Member, args: &[&str]) {
    let config = member.config();
    let args: Vec<&str> = args.iter().copied().chain(["--config", config.to_str().unwrap()]).collect();
    crate::harness::muster(&args).ok();
}

#[test]
fn p6_a_ban_cuts_a_live_stream_within_a_second_and_survives_a_kill() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let member = federation.member("indexer-1");
    member.until_ready();
    let address: Multiaddr = member.address().parse().unwrap();
    let runtime = Runtime::new().unwrap();
    let (loud, quiet) = runtime.block_on(async { (thin(member, 1), thin(member, 2)) });
    let id = loud.keys.peer_id().to_string();
    runtime.block_on(async {
        let link = loud.connect(&address).await.unwrap();
        loud.beats(&link).await.unwrap().beat().await.unwrap();
        assert_eq!(member.sessions().len(), 1);
        order(member, &["ban", "add", &id, "--for", "1h", "--reason", "too loud"]);
        tokio::time::timeout(CUT_WITHIN, link.ended()).await.expect("the connection was not cut");
        assert!(member.sessions().is_empty(), "its session ends with the ban");
        let refused = loud.connect(&address).await.unwrap_err().refusal().cloned().unwrap();
        assert_eq!(refused.refused, RefusalCode::Banned);
        assert!(refused.retry_after.is_some_and(|secs| (3_500..=3_600).contains(&secs)), "{refused:?}");
        assert!(!refused.detail.contains("loud"), "the reason is ours");
    });
    let member = federation.member_mut("indexer-1");
    member.kill();
    member.start();
    let member = federation.member("indexer-1");
    member.until_ready();
    runtime.block_on(async {
        let refused = loud.connect(&address).await.unwrap_err().refusal().cloned().unwrap();
        assert_eq!(refused.refused, RefusalCode::Banned);
        quiet.connect(&address).await.unwrap();
    });
    let bans: Vec<BanView> = member.get("/api/v1/bans");
    assert_eq!((bans.len(), bans[0].by.as_str(), bans[0].reason.as_str()), (1, "operator", "too loud"));
    order(member, &["ban", "rm", &id]);
    assert!(member.get::<Vec<BanView>>("/api/v1/bans").is_empty());
    runtime.block_on(async {
        let link = loud.connect(&address).await.unwrap();
        loud.beats(&link).await.unwrap().beat().await.unwrap();
    });
}

#[test]
fn a_drained_indexer_loses_its_nodes_and_no_node_is_ever_below_its_minimum() {
    let mut federation = Federation::converged(3, &["paris", "lyon", "rome"]);
    let names = ["paris", "lyon", "rome"];
    for name in names {
        until_true(&format!("{name} has three indexers"), PATIENCE, || {
            federation.member(name).status().pool_answering == 3
        });
    }
    order(federation.member("indexer-2"), &["drain"]);
    let drained = federation.member("indexer-2");
    assert!(drained.status().drained);
    assert_eq!(drained.ask("/readyz").unwrap().code, 503);
    let nodes = || drained.sessions().into_iter().filter(|session| !session.indexer).count();
    until_true("indexer-2 has no node any more", PATIENCE, || {
        for name in names {
            let pool = federation.member(name).indexers();
            let carried = pool.iter().filter(|indexer| indexer.state == MemberState::Answering).count();
            assert!(carried >= 1, "{name} is carried by nobody: {pool:?}");
        }
        nodes() == 0
    });
    // A crash does not undo the order.
    let member = federation.member_mut("indexer-2");
    member.kill();
    member.start();
    let member = federation.member("indexer-2");
    until("indexer-2 is back, and drained", PATIENCE, || member.try_status().filter(|status| status.drained));
    until_true("it knows the others again", PATIENCE, || member.status().indexers_known == 2);
    let address: Multiaddr = member.address().parse().unwrap();
    let [first, third] = ["indexer-1", "indexer-3"].map(|name| federation.member(name).peer_id.clone());
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let (refused, named) = turned_away(&thin(member, 9), &address).await;
        assert!(refused.retry_after.is_some_and(|secs| secs >= 60), "{refused:?}");
        assert_eq!(named, BTreeSet::from([first.clone(), third.clone()]), "those that it knows, and never itself");
    });
    // Killed, so that its key is free for another; it takes longer to be given up than to come back as a node.
    federation.member_mut("indexer-3").kill();
    let member = federation.member("indexer-2");
    until_true("indexer-3 is not connected", PATIENCE, || {
        !member.peers().iter().any(|peer| peer.connected && peer.peer_id.to_string() == third)
    });
    runtime.block_on(async {
        let (_, named) = turned_away(&with_key_of(federation.member("indexer-3")), &address).await;
        assert_eq!(named, BTreeSet::from([first]), "nobody is sent to itself");
    });
    assert_eq!(member.status().indexers_known, 2, "it was left out as the asker, and not as a dead one");
    order(member, &["undrain"]);
    member.until_ready();
    runtime.block_on(async {
        let newcomer = thin(member, 9);
        let link = newcomer.connect(&address).await.unwrap();
        newcomer.beats(&link).await.unwrap().beat().await.unwrap();
    });
}
