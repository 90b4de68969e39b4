#![allow(clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::*;
use crate::{
    handle::{Fault, Handle},
    testing::{INDEXER, Member, until},
};

/// Longer than every step of an exchange together.
const WITHIN: Duration = Duration::from_secs(60);

/// A file that counts how often it was written and taken back.
#[derive(Default)]
struct File {
    is_full: bool,
    kept: AtomicU32,
    restored: AtomicU32,
}

impl Outside for File {
    fn keep(&self) -> Result<(), String> {
        self.kept.fetch_add(1, Ordering::SeqCst);
        if self.is_full { Err("the disk is full".to_owned()) } else { Ok(()) }
    }

    fn restore(&self) -> Result<(), String> {
        self.restored.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A file during whose writing a watcher that took the settings is struck.
struct Struck {
    handle: Handle,
    actor: &'static str,
    fault: Fault,
    file: File,
}

impl Outside for Struck {
    fn keep(&self) -> Result<(), String> {
        self.handle.inject(self.actor, self.fault).map_err(|cause| cause.to_string())?;
        self.file.keep()
    }

    fn restore(&self) -> Result<(), String> {
        self.file.restore()
    }
}

impl File {
    fn counts(&self) -> (u32, u32) {
        (self.kept.load(Ordering::SeqCst), self.restored.load(Ordering::SeqCst))
    }
}

/// New settings: other figures for every watcher.
fn new(before: &Settings) -> Settings {
    let mut new = before.clone();
    new.pool.max_indexer = 7;
    new.alerts.peers_min = 9;
    new.alerts.every = Duration::from_secs(1);
    new.score.judgements = 9;
    new.search.idle = Duration::from_secs(9);
    new.behaviour.gets = 9;
    new
}

async fn offer(member: &Member, settings: Settings, file: &Arc<impl Outside>) -> Result<(), Refusal> {
    let change = Box::new(Change { settings, what: "pool.max_indexer".to_owned(), outside: file.clone() });
    let address = &member.context().addresses.config;
    address.ask(Class::Control, |reply| Msg::Change { change, reply }, WITHIN).await.unwrap()
}

fn kinds(events: &[crate::view::EventView]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).filter(|kind| kind.starts_with("settings_")).collect()
}

#[tokio::test]
async fn a_change_that_all_take_is_kept_and_gone_by() {
    let member = Member::start(1, INDEXER, &[]).await;
    let (before, file) = (member.context().live(), Arc::new(File::default()));
    offer(&member, new(&before), &file).await.unwrap();
    assert_eq!(*member.context().live(), new(&before));
    assert_eq!(file.counts(), (1, 0));
    assert_eq!(member.handle().status().await.unwrap().pool_max, 7);
    // The alerts look every second now, and nobody is connected.
    let raised = until("the new bound is judged by", async || {
        let raised = member.handle().alerts().await.ok()?;
        raised.into_iter().find(|alert| alert.topic == protocol::alerts::Topic::Peers)
    });
    assert!((raised.await.bound - 9.0).abs() < f64::EPSILON);
    assert_eq!(kinds(&member.handle().events(0).await.unwrap()), ["settings_changed"]);
}

#[tokio::test]
async fn one_that_does_not_answer_leaves_file_values_and_watchers_as_before() {
    let member = Member::start(2, INDEXER, &[]).await;
    let (before, file) = (member.context().live(), Arc::new(File::default()));
    for (actor, fault) in [("root/alerts", Fault::Stall(Duration::from_secs(3))), ("root/node/pool", Fault::Panic)] {
        member.handle().inject(actor, fault).unwrap();
        let refusal = offer(&member, new(&before), &file).await.unwrap_err();
        assert_eq!(refusal.by, actor, "{refusal}");
        assert_eq!(*member.context().live(), *before);
        assert_eq!(file.counts(), (0, 0), "nothing was written");
    }
    assert_eq!(member.handle().status().await.unwrap().pool_max, before.pool.max_indexer);
    assert_eq!(kinds(&member.handle().events(0).await.unwrap()), ["settings_refused", "settings_refused"]);
    // Once all are well it is taken.
    until("it is taken", async || offer(&member, new(&before), &file).await.ok()).await;
    assert_eq!(*member.context().live(), new(&before));
}

#[tokio::test]
async fn a_watcher_that_says_no_is_named_with_its_reason() {
    let member = Member::start(3, INDEXER, &[]).await;
    let (before, file) = (member.context().live(), Arc::new(File::default()));
    let peer = protocol::identity::Keys::from_seed([9; 32]).peer_id();
    let observation = protocol::score::Observation::Recorded { good: true };
    member.context().addresses.score.tell(Class::Control, score::Msg::Observed { peer, observation }).unwrap();
    let mut settings = new(&before);
    settings.score.indexers_max = 0;
    let refusal = offer(&member, settings, &file).await.unwrap_err();
    assert_eq!(refusal.to_string(), "root/score refused: score.indexers_max is 0, and 1 indexers are known");
    assert_eq!((*member.context().live() == *before, file.counts()), (true, (0, 0)));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_taken_back_and_nobody_goes_by_it() {
    let member = Member::start(4, INDEXER, &[]).await;
    let (before, file) = (member.context().live(), Arc::new(File { is_full: true, ..File::default() }));
    let refusal = offer(&member, new(&before), &file).await.unwrap_err();
    assert_eq!(refusal.to_string(), "the file refused: the disk is full");
    assert_eq!((*member.context().live() == *before, file.counts()), (true, (1, 1)));
}

#[tokio::test]
async fn one_that_fails_when_the_file_is_written_has_file_values_and_watchers_go_back() {
    let member = Member::start(6, INDEXER, &[]).await;
    let mut before = (*member.context().live()).clone();
    before.alerts.every = Duration::from_secs(1);
    before.alerts.peers_min = 4;
    offer(&member, before.clone(), &Arc::new(File::default())).await.unwrap();
    let bound = async || {
        let raised = member.handle().alerts().await.ok()?;
        raised.into_iter().find(|alert| alert.topic == protocol::alerts::Topic::Peers).map(|alert| alert.bound)
    };
    until("alerts judge", bound).await;
    for (actor, fault) in [("root/alerts", Fault::Stall(Duration::from_secs(3))), ("root/node/pool", Fault::Panic)] {
        let file = Arc::new(Struck { handle: member.handle().clone(), actor, fault, file: File::default() });
        let refusal = offer(&member, new(&before), &file).await.unwrap_err();
        // One that died is silent, or away already, by what else it was told.
        assert_eq!(refusal.by, actor, "{refusal}");
        assert_eq!(refusal.unsure, Vec::<String>::new(), "all of them went back");
        assert_eq!((*member.context().live() == before, file.file.counts()), (true, (1, 1)));
    }
    assert_eq!(member.handle().status().await.unwrap().pool_max, before.pool.max_indexer);
    assert!((bound().await.unwrap() - 4.0).abs() < f64::EPSILON, "the alerts took the new bound and gave it back");
}

#[tokio::test]
async fn a_change_that_dies_with_its_actor_leaves_nobody_half_way() {
    let member = Member::start(5, INDEXER, &[]).await;
    let before = member.context().live();
    let change = async |outside: Arc<dyn Outside>| {
        let change = Box::new(Change { settings: new(&before), what: String::new(), outside });
        let address = &member.context().addresses.config;
        address.ask(Class::Control, |reply| Msg::Change { change, reply }, WITHIN).await
    };
    let file = Arc::new(File::default());
    member.handle().inject("root/config", Fault::Panic).unwrap();
    assert!(change(file.clone()).await.is_err(), "it dies of the question");
    assert_eq!((*member.context().live() == *before, file.counts()), (true, (0, 0)));
    let struck =
        || Struck { handle: member.handle().clone(), actor: "root/config", fault: Fault::Panic, file: File::default() };
    // It is away for a moment; then it dies when every watcher said yes and the file is written.
    let written = async || {
        let struck = Arc::new(struck());
        let outcome = change(struck.clone()).await;
        assert!(outcome.is_err());
        (struck.file.counts() == (1, 0)).then_some(())
    };
    until("it dies of the file, which whoever asked takes back", written).await;
    assert!(*member.context().live() == *before);
    let taken = async || change(file.clone()).await.ok()?.ok();
    until("its next life takes changes", taken).await;
    assert_eq!((*member.context().live() == new(&before), file.counts()), (true, (1, 0)));
}

/// What a watcher answers to a turn, and what it goes by then.
fn take(offered: &mut Offered, number: u64, told: Told) -> (Result<(), String>, Option<Arc<Settings>>) {
    let (reply, mut answer) = Reply::channel();
    let fits = |new: &Settings| if new.light() { Err("too light".to_owned()) } else { Ok(()) };
    let taken = offered.take(Turn { number, told, reply }, fits);
    (answer.try_recv().unwrap(), taken)
}

impl Settings {
    fn light(&self) -> bool {
        self.node.light
    }
}

#[test]
fn a_watcher_goes_only_by_what_it_was_asked_about() {
    let settings = Arc::new(Settings::default());
    let light =
        Arc::new(Settings { node: crate::settings::Node { light: true, ..Default::default() }, ..Settings::default() });
    let mut offered = Offered::default();
    assert!(take(&mut offered, 1, Told::Commit).0.is_err(), "it was never asked");
    assert_eq!(take(&mut offered, 1, Told::Prepare(settings.clone())), (Ok(()), None));
    assert!(take(&mut offered, 2, Told::Commit).0.is_err(), "that is another change");
    assert_eq!(take(&mut offered, 1, Told::Commit), (Ok(()), Some(settings.clone())));
    assert!(take(&mut offered, 1, Told::Commit).0.is_err(), "once is enough");
    assert_eq!(take(&mut offered, 3, Told::Prepare(light)), (Err("too light".to_owned()), None));
    assert!(take(&mut offered, 3, Told::Commit).0.is_err(), "it said no");
    assert_eq!(take(&mut offered, 4, Told::Prepare(settings.clone())), (Ok(()), None));
    assert_eq!(take(&mut offered, 4, Told::Back(settings.clone())), (Ok(()), Some(settings)));
    assert!(take(&mut offered, 4, Told::Commit).0.is_err(), "it went back");
}
