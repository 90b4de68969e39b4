//! An auditor beside stand-ins for those whom it tells whom not to suggest.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use protocol::{identity::Keys, presence::audit::STEP_MAX};

use super::*;
use crate::{
    handle::Fault,
    root,
    settings::Settings,
    supervision::ChildSpec,
    testing::{INDEXER, StandIn, start_of, until},
};

/// Who is exposed, as each was told last.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    registry: Option<Vec<PeerId>>,
    suggestions: Option<Vec<PeerId>>,
}

async fn is_told(what: &str, told: &Mutex<Told>, exposed: &[PeerId]) {
    let expected = Told { registry: Some(exposed.to_vec()), suggestions: Some(exposed.to_vec()) };
    until(what, async || (*told.lock().unwrap() == expected).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_stays_exposed_for_what_a_former_life_found() {
    let folder = tempfile::tempdir().unwrap();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), INDEXER, Settings::default(), 1).await;
    let told = Arc::new(Mutex::new(Told::default()));
    let of_children = Arc::clone(&told);
    let running = root::start_with(start, |context| {
        let to = &context.addresses;
        let registry = StandIn {
            mind: Arc::clone(&of_children),
            hear: |msg, told: &mut Told| {
                if let registry::Msg::IndexersExposed(peers) = msg {
                    told.registry = Some(peers);
                }
            },
        };
        let suggestions = StandIn {
            mind: Arc::clone(&of_children),
            hear: |msg, told: &mut Told| {
                if let suggestions::Msg::Exposed(peers) = msg {
                    told.suggestions = Some(peers);
                }
            },
        };
        let own = context.clone();
        vec![
            ChildSpec::new(&to.registry, registry, |_| ()),
            ChildSpec::new(&to.suggestions, suggestions, |_| ()),
            ChildSpec::new(&to.auditor, Auditor, move |seat| Args { seat, context: own.clone() }),
        ]
    });
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let auditor = &running.context().addresses.auditor;
    is_told("nobody is exposed at first", &told, &[]).await;
    let [one, other] = [2, 3].map(|seed| Keys::from_seed([seed; 32]).peer_id());
    let short = Finding { claimed: 100, shown: Some(10), estimate: 10.0, step: STEP_MAX };
    let whole = Finding { claimed: 100, shown: Some(SAMPLE), estimate: 100.0, step: -STEP_MAX };
    let audited = |peer, finding| {
        for _ in 0..3 {
            auditor.tell(Class::Own, Msg::Audited { peer, finding: Some(finding) }).unwrap();
        }
    };
    audited(one, short);
    audited(other, short);
    let mut both = [one, other];
    both.sort_unstable();
    is_told("both are exposed", &told, &both).await;
    audited(other, whole);
    is_told("one of them was cleared", &told, &[one]).await;
    running.handle().inject(auditor.path().as_str(), Fault::Panic).unwrap();
    is_told("what is forgotten exposes nobody", &told, &[]).await;
}
