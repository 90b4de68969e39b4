//! A key that was stolen is revoked by its owner: the thief is out, everywhere and for good.

use std::{fs, path::Path, time::Duration};

use actors::view::{BanView, MemberState, RevocationView};
use libp2p::Multiaddr;
use protocol::{
    identity::Keys,
    revocations::{Revoke, revoke},
    signed::Verified,
    wire::{Protocol, RefusalCode, RevokeAck},
};
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

use crate::{
    harness::{Ended, Federation, Member, PATIENCE, Spec, muster, shown_mode, until_true},
    thin::{Error, Thin},
};

/// From the owner's word to everybody's no, on a loaded machine.
const SPREADS_WITHIN: Duration = Duration::from_secs(20);

const INDEXERS: [&str; 3] = ["indexer-1", "indexer-2", "indexer-3"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A verb that changes the member, with its token.
fn order(member: &Member, args: &[&str]) -> Ended {
    let config = member.config();
    let args: Vec<&str> = args.iter().copied().chain(["--config", text(&config)]).collect();
    muster(&args)
}

fn held(member: &Member) -> Vec<RevocationView> {
    member.try_get("/api/v1/revocations").unwrap_or_default()
}

fn has(member: &Member, peer_id: &str) -> bool {
    held(member).iter().any(|held| held.peer_id.to_string() == peer_id)
}

fn keys_of(member: &Member) -> Keys {
    Keys::from_pem(&fs::read_to_string(member.dir.join("identity.pem")).unwrap()).unwrap()
}

/// How a peer with these keys is received.
async fn received(member: &Member, keys: &Keys) -> Result<(), Error> {
    let thin = Thin::start(keys.clone(), "paris", &member.network())?;
    let link = thin.connect(&member.address().parse::<Multiaddr>().unwrap()).await?;
    link.close().await;
    Ok(())
}

#[track_caller]
fn is_refused(runtime: &Runtime, member: &Member, keys: &Keys) {
    let refused = runtime.block_on(received(member, keys)).unwrap_err().refusal().cloned().unwrap();
    assert_eq!(refused.refused, RefusalCode::Banned, "{}: {refused:?}", member.name);
    assert!(refused.detail.starts_with("this peer id was revoked by its own key at 20"), "{refused:?}");
    assert!(refused.retry_after.is_some_and(|secs| secs >= 3_600), "{refused:?}");
}

/// Hands this to a member as a stranger.
async fn handed(member: &Member, text: &str) -> Result<RevokeAck, Error> {
    let thin = Thin::start(Keys::from_seed([77; 32]), "messenger", &member.network())?;
    let link = thin.connect(&member.address().parse::<Multiaddr>().unwrap()).await?;
    let raw = RawValue::from_string(text.to_owned()).unwrap();
    link.ask(Protocol::Revoke, &raw).await
}

#[test]
fn a_stolen_key_is_revoked_by_its_owner_everywhere_and_stays_so() {
    let runtime = Runtime::new().unwrap();
    let mut federation = Federation::converged(3, &["paris", "lyon"]);
    let (paris_id, paris_did) = {
        let paris = federation.member("paris");
        (paris.peer_id.clone(), paris.did.clone())
    };
    let keys = keys_of(federation.member("paris"));
    let stolen = fs::read(federation.member("paris").dir.join("identity.pem")).unwrap();
    let mut thief = Spec::node("thief");
    for name in INDEXERS {
        thief = thief.seed(federation.member(name).address());
    }
    let thief = federation.add(thief);
    fs::write(thief.dir.join("identity.pem"), stolen).unwrap();
    thief.start();
    until_true("the thief is taken for paris", PATIENCE, || {
        federation.member("thief").indexers().iter().any(|it| it.state == MemberState::Answering)
    });
    let lyon_id = federation.member("lyon").peer_id.clone();

    // Nobody revokes another's key.
    let (first, lyon) = (federation.member("indexer-1"), federation.member("lyon"));
    let own = Keys::from_seed([77; 32]);
    let word = revoke(&own, &own.did().to_string(), "", jiff::Timestamp::now());
    let forged = word
        .text()
        .replace(&own.peer_id().to_string(), &lyon_id)
        .replace(own.pub_key(), keys_of(lyon).pub_key())
        .replace(&own.did().to_string(), &lyon.did);
    let refused = runtime.block_on(handed(first, &forged)).unwrap_err().refusal().cloned().unwrap();
    assert_eq!(refused.refused, RefusalCode::Invalid);
    assert_eq!(first.metric("muster_revocations_forged_total"), 1.0);
    assert!(INDEXERS.iter().all(|name| held(federation.member(name)).is_empty()));

    // Prepared with the key alone, and meant only when it is said.
    let safe = tempfile::tempdir().unwrap();
    let file = safe.path().join("revoke.json");
    let identity = federation.member("paris").dir.join("identity.pem");
    muster(&["revoke", "--identity", text(&identity), "--reason", "the disk was stolen", "--out", text(&file)]).ok();
    assert_eq!(shown_mode(&file), "600");
    assert!(held(first).is_empty(), "what is prepared is in force nowhere");
    assert_eq!(order(first, &["revoke", "--file", text(&file)]).code, Some(2));
    assert!(held(first).is_empty());
    order(first, &["revoke", "--file", text(&file), "--yes"]).ok();

    for name in INDEXERS.iter().copied().chain(["lyon"]) {
        let member = federation.member(name);
        until_true(&format!("{name} has dropped paris"), SPREADS_WITHIN, || {
            has(member, &paris_id) && !member.lists(&paris_id) && member.records(&paris_did).is_empty()
        });
        assert!(!member.peers().iter().any(|peer| peer.peer_id.to_string() == paris_id), "{name} forgot where it is");
        is_refused(&runtime, member, &keys);
        assert_eq!(member.metric("muster_revocations_new_total"), 1.0, "{name}");
    }
    for name in ["paris", "thief"] {
        let member = federation.member(name);
        until_true(&format!("{name} is out, and says why"), PATIENCE, || {
            let ready = member.ask("/readyz").unwrap();
            !member.indexers().iter().any(|it| it.state == MemberState::Answering)
                && ready.code == 503
                && ready.body.contains("revoke")
        });
    }

    // Said again, it is known and nothing happens.
    let second = federation.member("indexer-2");
    let known = second.metric("muster_revocations_known_total");
    let replayed = fs::read_to_string(&file).unwrap();
    assert!(runtime.block_on(handed(second, replayed.trim())).unwrap().ok);
    assert!(second.metric("muster_revocations_known_total") > known);
    assert!(INDEXERS.iter().all(|name| federation.member(name).metric("muster_revocations_new_total") == 1.0));

    // Whoever comes later hears of it, and whoever was away knows it still.
    let mut late = Spec::indexer("indexer-4");
    for name in INDEXERS {
        late = late.seed(federation.member(name).address());
    }
    federation.add(late).start();
    let late = federation.member("indexer-4");
    until_true("the newcomer has heard", SPREADS_WITHIN, || has(late, &paris_id));
    is_refused(&runtime, late, &keys);
    let restarted = federation.member_mut("indexer-2");
    restarted.kill();
    restarted.start();
    restarted.until_listening();
    let restarted = federation.member("indexer-2");
    until_true("it has read back what it knew", PATIENCE, || has(restarted, &paris_id));
    is_refused(&runtime, restarted, &keys);
    let heard = held(restarted);
    assert_eq!((heard.len(), heard[0].reason.as_str()), (1, "the disk was stolen"));
    assert_eq!(restarted.metric("muster_revocations_new_total"), 0.0, "it did not have to be told again");

    // Nobody else is touched.
    let lyon = federation.member("lyon");
    lyon.until_whole();
    until_true("lyon is found", PATIENCE, || !federation.member("indexer-3").records(&lyon.did).is_empty());
    for name in INDEXERS {
        assert_eq!(federation.member(name).get::<Vec<BanView>>("/api/v1/bans"), [], "{name}");
    }
    let listed = federation.member("indexer-3").verb(&["revocations"]).ok();
    assert!(listed.out.contains(&paris_id), "{}", listed.out);
}

#[test]
fn a_member_hands_its_own_revocation_to_the_others_before_it_is_cut_off() {
    let federation = Federation::converged(2, &["paris"]);
    let paris = federation.member("paris");
    let identity = paris.dir.join("identity.pem");
    order(paris, &["revoke", "--identity", text(&identity), "--yes"]).ok();
    for name in ["indexer-1", "indexer-2"] {
        let member = federation.member(name);
        until_true(&format!("{name} has heard"), SPREADS_WITHIN, || has(member, &paris.peer_id));
    }
    until_true("paris says what to do", PATIENCE, || {
        let ready = paris.ask("/readyz").unwrap();
        ready.code == 503 && ready.body.contains("muster init")
    });
    let doctor = order(paris, &["doctor"]);
    assert!(doctor.out.contains("revoked"), "{}", doctor.out);
}

#[test]
fn what_is_no_revocation_or_from_the_future_is_refused() {
    let runtime = Runtime::new().unwrap();
    let federation = Federation::converged(1, &["paris"]);
    for member in [federation.member("indexer-1"), federation.member("paris")] {
        let keys = Keys::from_seed([5; 32]);
        let refusal = |text: &str| runtime.block_on(handed(member, text)).unwrap_err().refusal().cloned();
        let later = jiff::Timestamp::now() + Duration::from_secs(3_600);
        let early = revoke(&keys, &keys.did().to_string(), "", later);
        assert_eq!(refusal(early.text()).unwrap().refused, RefusalCode::Clock, "{}", member.name);
        let good = revoke(&keys, &keys.did().to_string(), "", jiff::Timestamp::now());
        let nobody = good.text().replace("\"time\"", "\"tome\"");
        assert_eq!(refusal(&nobody).unwrap().refused, RefusalCode::Invalid, "{}", member.name);
        // Nothing at all, too much and too deep end the stream.
        for bad in
            ["{}", &format!("{{\"a\":\"{}\"}}", "x".repeat(5_000)), &format!("{}1{}", "[".repeat(40), "]".repeat(40))]
        {
            assert!(runtime.block_on(handed(member, bad)).is_err(), "{}", member.name);
        }
        assert!(held(member).is_empty(), "{}", member.name);
        let wish = member.tell("/api/v1/revocations", early.text());
        assert_eq!(wish.code, 400, "{}", wish.body);
        assert!(Verified::<Revoke>::open(good.text(), jiff::Timestamp::now()).is_ok());
    }
}
