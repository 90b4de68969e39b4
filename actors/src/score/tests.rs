//! A score among stand-ins: a store whose database is away at first, and a pool that notes what it would have written down.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use protocol::{identity::Keys, score::Hold, time::Mono};

use super::*;
use crate::{
    root,
    supervision::ChildSpec,
    testing::{NODE, PATIENCE, StandIn, start_of, until},
};

/// What the disk holds, and what would be written over it.
#[derive(Default)]
struct Mind {
    asked: u32,
    /// Nothing while the database is away.
    rows: Option<Vec<MemberRow>>,
    told: Vec<pool::Scored>,
}

/// The row of an indexer of which this was seen.
fn kept(peer: PeerId, observation: &Observation) -> MemberRow {
    let mut book = Book::default();
    book.observe(peer, observation, Mono::ZERO);
    let row = book.rows(Now { mono: Mono::ZERO, wall: Timestamp::now() }).remove(0);
    MemberRow {
        peer,
        addresses: Vec::new(),
        is_seed: true,
        score: Some(0.0),
        evidence: serde_json::to_string(&row).unwrap(),
        last_answer: None,
        standing: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_that_was_kept_is_not_overwritten_by_a_life_that_began_without_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.score.judge_every = Duration::from_millis(100);
    let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, settings, 1).await;
    let seed = Keys::from_seed([2; 32]).peer_id();
    let mind = Arc::new(Mutex::new(Mind::default()));
    let store = StandIn {
        mind: Arc::clone(&mind),
        hear: |msg, mind: &mut Mind| {
            if let store::Msg::Members { reply } = msg {
                mind.asked += 1;
                // The first question dies with its store.
                if mind.asked > 1 {
                    reply.send(mind.rows.clone());
                }
            }
        },
    };
    let pool = StandIn {
        mind: Arc::clone(&mind),
        hear: |msg, mind: &mut Mind| {
            if let pool::Msg::Scores(scores) = msg {
                mind.told.extend(scores);
            }
        },
    };
    let running = root::start_with(start, |context| {
        let of_score = context.clone();
        vec![
            ChildSpec::new(&context.addresses.store, store, |_| ()),
            ChildSpec::new(&context.addresses.pool, pool, |_| ()),
            ChildSpec::new(&context.addresses.score, Score, move |seat| Args { seat, context: of_score.clone() }),
        ]
    });
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let score = &running.context().addresses.score;
    let tell = |msg| score.tell(Class::Control, msg).unwrap();
    tell(Msg::Members(vec![Judged { peer: seed, hold: Hold::Seed, carries: true }]));
    let answered = Observation::Answered {
        rtt: Duration::from_millis(20),
        fill_rate: 0.5,
        peer_count: 5,
        max_nodes: 10,
        born_at: Timestamp::UNIX_EPOCH,
    };
    tell(Msg::Observed { peer: seed, observation: answered });
    let judged = async || {
        let history = |reply| Msg::History { peer: None, since: Timestamp::UNIX_EPOCH, reply };
        let curves = score.ask(Class::Control, history, PATIENCE).await.unwrap();
        (curves.first()?.samples.len() > 1).then_some(())
    };
    until("it judges without what was kept", judged).await;
    until("it asks again and again", async || (mind.lock().unwrap().asked > 2).then_some(())).await;

    mind.lock().unwrap().rows = Some(vec![kept(seed, &Observation::Exposed)]);
    let told = async |more: usize| {
        let told = mind.lock().unwrap().told.clone();
        (told.len() > more).then_some(told)
    };
    let first = until("it tells scores", async || told(0).await).await.len();
    // Another answer may have been on its way.
    tell(Msg::Restored(Some(vec![kept(seed, &Observation::Cleared)])));
    for scored in until("it tells more of them", async || told(first + 1).await).await {
        let facts = serde_json::from_str::<Row>(&scored.evidence).unwrap().facts;
        assert_eq!((scored.peer, scored.value, facts.suspicions.is_caught()), (seed, 0.0, true), "{facts:?}");
        assert!(facts.round_trips.is_some(), "what was seen meanwhile counts, too");
    }
    drop(running);
}
