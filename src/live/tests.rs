#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::json;
use tempfile::TempDir;

use super::{
    testing::{When, Willing},
    *,
};
use crate::config::Flags;

const TEXT: &str = "# mine\n[pool]\nmax_indexer = 5 # enough\n";

struct Bed {
    _folder: TempDir,
    file: PathBuf,
    willing: Arc<Willing>,
    keeper: Keeper,
}

fn bed(text: &str, variables: &[(&str, &str)]) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("muster.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let config = config::load(&file, &variables, &Flags::default()).unwrap();
    let willing = Arc::new(Willing::default());
    let stamp = Stamp::of(&file);
    let keeper = Keeper { seen: stamp, taken: stamp, ..Keeper::of((config, false), Log::silent(), willing.clone()) };
    Bed { _folder: folder, file, willing, keeper }
}

fn wishes(wishes: Json) -> BTreeMap<String, Json> {
    serde_json::from_value(wishes).unwrap()
}

impl Bed {
    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    fn shown(&self, key: &str) -> Json {
        let shown = self.keeper.shown.borrow();
        serde_json::to_value(shown.iter().find(|shown| shown.in_force.key == key).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_change_is_gone_by_and_written_with_the_comments_that_were_there() {
    let mut bed = bed(TEXT, &[]);
    let changed = bed.keeper.change(&wishes(json!({ "pool.max_indexer": 7, "log.level": "debug" }))).await.unwrap();
    assert_eq!(changed.keys(), "pool.max_indexer, log.level");
    assert_eq!(changed.needs_restart, Vec::<String>::new());
    assert_eq!(bed.text(), "# mine\n[pool]\nmax_indexer = 7 # enough\n\n[log]\nlevel = \"debug\"\n");
    assert_eq!(bed.willing.taken.lock().unwrap()[0].pool.max_indexer, 7);
    assert_eq!(fs::metadata(&bed.file).unwrap().permissions().mode() & 0o777, 0o600, "it is still ours alone");
    assert_eq!(bed.shown("pool.max_indexer")["value"], 7);
    // What we wrote ourselves is no news.
    bed.keeper.look().await;
    bed.keeper.look().await;
    assert_eq!(bed.willing.taken.lock().unwrap().len(), 1);
    let back = bed.keeper.change(&wishes(json!({ "pool.max_indexer": null }))).await.unwrap();
    assert_eq!((back.changed[0].from.clone(), back.changed[0].to.clone()), (json!(7), json!(5)));
}

#[tokio::test]
async fn what_needs_a_restart_is_written_said_and_not_gone_by() {
    let mut bed = bed(TEXT, &[]);
    let wish = wishes(json!({ "network.port": 4999, "alerts.peers_min": 1, "bus.password": "geheim" }));
    let changed = bed.keeper.change(&wish).await.unwrap();
    assert_eq!(changed.needs_restart, ["network.port", "bus.password"]);
    assert!(!serde_json::to_string(&changed).unwrap().contains("geheim"));
    let taken = bed.willing.taken.lock().unwrap()[0].clone();
    assert_eq!((taken.alerts.peers_min, taken.network.listen[0].to_string()), (1, "/ip4/0.0.0.0/tcp/4001".to_owned()));
    let port = bed.shown("network.port");
    assert_eq!((&port["value"], &port["after_restart"], &port["live"]), (&json!(4001), &json!(4999), &json!(false)));
    let password = bed.shown("bus.password");
    assert_eq!((&password["value"], &password["after_restart"]), (&json!(""), &json!("***")));
    assert!(bed.shown("alerts.peers_min").get("after_restart").is_none());
}

#[tokio::test]
async fn a_change_that_is_refused_leaves_file_and_values_as_they_were() {
    for when in [When::Before, When::After] {
        let mut bed = bed(TEXT, &[]);
        *bed.willing.refuses.lock().unwrap() = Some(when);
        let cause = bed.keeper.change(&wishes(json!({ "pool.max_indexer": 7 }))).await.unwrap_err();
        assert_eq!(cause, NotChanged::Conflict("root/pool refused: no".to_owned()));
        assert_eq!((bed.text().as_str(), bed.shown("pool.max_indexer")["value"].clone()), (TEXT, json!(5)));
        assert_eq!(bed.keeper.in_force.pool.max_indexer, 5);
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_told_whole_and_never_offered() {
    let mut bed = bed(TEXT, &[]);
    let wrong = wishes(json!({ "pool.max_indexer": 0, "alerts.every": "1ms" }));
    let NotChanged::Wrong(why) = bed.keeper.change(&wrong).await.unwrap_err() else { panic!("it is wrong") };
    assert_eq!(why.len(), 2, "{why:?}");
    let unknown = bed.keeper.change(&wishes(json!({ "pool.max_indexr": 1 }))).await.unwrap_err();
    assert!(unknown.to_string().contains("did you mean pool.max_indexer?"), "{unknown}");
    let against = bed.keeper.change(&wishes(json!({ "pool.min_indexer": 6 }))).await.unwrap_err();
    assert!(against.to_string().contains("pool.max_indexer is less than pool.min_indexer"), "{against}");
    assert_eq!((bed.text().as_str(), bed.willing.taken.lock().unwrap().len()), (TEXT, 0));
}

#[tokio::test]
async fn what_goes_together_only_after_a_restart_is_refused() {
    let mut bed = bed(TEXT, &[]);
    let wish = wishes(json!({ "store.members_max": 100, "pool.remembered_max": 100 }));
    let cause = bed.keeper.change(&wish).await.unwrap_err();
    let words = "pool.remembered_max is more than store.members_max, until a restart brings the others along";
    assert_eq!(cause, NotChanged::Wrong(vec![words.to_owned()]));
    assert_eq!(bed.text(), TEXT);
}

#[tokio::test]
async fn what_a_variable_sets_is_not_changed_in_the_file() {
    let mut bed = bed(TEXT, &[("MUSTER_POOL__MAX_INDEXER", "9")]);
    let cause = bed.keeper.change(&wishes(json!({ "pool.max_indexer": 7 }))).await.unwrap_err();
    let words = "pool.max_indexer is set by the variable MUSTER_POOL__MAX_INDEXER, which is stronger than the file: change \
                 it there and start again";
    assert_eq!(cause, NotChanged::Conflict(words.to_owned()));
    assert_eq!(bed.text(), TEXT);
}

#[tokio::test]
async fn a_file_that_changed_is_taken_up_once_it_stays_the_same() {
    let mut bed = bed(TEXT, &[]);
    fs::write(&bed.file, "[pool]\nmax_indexer = 8\n").unwrap();
    bed.keeper.look().await;
    assert_eq!(bed.willing.taken.lock().unwrap().len(), 0, "somebody may still be writing");
    bed.keeper.look().await;
    assert_eq!(bed.keeper.in_force.pool.max_indexer, 8);
    bed.keeper.look().await;
    assert_eq!(bed.willing.taken.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_why_once() {
    let mut bed = bed(TEXT, &[]);
    fs::write(&bed.file, "[pool]\nmax_indexer = 700\n").unwrap();
    for _ in 0..4 {
        bed.keeper.look().await;
    }
    assert_eq!(bed.keeper.in_force.pool.max_indexer, 5);
    let told = bed.willing.unusable.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0].contains("got 700, expected a whole number from 1 to 100"), "{told:?}");
    fs::remove_file(&bed.file).unwrap();
    bed.keeper.reload("SIGHUP").await;
    assert_eq!(bed.willing.unusable.lock().unwrap().len(), 2);
    assert_eq!(bed.keeper.in_force.pool.max_indexer, 5);
}

#[tokio::test]
async fn a_file_that_somebody_else_changes_meanwhile_is_left_alone() {
    let bed = bed(TEXT, &[]);
    let taking = || Taking::new(Some((bed.file.clone(), TEXT.to_owned(), "new".to_owned())), None, Log::silent());
    let late = taking();
    late.keep().unwrap();
    assert_eq!(bed.text(), "new");
    fs::write(&bed.file, "theirs").unwrap();
    let words = "was changed by somebody else meanwhile";
    assert!(late.restore().unwrap_err().ends_with(words));
    let early = taking();
    assert!(early.keep().unwrap_err().ends_with(words));
    assert_eq!(early.restore(), Ok(()), "nothing was written that could be taken back");
    assert_eq!(bed.text(), "theirs");
}

#[tokio::test]
async fn what_was_taken_back_is_not_written_by_one_that_is_late() {
    let bed = bed(TEXT, &[]);
    let taking = Taking::new(Some((bed.file.clone(), TEXT.to_owned(), "new".to_owned())), None, Log::silent());
    assert_eq!(taking.restore(), Ok(()));
    assert_eq!(taking.keep(), Err("it was taken back meanwhile".to_owned()));
    assert_eq!(bed.text(), TEXT);
}

#[tokio::test]
async fn a_tree_that_says_nothing_is_told_what_is_in_force_until_it_takes_that() {
    let mut bed = bed(TEXT, &[]);
    *bed.willing.refuses.lock().unwrap() = Some(When::Silent);
    let cause = bed.keeper.change(&wishes(json!({ "pool.max_indexer": 7 }))).await.unwrap_err();
    assert_eq!(cause, NotChanged::Busy);
    assert_eq!((bed.text().as_str(), bed.shown("pool.max_indexer")["value"].clone()), (TEXT, json!(5)));
    bed.keeper.look().await;
    assert!(bed.willing.taken.lock().unwrap().is_empty());
    *bed.willing.refuses.lock().unwrap() = None;
    bed.keeper.look().await;
    bed.keeper.look().await;
    let taken: Vec<u32> = bed.willing.taken.lock().unwrap().iter().map(|taken| taken.pool.max_indexer).collect();
    assert_eq!(taken, [5], "once");
}

#[tokio::test]
async fn whoever_asks_what_is_in_force_does_not_wait_for_a_change() {
    let bed = bed(TEXT, &[]);
    let config = bed.keeper.started.clone();
    let live = Live::begin((&config, false), Log::silent(), bed.willing.clone(), None);
    let changed = live.change(wishes(json!({ "pool.max_indexer": 7 }))).await.unwrap();
    assert_eq!(changed.keys(), "pool.max_indexer");
    let shown = live.show().into_iter().find(|shown| shown.in_force.key == "pool.max_indexer").unwrap();
    assert_eq!(shown.in_force.value, json!(7));
}

#[tokio::test]
async fn more_changes_than_may_wait_are_refused() {
    let bed = bed(TEXT, &[]);
    let live = Live::begin((&bed.keeper.started, false), Log::silent(), bed.willing.clone(), None);
    // Nothing else runs on this thread until the first await: at the limit, and one past it.
    let mut waiting = (0..=ORDERS_MAX).map(|_| live.change(BTreeMap::new()).boxed()).collect::<Vec<_>>();
    let last = waiting.pop().unwrap();
    let waiting: Vec<_> = waiting.iter_mut().map(|change| change.now_or_never()).collect();
    assert!(waiting.iter().all(Option::is_none));
    assert_eq!(last.await, Err(NotChanged::Busy));
}

#[tokio::test]
async fn only_toml_is_changed_and_other_files_are_taken_up() {
    let mut bed = bed(TEXT, &[]);
    let json = bed.file.with_extension("json");
    fs::write(&json, r#"{"pool": {"max_indexer": 6}}"#).unwrap();
    bed.keeper.started.source.file = json;
    bed.keeper.reload("the file").await;
    assert_eq!(bed.keeper.in_force.pool.max_indexer, 6);
    let cause = bed.keeper.change(&wishes(json!({ "pool.max_indexer": 7 }))).await.unwrap_err();
    assert!(cause.to_string().contains("is no TOML file"), "{cause}");
}

/// Another value for a setting than the one that is built in.
fn other(key: &str, value: &Json) -> Json {
    match value {
        Json::Bool(truth) => json!(!truth),
        Json::Number(number) if number.is_u64() => json!(number.as_u64().unwrap() + 1),
        Json::Number(number) => json!(number.as_f64().unwrap() / 2.0),
        Json::String(_) if key == "log.level" => json!("warn"),
        Json::String(text) => {
            let span = protocol::time::text::read(text).unwrap();
            json!(protocol::time::text::write(span + span / 2))
        }
        other => other.clone(),
    }
}

#[tokio::test]
async fn every_setting_that_is_said_to_be_live_is_and_no_other() {
    let bed = bed("", &[]);
    for setting in &bed.keeper.file {
        let key = &setting.key;
        let is_simple = !matches!(setting.value, Json::Array(_) | Json::Object(_));
        if !setting.live || !is_simple {
            continue;
        }
        let wish = BTreeMap::from([(key.clone(), other(key, &setting.value))]);
        let text = config::edited("", &wish).unwrap();
        // Some do not go together with the others; that is another rule.
        let Ok(new) = bed.keeper.started.source.compose(&text) else { continue };
        let settings = bed.keeper.in_force.with_live(&new.settings);
        assert_ne!(settings, bed.keeper.in_force, "{key} is live");
        // What the tree takes over is the same.
        let [before, after] =
            [&bed.keeper.in_force, &settings].map(|settings| tree::settings_of(&bed.keeper.started, settings, false));
        assert_eq!(before.with_live(&after), after, "{key} reaches the actors");
        assert!(before != after || key == "log.level", "{key} reaches the actors");
    }
    let mut restart = bed.keeper.in_force.clone();
    restart.network.port = 5;
    restart.gate.max_nodes = 5;
    restart.behaviour.peers_max = 50_000;
    restart.heartbeat.every = Duration::from_secs(9);
    assert_eq!(bed.keeper.in_force.with_live(&restart), bed.keeper.in_force);
}
