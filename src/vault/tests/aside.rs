//! W1: what is set aside is complete, however often it was begun.

use super::*;
use crate::crypto::Keys;
use crate::log::Journal;
use crate::records::{Change, Key, decode_value};

/// Leaves a machine with unsent changes that cannot go on: the file `late`, in its own pack.
async fn fenced(world: &World) {
    let one = world.open("a").await;
    write(&one.vfs(), "before", b"1").await;
    one.sync(LONG).await.unwrap();
    world.faulty.disappear();
    write(&one.vfs(), "late", &bytes(5, 1_200_000)).await;
    kill(one).await;
    world.faulty.heal();
    let other = world.try_open(Machines { take_over: true, ..machine("b") }).await.unwrap();
    write(&other.vfs(), "theirs", b"2").await;
    other.close(LONG).await.unwrap();
}

fn folders(world: &World) -> Vec<PathBuf> {
    let aside = world.state_dir("a").join("set-aside");
    std::fs::read_dir(aside).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The folder holds the transactions, their pack, and the records of their file.
async fn is_whole(world: &World, folder: &std::path::Path) {
    let secret = MasterKey::from_bytes(world.master);
    let keys: Keys = unlock(&world.bucket, None, &secret).await.unwrap().keys;
    let found = Journal::inspect(&folder.join("journal"), &keys).unwrap().unwrap();
    assert!(found.unsent.iter().any(|tx| !tx.staged.is_empty()), "its transactions");
    for reference in found.unsent.iter().flat_map(|tx| &tx.staged) {
        let pack = folder.join("staging").join(format!("{}.pack", reference.pack));
        assert!(pack.metadata().unwrap().len() >= reference.offset + reference.sealed_length);
    }
    let sealed = std::fs::read(folder.join("records")).unwrap();
    let plain = keys.open(crate::vault::aside::PLACE, &sealed).unwrap();
    let records: Vec<Change> = decode_value("set aside", &plain).unwrap();
    let is_there =
        |wanted: fn(&Key) -> bool| records.iter().any(|r| wanted(&Key::decode(&r.key).unwrap()));
    assert!(is_there(|key| matches!(key, Key::Entry(..))), "its name");
    assert!(is_there(|key| matches!(key, Key::Inode(ino) if *ino != InodeNo::ROOT)), "the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn w1_what_is_set_aside_is_all_there() {
    let world = World::new().await;
    fenced(&world).await;
    let again = world.open("a").await;
    let names: Vec<_> = tree(&again).await.into_keys().collect();
    assert_eq!(names, ["before", "theirs"]);
    let [folder] = &folders(&world)[..] else { panic!("one folder") };
    is_whole(&world, folder).await;
    again.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w1_setting_aside_may_be_interrupted_after_each_step_and_is_done_once() {
    for left in 0..4 {
        let world = World::new().await;
        fenced(&world).await;
        let state = world.state_dir("a");
        let (journal, staging) = (state.join("journal"), state.join("staging"));
        let link = |from: &std::path::Path, to: &std::path::Path| {
            std::fs::create_dir_all(to).unwrap();
            for entry in std::fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                drop(std::fs::hard_link(entry.path(), to.join(entry.file_name())));
            }
        };
        let again = world.open("a").await;
        kill(again).await;
        let done = folders(&world).remove(0);
        // As it was when the process ended: before the rename, ...
        let new = done.to_string_lossy().rsplit_once('-').unwrap().0.to_owned() + ".new";
        for entry in std::fs::read_dir(&journal).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        link(&done.join("journal"), &journal);
        link(&done.join("staging"), &staging);
        match left {
            0 => std::fs::rename(&done, &new).unwrap(),
            1 => {
                std::fs::rename(&done, &new).unwrap();
                std::fs::remove_file(PathBuf::from(&new).join("records")).unwrap();
            }
            // ... or after it, before the journal was removed;
            2 => {}
            // or an earlier setting aside of this journal left a folder that lacks newer content.
            _ => std::fs::remove_dir_all(done.join("staging")).unwrap(),
        }
        let again = world.open("a").await;
        let names: Vec<_> = tree(&again).await.into_keys().collect();
        assert_eq!(names, ["before", "theirs"], "{left}");
        let folders = folders(&world);
        assert_eq!(folders.len(), if left == 3 { 2 } else { 1 }, "{folders:?}");
        let whole = folders.iter().find(|folder| folder.join("staging").exists()).unwrap();
        is_whole(&world, whole).await;
        again.close(LONG).await.unwrap();
    }
}
