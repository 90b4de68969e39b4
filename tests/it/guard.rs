//! The indexer's guard: bans that outlive it, and nodes that are let go.

use std::{fs, time::Duration};

use actors::view::{BanView, MemberState};
use libp2p::Multiaddr;
use protocol::{
    identity::{Keys, PreSharedKey},
    wire::RefusalCode,
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
    let address: Multiaddr = member.address().parse().unwrap();
    Runtime::new().unwrap().block_on(async {
        let refused = thin(member, 9).connect(&address).await.unwrap_err().refusal().cloned().unwrap();
        assert_eq!(refused.refused, RefusalCode::Busy);
        assert!(refused.retry_after.is_some_and(|secs| secs >= 60), "{refused:?}");
    });
    order(member, &["undrain"]);
    member.until_ready();
    Runtime::new().unwrap().block_on(async {
        let newcomer = thin(member, 9);
        let link = newcomer.connect(&address).await.unwrap();
        newcomer.beats(&link).await.unwrap().beat().await.unwrap();
    });
}
