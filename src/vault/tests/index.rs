//! The index of a machine against damage: to its base in the bucket, to its own files, to the journal under it.

use super::*;
use crate::checkpoint::Base;
use crate::index::{Index, IndexMemory, IndexOptions};
use crate::log::{Journal, JournalOptions};
use crate::os::Directory;
use crate::records::Key;
use crate::store::{Fault, On, Verb};
use crate::types::CommitNo;

impl World {
    /// The index of a machine with nothing mounted, over no base.
    fn index_of(&self, vault: &Unlocked, name: &str) -> Index {
        let (dir, keys) = (self.state_dir(name).join("index"), vault.keys.clone());
        Index::open(IndexOptions { dir, keys, base: Base::empty(), memory: IndexMemory::of(0) })
            .unwrap()
    }

    fn flip(&self, prefix: &str) {
        let name = self.store.names().into_iter().rfind(|name| name.starts_with(prefix)).unwrap();
        let mut bytes = self.store.peek(&name).unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.store.plant(&name, bytes);
    }
}

async fn ino(vault: &Vault, name: &str) -> InodeNo {
    vault.vfs().lookup(InodeNo::ROOT, name.as_bytes()).await.unwrap().ino
}

#[tokio::test(flavor = "multi_thread")]
async fn j9_an_index_is_not_used_over_an_older_base_than_it_was_trimmed_for() {
    for checkpoints in 1..3 {
        let world = World::new().await;
        let vault = world.open("a").await;
        let mut model = BTreeMap::new();
        for n in 0..checkpoints {
            model.extend(fill(&vault, &format!("x{n}-")).await);
            vault.sync(LONG).await.unwrap();
            vault.checkpoint().await.unwrap();
        }
        let mut last = InodeNo::ROOT;
        for name in model.keys() {
            last = last.max(ino(&vault, name).await);
        }
        vault.close(LONG).await.unwrap();
        kill(vault).await;
        world.flip("checkpoint/");
        let again = world.open("a").await;
        assert_eq!(tree(&again).await, model, "{checkpoints}");
        write(&again.vfs(), "new", b"new").await;
        model.insert("new".into(), b"new".to_vec());
        assert!(ino(&again, "new").await > last, "its number is no other file's");
        again.close(LONG).await.unwrap();
        drop(again);
        world.shows_elsewhere(&model).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j9_an_index_goes_on_over_a_newer_base_and_is_trimmed_for_it() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let mut model = fill(&vault, "x").await;
    vault.sync(LONG).await.unwrap();
    let before = tempfile::tempdir().unwrap();
    // As after a crash between the manifest and the move onto it.
    copy_state(&world.state_dir("a"), before.path());
    vault.checkpoint().await.unwrap();
    let inodes = vault.status().inodes;
    kill(vault).await;
    std::fs::remove_dir_all(world.state_dir("a")).unwrap();
    copy_state(before.path(), &world.state_dir("a"));
    let vault = world.open("a").await;
    assert!(vault.index().point().base > CommitNo(0));
    assert_eq!(vault.index().rows(), 0, "all of it is in the base");
    assert_eq!(tree(&vault).await, model);
    assert_eq!(vault.status().inodes, inodes);
    write(&vault.vfs(), "x2", b"other").await;
    model.insert("x2".into(), b"other".to_vec());
    vault.close(LONG).await.unwrap();
    drop(vault);
    world.shows_elsewhere(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_a_row_that_does_not_open_ends_the_mount_and_not_the_next() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let model = fill(&vault, "x").await;
    let at = ino(&vault, "x3").await;
    // So that no replay repairs the damage.
    vault.sync(LONG).await.unwrap();
    vault.index().drain().unwrap();
    vault.index().spoil(&Key::Inode(at), b"damaged");
    vault.index().flush().unwrap();
    assert!(vault.vfs().lookup(InodeNo::ROOT, b"x3").await.is_err());
    assert!(vault.status().read_only.is_some_and(|reason| reason.contains("made anew")));
    assert!(try_write(&vault.vfs(), "no", b"x").await.is_err());
    kill(vault).await;
    let again = world.open("a").await;
    assert_eq!(tree(&again).await, model);
    assert_eq!(again.status().read_only, None);
    again.close(LONG).await.unwrap();
    drop(again);
    assert!(!world.state_dir("a").join("index.damaged").exists());
    world.shows_elsewhere(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_an_error_or_a_panic_of_sled_makes_the_mount_read_only_and_the_index_anew() {
    for panics in [false, true] {
        let world = World::new().await;
        let vault = world.open("a").await;
        let model = fill(&vault, "x").await;
        vault.index().flush().unwrap();
        vault.index().fail(panics);
        assert!(vault.vfs().lookup(InodeNo::ROOT, b"x3").await.is_err());
        assert!(vault.status().read_only.is_some());
        assert!(try_write(&vault.vfs(), "no", b"x").await.is_err());
        kill(vault).await;
        assert!(world.state_dir("a").join("index.damaged").exists());
        let again = world.open("a").await;
        assert_eq!(tree(&again).await, model);
        write(&again.vfs(), "yes", b"x").await;
        kill(again).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_damage_that_a_mount_meets_on_its_way_refuses_nothing() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let unlocked = vault.options().unlocked.clone();
    let model = fill(&vault, "x").await;
    vault.close(LONG).await.unwrap();
    kill(vault).await;
    world.index_of(&unlocked, "a").spoil(&Key::Inode(InodeNo::ROOT), b"damaged");
    let again = world.open("a").await;
    assert_eq!(tree(&again).await, model);
    again.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_after_an_unclean_reboot_the_index_is_made_anew() {
    for reboot in [false, true] {
        let world = World::new().await;
        let vault = world.open("a").await;
        let unlocked = vault.options().unlocked.clone();
        let model = fill(&vault, "x").await;
        let at = ino(&vault, "x3").await;
        // So that no replay repairs the damage.
        vault.sync(LONG).await.unwrap();
        vault.index().flush().unwrap();
        kill(vault).await;
        // A wrong value that no seal shows, like a write that went elsewhere.
        world.index_of(&unlocked, "a").lie(&Key::Inode(at));
        if reboot {
            let dir = world.state_dir("a").join("journal");
            let disk = Arc::new(Directory::open(&dir).unwrap());
            let found = Journal::inspect(&dir, &unlocked.keys).unwrap().unwrap();
            let (keys, boot) = (unlocked.keys.clone(), "another boot".into());
            let options = JournalOptions { keys, boot, disk, watcher: None, room: None };
            drop(Journal::resume(options, &found).unwrap());
        }
        let again = world.open("a").await;
        let found = again.vfs().lookup(InodeNo::ROOT, b"x3").await;
        assert_eq!(found.is_ok(), reboot, "without a reboot it is believed");
        if reboot {
            assert!(tree(&again).await == model);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_an_index_that_has_what_the_journal_drops_is_made_anew() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let mut model = fill(&vault, "x").await;
    // This much is sent: no replay restores the rest of what the index has.
    write(&vault.vfs(), "lost", b"").await;
    model.insert("lost".into(), Vec::new());
    vault.sync(LONG).await.unwrap();
    world.faulty.disappear();
    write(&vault.vfs(), "lost", &bytes(5, 100_000)).await;
    vault.index().flush().unwrap();
    kill(vault).await;
    world.faulty.heal();
    std::fs::remove_dir_all(world.state_dir("a").join("staging")).unwrap();
    let again = world.open("a").await;
    assert!(tree(&again).await == model);
    again.close(LONG).await.unwrap();
    drop(again);
    world.shows_elsewhere(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_a_commit_that_is_damaged_on_this_disk_is_fetched_anew() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let model = fill(&vault, "x").await;
    vault.sync(LONG).await.unwrap();
    for name in world.store.names().iter().filter(|name| name.starts_with("log/")) {
        let length = world.store.peek(name).unwrap().len();
        vault.cache().insert_whole(name, vec![0; length].into());
    }
    vault.checkpoint().await.unwrap();
    assert!(world.store.names().iter().any(|name| name.starts_with("checkpoint/")));
    vault.close(LONG).await.unwrap();
    drop(vault);
    world.shows_elsewhere(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_a_bit_that_flips_on_the_way_refuses_no_mount() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let mut model = fill(&vault, "x").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    model.extend(fill(&vault, "y").await);
    vault.close(LONG).await.unwrap();
    drop(vault);
    for (n, prefix) in ["superblock/", "checkpoint/", "log/", "page/"].into_iter().enumerate() {
        world.faulty.inject(On::next(Verb::Get, prefix), Fault::FlipsBit);
        let name = format!("reader{n}");
        let reader = world.try_open(Machines { read_only: true, ..machine(&name) }).await.unwrap();
        assert_eq!(tree(&reader).await, model, "{prefix}");
        if prefix == "checkpoint/" {
            assert!(reader.index().point().base > CommitNo(0), "no older one was taken");
        }
        world.faulty.heal();
    }
}
