//! One actor of a real process is restarted by hand, by a verb.

use actors::view::{ActorState, ActorView};

use crate::harness::{Federation, PATIENCE, Spec, muster, until_true};

#[test]
fn an_actor_is_restarted_by_a_verb_as_often_as_its_supervisor_would() {
    const VICTIM: &str = "root/peers";
    let mut federation = Federation::new();
    let budget = Spec::indexer("indexer-1").set("supervision.restarts_max", "1");
    federation.add(budget.set("supervision.restarts_within", "\"1h\"")).start();
    let member = federation.member("indexer-1");
    until_true("its tree stands", PATIENCE, || {
        member
            .try_get::<Vec<ActorView>>("/api/v1/actors")
            .is_some_and(|actors| actors.iter().any(|actor| actor.name == VICTIM && actor.state == ActorState::Running))
    });
    let config = member.config();
    let by_hand = |args: &[&str]| muster(&[&["--config", config.to_str().unwrap(), "restart"], args].concat());

    let stranger = member.verb(&["restart", VICTIM]);
    assert_eq!(stranger.code, Some(5), "it takes the token: {stranger:?}");
    for slip in ["peers", "root/pears"] {
        let unknown = by_hand(&[slip]);
        assert_eq!(unknown.code, Some(4), "{unknown:?}");
        assert!(unknown.err.contains("did you mean root/peers?"), "{unknown:?}");
    }
    assert!(member.actors().iter().all(|actor| actor.restarts == 0), "nobody was restarted so far");

    let restarted = by_hand(&[VICTIM, "--output", "json"]).ok().json();
    assert_eq!((&restarted["name"], &restarted["state"]), (&VICTIM.into(), &"running".into()), "{restarted}");
    assert_eq!((&restarted["restarts"], &restarted["incarnation"]), (&1.into(), &2.into()), "{restarted}");
    assert!(restarted["last_error"].as_str().is_some_and(|error| error.contains("by hand")), "{restarted}");
    let counted: Vec<(String, u64)> = member
        .actors()
        .into_iter()
        .filter(|actor| actor.restarts > 0)
        .map(|actor| (actor.name, actor.restarts))
        .collect();
    assert_eq!(counted, [(VICTIM.to_owned(), 1)], "it alone");

    let spent = by_hand(&[VICTIM]);
    assert_eq!(spent.code, Some(8), "{spent:?}");
    assert!(spent.err.contains("restarted too often") && spent.err.contains("wait"), "{spent:?}");
    let root = by_hand(&["root"]);
    assert_eq!(root.code, Some(8), "{root:?}");

    let said = by_hand(&["root/gc"]).ok().out;
    assert_eq!(said.trim(), "root/gc runs in life 2 (1 restart in all)");
}
