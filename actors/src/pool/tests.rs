//! A pool among stand-ins: a store that lets its first questions die with it.

#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use protocol::identity::Keys;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::*;
use crate::{
    root,
    settings::Settings,
    supervision::ChildSpec,
    testing::{NODE, start_of, until},
};

/// Counts how often it is asked whom it remembers, and answers not before the third time.
struct Forgetful(Arc<AtomicU32>);

impl Actor for Forgetful {
    type Msg = Envelope<store::Msg>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, envelope: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if let store::Msg::Members { reply } = envelope.open()
            && self.0.fetch_add(1, Ordering::SeqCst) >= 2
        {
            reply.send(Vec::new());
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_hears_of_others_before_it_began_still_asks_again_for_what_it_begins_with() {
    let folder = tempfile::tempdir().unwrap();
    let start = start_of(&folder, &Keys::from_seed([1; 32]), NODE, Settings::default(), 1).await;
    let asked = Arc::new(AtomicU32::new(0));
    let by_store = Arc::clone(&asked);
    let running = root::start_with(start, |context| {
        let of_pool = context.clone();
        vec![
            ChildSpec::new(&context.addresses.store, Forgetful(by_store), |_| ()),
            ChildSpec::new(&context.addresses.pool, Pool, move |seat| Args { seat, context: of_pool.clone() }),
        ]
    });
    let running = running.await.unwrap_or_else(|failure| panic!("it does not start: {failure:?}"));
    let pool = &running.context().addresses.pool;
    // Scores keep coming, sooner than it would ask again: each sets the machine's own clock.
    let has_asked = async || {
        pool.tell(Class::Control, Msg::Scores(Vec::new())).unwrap();
        (asked.load(Ordering::SeqCst) >= 3).then_some(())
    };
    until("it asks again and again", has_asked).await;
    drop(running);
}
