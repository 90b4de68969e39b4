#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

fn manifest() -> Manifest {
    Manifest::new("paris".into(), "12D3".into(), "did:key:z".into(), Timestamp::UNIX_EPOCH, "muster.toml".into())
}

fn bytes(text: &str) -> Source {
    Source::Bytes(Zeroizing::new(text.as_bytes().to_vec()))
}

/// An archive of these files in a new folder.
fn packed(files: &[(String, Source)]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup.tar");
    pack(&mut File::create_new(&path).unwrap(), manifest(), files).unwrap();
    (folder, path)
}

fn usual() -> Vec<(String, Source)> {
    vec![
        ("muster.toml".to_owned(), bytes("[node]\n")),
        ("data/muster.db".to_owned(), bytes(&"a page of it ".repeat(1_000))),
    ]
}

fn unpacked(archive: &Path) -> Result<(TempDir, Manifest), ArchiveError> {
    let folder = tempfile::tempdir().unwrap();
    let manifest = unpack(File::open(archive).unwrap(), folder.path())?;
    Ok((folder, manifest))
}

/// An archive with this manifest, made by hand, and one file.
fn forged(change: impl FnOnce(&mut serde_json::Value), name: &str, kind: tar::EntryType) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup.tar");
    let (_, sha256) = measured(&b"mine"[..], &mut io::sink()).unwrap();
    let mut said = serde_json::to_value(manifest()).unwrap();
    said["files"] = serde_json::json!([{ "name": "muster.toml", "bytes": 4, "sha256": sha256 }]);
    change(&mut said);
    let mut archive = tar::Builder::new(File::create_new(&path).unwrap());
    for (name, content, kind) in
        [(MANIFEST, said.to_string().into_bytes(), tar::EntryType::Regular), (name, b"mine".to_vec(), kind)]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_entry_type(kind);
        // Written past the crate's own checks, as somebody would who means harm.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, content.as_slice()).unwrap();
    }
    archive.finish().unwrap();
    (folder, path)
}

#[test]
fn what_was_packed_is_unpacked_for_us_alone() {
    let (_kept, archive) = packed(&usual());
    let (folder, manifest) = unpacked(&archive).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("muster.toml")).unwrap(), "[node]\n");
    let database = folder.path().join("data/muster.db");
    assert_eq!(fs::metadata(&database).unwrap().len(), 13_000);
    assert_eq!(fs::metadata(&database).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(folder.path().join("data")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(manifest.files.len(), 2);
    assert_eq!((manifest.name.as_str(), manifest.muster.as_str()), ("paris", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let (_kept, archive) = packed(&usual());
    let whole = fs::read(&archive).unwrap();
    // Headers and contents; what fills the last block of a file means nothing.
    let end = whole.len() - 1_024;
    for at in (0..end).step_by(487) {
        let mut broken = whole.clone();
        broken[at] ^= 1;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.tar");
        fs::write(&path, &broken).unwrap();
        if let Ok((unpacked, _)) = unpacked(&path) {
            let content = |name: &str| fs::read(unpacked.path().join(name)).unwrap();
            assert_eq!(content("muster.toml"), b"[node]\n", "bit at {at}");
            assert_eq!(content("data/muster.db").len(), 13_000, "bit at {at}");
        }
    }
}

#[test]
fn what_is_cut_short_is_refused_at_every_length() {
    let (_kept, archive) = packed(&usual());
    let whole = fs::read(&archive).unwrap();
    // The two blocks at the end say nothing but that it is the end.
    for length in (0..whole.len() - 1_024).step_by(509) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.tar");
        fs::write(&path, &whole[..length]).unwrap();
        assert!(unpacked(&path).is_err(), "cut at {length}");
    }
}

#[test]
fn nothing_is_unpacked_outside_of_the_folder() {
    for name in ["../muster.toml", "/etc/passwd", "data/../../x", "./muster.toml", "data//x", "data/", "", MANIFEST] {
        let name = name.to_owned();
        let (_kept, archive) =
            forged(|said| said["files"][0]["name"] = name.clone().into(), &name, tar::EntryType::Regular);
        assert!(matches!(unpacked(&archive), Err(ArchiveError::BadManifest { .. })), "{name}");
    }
    let (_kept, archive) = forged(|_| {}, "../muster.toml", tar::EntryType::Regular);
    assert!(matches!(unpacked(&archive), Err(ArchiveError::Damaged { .. })));
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Directory, tar::EntryType::GNULongName]
    {
        let (_kept, archive) = forged(|_| {}, "muster.toml", kind);
        assert!(matches!(unpacked(&archive), Err(ArchiveError::Damaged { .. })), "{kind:?}");
    }
}

#[test]
fn another_format_and_another_program_are_told_apart() {
    let (_kept, archive) = forged(|said| said["format"] = 2.into(), "muster.toml", tar::EntryType::Regular);
    assert!(matches!(unpacked(&archive), Err(ArchiveError::Newer { got: 2 })));
    let (_kept, archive) = forged(|said| said["more"] = 2.into(), "muster.toml", tar::EntryType::Regular);
    assert!(matches!(unpacked(&archive), Err(ArchiveError::BadManifest { .. })));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    for content in [&b""[..], b"mine", &[0; 4_096]] {
        fs::write(&path, content).unwrap();
        assert!(matches!(unpacked(&path), Err(ArchiveError::Foreign { .. })), "{content:?}");
    }
}

#[test]
fn as_many_files_as_a_member_has_and_not_one_more() {
    for (count, is_good) in [(FILES_MAX, true), (FILES_MAX + 1, false)] {
        let mut files = vec![("muster.toml".to_owned(), bytes("x"))];
        files.extend((1..count).map(|n| (format!("file-{n}"), bytes("x"))));
        let packed = pack(&mut tempfile::tempfile().unwrap(), manifest(), &files);
        assert_eq!(packed.is_ok(), is_good, "{count}");
    }
    for (length, is_good) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
        assert_eq!(is_inside(&"n".repeat(length)), is_good, "{length}");
    }
    assert!(is_inside("data/keys/identity.pem"));
}

#[test]
fn the_time_of_the_backup_is_kept_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(restored(folder.path()).unwrap(), None);
    let taken_at: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    note_restored(folder.path(), taken_at).unwrap();
    assert_eq!(restored(folder.path()).unwrap(), Some(taken_at));
    forget_restored(folder.path()).unwrap();
    assert_eq!(restored(folder.path()).unwrap(), None);
    fs::write(folder.path().join(RESTORED), "yesterday").unwrap();
    assert_eq!(restored(folder.path()).unwrap_err().exit, Exit::Configuration);
}
