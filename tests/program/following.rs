//! One machine writes, another follows (W5): two mounts of one bucket, through the kernel's caches.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::support::home::{Home, wait_until};
use crate::support::noise;

/// A home that writes at `vault`, and one that reads at its own `vault`.
fn two(options: &str, panics: &str) -> (Home, Home) {
    let home = || Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let (writer, reader) = (home(), home());
    let bucket = format!("file://{}", writer.path("bucket").display());
    writer.type_in(&format!("init --bucket {bucket}")).exits(0);
    writer.type_in("mount vault").exits(0);
    fs::write(writer.path("vault/first"), "first").unwrap();
    writer.type_in("sync").exits(0);
    let line = format!("mount vault --bucket {bucket} --read-only {options}");
    let mut mount = reader.command(line.split_whitespace());
    let done = mount.env("S3VAULT_PANIC", panics).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    (writer, reader)
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn ended(homes: &[&Home]) {
    for home in homes {
        home.type_in("umount vault").exits(0);
    }
}

#[test]
fn w5_what_one_machine_writes_the_other_shows() {
    let (writer, reader) = two("--refresh 1s", "");
    let theirs = |name: &str| writer.path("vault").join(name);
    let ours = |name: &str| -> PathBuf { reader.path("vault").join(name) };
    assert_eq!(fs::read_to_string(ours("first")).unwrap(), "first");
    assert!(fs::metadata(ours("dir/new")).is_err(), "the kernel remembers that it is not there");
    // Created.
    fs::create_dir(theirs("dir")).unwrap();
    fs::write(theirs("dir/new"), noise(1, 300_000)).unwrap();
    writer.type_in("sync").exits(0);
    wait_until("made", || fs::read(ours("dir/new")).is_ok_and(|read| read == noise(1, 300_000)));
    assert_eq!(names(&reader.path("vault")), ["dir", "first"].map(str::to_owned).into());
    // Changed in place, while the reader has it open and its mapped pages cached; and its mode.
    let mut open = fs::File::open(ours("dir/new")).unwrap();
    let inode = fs::metadata(ours("dir/new")).unwrap().ino();
    let file = fs::OpenOptions::new().write(true).open(theirs("dir/new")).unwrap();
    file.write_all_at(b"changed", 100_000).unwrap();
    drop(file);
    writer.type_in("sync").exits(0);
    let mut expected = noise(1, 300_000);
    expected[100_000..100_007].copy_from_slice(b"changed");
    wait_until("changed", || {
        let mut read = Vec::new();
        open.try_clone().unwrap().rewind().unwrap();
        open.try_clone().unwrap().read_to_end(&mut read).unwrap();
        read == expected
    });
    open.rewind().unwrap();
    assert_eq!(fs::metadata(ours("dir/new")).unwrap().ino(), inode);
    // Appended to and renamed; a directory is renamed, too.
    let mut file = fs::OpenOptions::new().append(true).open(theirs("first")).unwrap();
    file.write_all(b" and second").unwrap();
    drop(file);
    fs::rename(theirs("first"), theirs("dir/renamed")).unwrap();
    fs::rename(theirs("dir"), theirs("moved")).unwrap();
    writer.type_in("sync").exits(0);
    wait_until("renamed", || {
        fs::read_to_string(ours("moved/renamed")).is_ok_and(|read| read == "first and second")
    });
    assert_eq!(fs::metadata(ours("moved/renamed")).unwrap().len(), 16);
    wait_until("not there", || {
        fs::metadata(ours("first")).is_err() && fs::metadata(ours("dir")).is_err()
    });
    // Removed; an open file of it becomes stale.
    fs::remove_dir_all(theirs("moved")).unwrap();
    writer.type_in("sync").exits(0);
    wait_until("removed", || names(&reader.path("vault")).is_empty());
    let mut byte = [0];
    let stale = open.read(&mut byte).unwrap_err();
    assert_eq!(stale.raw_os_error(), Some(rustix::io::Errno::STALE.raw_os_error()), "{stale}");
    drop(open);
    // The reader reports its state, and one that is told not to refresh does not. (The writer's kernel forgets removed
    // inodes after a while, which yields another commit.)
    let fingerprint = |home: &Home| home.only_status()["head"]["fingerprint"].clone();
    wait_until("the same head", || fingerprint(&reader) == fingerprint(&writer));
    let status = reader.only_status();
    assert_eq!(status["following"]["refresh_seconds"], 1);
    assert!(status["following"]["trouble"].is_null(), "{status}");
    reader.type_in("status").exits(0).says("what other machines write");
    ended(&[&reader]);
    reader.type_in("mount vault --read-only --refresh off").exits(0);
    assert!(reader.only_status()["following"].is_null());
    reader.type_in("mount vault --refresh 0").exits(2).says("at least 1s");
    ended(&[&reader, &writer]);
}

#[test]
fn w5_a_look_that_panics_is_made_again() {
    let (writer, reader) = two("--refresh 1s", "following the log,3;taking in a commit,1");
    for n in 0..3 {
        let name = format!("file-{n}");
        fs::write(writer.path("vault").join(&name), &name).unwrap();
        writer.type_in("sync").exits(0);
        let shown = reader.path("vault").join(&name);
        wait_until(&name, || fs::read_to_string(&shown).is_ok_and(|read| read == name));
    }
    let said = reader.only_status()["warnings"].to_string();
    for task in ["following the log", "taking in a commit"] {
        assert!(said.contains(&format!("{task}: panicked")), "{said}");
    }
    ended(&[&reader, &writer]);
}
