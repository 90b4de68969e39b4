//! A member is lost with its disk, and comes back from its backup as the same one.

use std::{fs, path::Path};

use actors::view::ResourceView;
use nix::sys::signal::Signal;

use crate::harness::{Federation, Member, PATIENCE, Spec, muster, shown_mode, snapshot, until, until_true};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn backup(member: &Member, to: &Path) -> crate::harness::Ended {
    muster(&["--config", text(&member.config()), "--output", "json", "backup", "--to", text(to)])
}

/// The newest sequence of a member's record that another one finds.
fn seq(asker: &Member, of: &Member) -> Option<u64> {
    asker.records(&of.did).first().map(|record| record.seq)
}

fn put(member: &Member, id: &str) {
    let file = member.dir.join(format!("{id}.json"));
    fs::write(&file, format!(r#"{{"id":"{id}","kind":"compute","name":"{id}","access":"public"}}"#)).unwrap();
    muster(&["--config", text(&member.config()), "resource", "put", text(&file)]).ok();
    fs::remove_file(file).unwrap();
}

fn holds(member: &Member, creator: &str, id: &str) -> bool {
    member.try_get::<ResourceView>(&format!("/api/v1/resources/{creator}/{id}")).is_some()
}

fn befriend(one: &Member, other: &Member) {
    for (member, partner) in [(one, other), (other, one)] {
        muster(&["--config", text(&member.config()), "partner", "add", &partner.peer_id]).ok();
    }
}

#[test]
fn a_member_that_lost_its_disk_comes_back_from_a_backup_taken_while_it_ran() {
    let mut federation = Federation::converged(2, &["paris", "lyon"]);
    let kept = tempfile::tempdir().unwrap();
    let archive = kept.path().join("paris.tar");
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    let paris_id = paris.peer_id.clone();
    befriend(paris, lyon);
    put(paris, "mill");
    put(lyon, "disks");
    until_true("each holds what the other offers", PATIENCE, || {
        holds(lyon, &paris_id, "mill") && holds(paris, &lyon.peer_id, "disks")
    });

    let said = backup(paris, &archive).ok().json();
    assert_eq!(said["peer_id"], paris_id.as_str());
    assert_eq!(said["database"], "here");
    assert_eq!(shown_mode(&archive), "600");
    assert!(paris.status().ready, "it went on meanwhile");
    // What comes after a backup is lost with the disk, but for what others hold.
    put(paris, "later");
    until_true("lyon holds what was offered later", PATIENCE, || holds(lyon, &paris_id, "later"));
    let before = until("lyon finds paris", PATIENCE, || seq(lyon, paris));

    federation.member_mut("paris").kill();
    let home = federation.member("paris").dir.clone();
    fs::remove_dir_all(&home).unwrap();
    let restored = muster(&["--output", "json", "restore", "--from", text(&archive), "--dir", text(&home)]).ok().json();
    assert_eq!(restored["peer_id"], paris_id.as_str());
    assert_eq!(shown_mode(&home), "700");
    for file in ["muster.toml", "identity.pem", "swarm.key", "data/muster.db"] {
        assert_eq!(shown_mode(&home.join(file)), "600", "{file}");
    }
    federation.member_mut("paris").start();
    let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
    paris.until_whole();
    assert_eq!(paris.status().peer_id.to_string(), paris_id);
    assert!(holds(paris, &paris_id, "mill") && holds(paris, &lyon.peer_id, "disks"), "its catalogue is there");
    assert!(!home.join("data/restored").exists(), "its sequence has leapt");
    // Its clock is right, so the leap of a day is all that tells.
    until_true("its record is taken, far above the last one of before", PATIENCE, || {
        seq(lyon, paris).is_some_and(|now| now > before + 23 * 3_600 * 1_000)
    });
    put(paris, "again");
    until_true("it is still lyon's partner", PATIENCE, || holds(lyon, &paris_id, "again"));
}

#[test]
fn p5_a_second_restore_from_the_same_backup_goes_further_still() {
    let mut federation = Federation::converged(1, &["paris", "lyon"]);
    let kept = tempfile::tempdir().unwrap();
    let archive = kept.path().join("paris.tar");
    backup(federation.member("paris"), &archive).ok();
    let mut before = until("lyon finds paris", PATIENCE, || seq(federation.member("lyon"), federation.member("paris")));
    for _ in 0..2 {
        federation.member_mut("paris").kill();
        let home = federation.member("paris").dir.clone();
        fs::remove_dir_all(&home).unwrap();
        muster(&["restore", "--from", text(&archive), "--dir", text(&home)]).ok();
        federation.member_mut("paris").start();
        let (paris, lyon) = (federation.member("paris"), federation.member("lyon"));
        paris.until_whole();
        before = until("lyon finds the new one", PATIENCE, || seq(lyon, paris).filter(|now| *now > before));
    }
}

#[test]
fn a_backup_of_a_stopped_member_changes_nothing_and_moves_its_files_inside() {
    let mut federation = Federation::new();
    federation.add(Spec::indexer("desk-1")).start();
    federation.member("desk-1").until_listening();
    assert!(federation.member_mut("desk-1").end_politely().success());
    let desk = federation.member("desk-1");
    let elsewhere = tempfile::tempdir().unwrap();
    let (key, data) = (elsewhere.path().join("own.pem"), elsewhere.path().join("state"));
    fs::rename(desk.dir.join("identity.pem"), &key).unwrap();
    fs::rename(desk.dir.join("data"), &data).unwrap();
    desk.set("files.key", &format!("\"{}\"", text(&key)));
    desk.set("files.data", &format!("\"{}\"", text(&data)));

    let archive = elsewhere.path().join("desk.tar");
    let before = snapshot(&data);
    backup(desk, &archive).ok();
    let mut after = snapshot(&data);
    // The lock names its last holder, which was the backup.
    after.insert(data.join("lock"), before[&data.join("lock")].clone());
    assert_eq!(after, before);

    let home = elsewhere.path().join("new");
    let said = muster(&["restore", "--from", text(&archive), "--dir", text(&home)]).ok();
    assert!(said.out.contains("next: muster run --config"), "{}", said.out);
    for file in ["own.pem", "state/muster.db", "muster.toml"] {
        assert!(home.join(file).is_file(), "{file}");
    }
    let id = muster(&["--config", text(&home.join("muster.toml")), "config", "check"]).ok();
    assert!(id.err.is_empty(), "{id:?}");
    let settings = fs::read_to_string(home.join("muster.toml")).unwrap();
    assert!(settings.contains("key = \"own.pem\"") && !settings.contains(text(elsewhere.path())), "{settings}");
    assert_eq!(shown_mode(&home.join("muster.toml")), "600");
}

#[test]
fn nothing_is_overwritten_and_what_others_can_read_is_not_trusted() {
    let mut federation = Federation::new();
    federation.add(Spec::node("paris"));
    let paris = federation.member("paris");
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("paris.tar");
    let made = backup(paris, &archive).ok().json();
    assert_eq!(made["database"], "none", "it has never run");
    assert_eq!(backup(paris, &archive).code, Some(8), "never over another file");

    let restore = |from: &Path, dir: &Path| muster(&["restore", "--from", text(from), "--dir", text(dir)]);
    let before = snapshot(&paris.dir);
    let refused = restore(&archive, &paris.dir);
    assert_eq!(refused.code, Some(8), "{refused:?}");
    assert_eq!(snapshot(&paris.dir), before);

    let open = folder.path().join("open.tar");
    fs::copy(&archive, &open).unwrap();
    std::process::Command::new("chmod").arg("644").arg(&open).status().unwrap();
    let home = folder.path().join("home");
    assert_eq!(restore(&open, &home).code, Some(78));
    assert_eq!(restore(&folder.path().join("none.tar"), &home).code, Some(4));

    // One byte of the identity in it: the hash is another.
    let mut bytes = fs::read(&archive).unwrap();
    let at = bytes.windows(11).position(|window| window == b"PRIVATE KEY").unwrap();
    bytes[at + 30] ^= 1;
    let damaged = folder.path().join("damaged.tar");
    crate::harness::private_file(&damaged, &bytes);
    let refused = restore(&damaged, &home);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.err.contains("identity.pem is damaged"), "{}", refused.err);
    assert!(!home.exists(), "nothing is left of it");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    restore(&archive, &home).ok();
}

#[test]
fn a_backup_is_made_while_the_member_is_killed_and_is_whole() {
    let mut federation = Federation::converged(1, &["paris"]);
    let kept = tempfile::tempdir().unwrap();
    federation.member("paris").signal(Signal::SIGKILL);
    federation.member_mut("paris").kill();
    let paris = federation.member("paris");
    // Its log was not folded in: the copy has it all the same.
    let archive = kept.path().join("paris.tar");
    let said = backup(paris, &archive).ok().json();
    assert!(said["seq"].as_u64().is_some_and(|seq| seq > 0), "{said}");
}
