//! J3 as the vault applies it: unsent changes whose extents are, or are not, in staging. Also the journal's room (J5,
//! J8).

use std::collections::BTreeSet;

use super::*;
use crate::log::{Journal, JournalOptions};
use crate::os::Directory;
use crate::types::PackId;
use crate::upload::pack_object;
use crate::vfs::Setter;

/// Files of more than 1 MiB get packs of their own.
const LARGE: usize = 1_200_000;

fn files(dir: &std::path::Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Writes `kept` and then `hurt` while the store is away, and kills; returns the pack of `hurt`.
async fn written(world: &World, is_synced: bool) -> PathBuf {
    let vault = world.open("a").await;
    world.faulty.disappear();
    let staging = world.state_dir("a").join("staging");
    write(&vault.vfs(), "kept", &bytes(1, LARGE)).await;
    let before = files(&staging);
    write(&vault.vfs(), "hurt", &bytes(2, LARGE)).await;
    let pack = files(&staging).difference(&before).next().unwrap().clone();
    if is_synced {
        vault.vfs().fsync_directory().await.unwrap();
    }
    kill(vault).await;
    world.faulty.heal();
    pack
}

/// Makes the journal look as left by another boot of the machine.
async fn rebooted(world: &World) {
    let secret = MasterKey::from_bytes(world.master);
    let keys = unlock(&world.bucket, None, &secret).await.unwrap().keys;
    let dir = world.state_dir("a").join("journal");
    let found = Journal::inspect(&dir, &keys).unwrap().unwrap();
    let (boot, disk) = ("another boot".into(), Arc::new(Directory::open(&dir).unwrap()));
    let options = JournalOptions { keys, boot, disk, watcher: None, room: None };
    Journal::resume(options, &found).unwrap();
}

fn flip(pack: &std::path::Path) {
    let mut content = std::fs::read(pack).unwrap();
    content[700_000] ^= 1;
    std::fs::write(pack, content).unwrap();
}

async fn names(vault: &Vault) -> Vec<String> {
    let listed = vault.vfs().read_dir(InodeNo::ROOT, 0, 100).await.unwrap();
    listed.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_a_change_whose_extent_is_cut_is_a_torn_tail() {
    let world = World::new().await;
    let pack = written(&world, false).await;
    let file = std::fs::OpenOptions::new().write(true).open(pack).unwrap();
    file.set_len(LARGE as u64 / 2).unwrap();
    let again = world.open("a").await;
    assert_eq!(tree(&again).await["kept"], bytes(1, LARGE));
    assert!(
        !names(&again).await.contains(&"hurt".into())
            || read(&again.vfs(), b"hurt").await.is_empty()
    );
    assert!(again.status().warnings.iter().any(|w| w.contains("not completely written")));
    again.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_without_a_reboot_all_that_is_whole_stays() {
    let world = World::new().await;
    written(&world, false).await;
    let again = world.open("a").await;
    let all = tree(&again).await;
    assert_eq!((&all["kept"], &all["hurt"]), (&bytes(1, LARGE), &bytes(2, LARGE)));
    assert_eq!(again.status().warnings, Vec::<String>::new());
    again.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_extents_are_opened_also_without_a_reboot() {
    for (is_hurt, is_rebooted) in [(true, true), (false, true), (true, false)] {
        let world = World::new().await;
        let pack = written(&world, false).await;
        if is_rebooted {
            rebooted(&world).await;
        }
        if is_hurt {
            flip(&pack);
        }
        let again = world.open("a").await;
        let torn = again.status().warnings.iter().any(|w| w.contains("not completely written"));
        assert_eq!(torn, is_hurt);
        let all = tree(&again).await;
        assert_eq!(all["kept"], bytes(1, LARGE));
        let hurt = all.get("hurt").cloned().unwrap_or_default();
        assert_eq!(hurt, if is_hurt { Vec::new() } else { bytes(2, LARGE) });
        again.close(LONG).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_before_the_barrier_a_missing_extent_is_damage_and_the_mount_is_refused() {
    let world = World::new().await;
    let pack = written(&world, true).await;
    let content = std::fs::read(&pack).unwrap();
    std::fs::write(&pack, &content[..LARGE / 2]).unwrap();
    let refused = world.try_open(machine("a")).await.err().unwrap();
    assert!(refused.to_string().contains("--accept-damage"), "{refused}");
    std::fs::write(&pack, &content).unwrap();
    let again = world.open("a").await;
    assert_eq!(tree(&again).await["hurt"], bytes(2, LARGE));
    again.close(LONG).await.unwrap();
}

fn accepting<'a>() -> Machines<'a> {
    Machines { accept_damage: true, ..machine("a") }
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_damage_before_the_barrier_names_the_file_and_is_given_up_when_that_is_accepted() {
    for what in ["flipped", "cut", "gone"] {
        let world = World::new().await;
        let pack = written(&world, true).await;
        match what {
            "flipped" => flip(&pack),
            "cut" => std::fs::write(&pack, b"cut").unwrap(),
            _ => std::fs::remove_file(&pack).unwrap(),
        }
        let damaged = std::fs::read(&pack).ok();
        let refused = world.try_open(machine("a")).await.err().unwrap().to_string();
        assert!(refused.contains(pack.file_stem().unwrap().to_str().unwrap()), "{refused}");
        assert!(refused.contains("--accept-damage"), "{refused}");
        // If the pack is missing, it may as well be the journal that lost its end, which said that the pack was dropped.
        let segment = files(&world.state_dir("a").join("journal")).pop_last().unwrap();
        assert_eq!(refused.contains(segment.to_str().unwrap()), what == "gone", "{refused}");
        let again = world.try_open(accepting()).await.unwrap();
        assert_eq!(read(&again.vfs(), b"kept").await, bytes(1, LARGE));
        assert!(again.status().warnings.iter().any(|w| w.contains("given up")));
        // In a pack with all its bytes, only what is hurt cannot be read.
        let hurt = again.vfs().lookup(InodeNo::ROOT, b"hurt").await;
        assert!(what != "flipped" || hurt.unwrap().size == LARGE as u64);
        let copy = world.state_dir("a").join("set-aside/damaged/staging");
        assert_eq!(std::fs::read(copy.join(pack.file_name().unwrap())).ok(), damaged);
        again.close(LONG).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_a_damaged_pack_that_was_sent_is_taken_from_the_bucket() {
    for is_cut in [false, true] {
        let world = World::new().await;
        let pack = written(&world, true).await;
        let id: PackId = pack.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let whole = std::fs::read(&pack).unwrap();
        // The daemon died when the pack was sent, but no commit was.
        world.bucket.put_new(&pack_object(id), whole.into()).await.unwrap();
        match is_cut {
            true => std::fs::remove_file(&pack).unwrap(),
            false => flip(&pack),
        }
        let again = world.open("a").await;
        assert_eq!(tree(&again).await["hurt"], bytes(2, LARGE));
        assert!(again.status().warnings.is_empty());
        again.close(LONG).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_unsent_packs_without_a_journal_are_damage() {
    for what in ["gone", "gone, but its packs were set aside", "zeroed", "empty"] {
        let world = World::new().await;
        written(&world, true).await;
        if what.ends_with("set aside") {
            // By `--accept-damage` earlier; the packs have gone on since.
            let copy = world.state_dir("a").join("set-aside/damaged.old/staging");
            std::fs::create_dir_all(&copy).unwrap();
            for pack in files(&world.state_dir("a").join("staging")) {
                std::fs::hard_link(&pack, copy.join(pack.file_name().unwrap())).unwrap();
            }
        }
        let journal = world.state_dir("a").join("journal");
        let segment = files(&journal).pop_first().unwrap();
        let length = usize::try_from(segment.metadata().unwrap().len()).unwrap();
        match what {
            what if what.starts_with("gone") => std::fs::remove_file(&segment).unwrap(),
            "zeroed" => std::fs::write(&segment, vec![0; length]).unwrap(),
            _ => std::fs::write(&segment, b"").unwrap(),
        }
        let refused = world.try_open(machine("a")).await.err().unwrap().to_string();
        assert!(refused.contains(journal.to_str().unwrap()), "{what}: {refused}");
        let packs = files(&world.state_dir("a").join("staging")).len();
        let again = world.try_open(accepting()).await.unwrap();
        assert!(tree(&again).await.is_empty(), "{what}");
        assert!(again.status().warnings.iter().any(|w| w.contains("given up")), "{what}");
        let copy = world.state_dir("a").join("set-aside/damaged/staging");
        assert_eq!(files(&copy).len(), packs, "{what}");
        again.close(LONG).await.unwrap();
    }
}

/// Bytes on disk of the files.
fn on_disk(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    files(dir).into_iter().map(|path| path.metadata().map_or(0, |m| m.blocks() * 512)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn j8_with_the_store_gone_changes_stay_within_the_budget_and_what_frees_room_goes_on() {
    let world = World::new().await;
    let small = Machines { cache_size: Some(64 * MIB), ..machine("a") };
    let vault = world.try_open(small).await.unwrap();
    let vfs = vault.vfs();
    write(&vfs, "first", b"1").await;
    vault.sync(LONG).await.unwrap();
    world.faulty.disappear();
    write(&vfs, "f", b"1").await;
    let ino = vfs.lookup(InodeNo::ROOT, b"f").await.unwrap().ino;
    let mut value = bytes(3, 60_000);
    let set =
        async |value: &[u8]| vfs.set_xattr(ino, b"user.x", value, 0, &Setter::Superuser).await;
    let (journal, staging) =
        (world.state_dir("a").join("journal"), world.state_dir("a").join("staging"));
    let refused = loop {
        value[0] = value[0].wrapping_add(1);
        if let Err(error) = set(&value).await {
            break error;
        }
    };
    assert_eq!(refused.errno(), libc::ENOSPC, "{refused}");
    let taken = on_disk(&journal) + on_disk(&staging);
    assert!((28 * MIB..=32 * MIB).contains(&taken), "{taken} bytes of 32 MiB");
    assert!(vault.status().read_only.is_none());
    // What frees room goes on, and so does an fsync.
    vfs.unlink(InodeNo::ROOT, b"first").await.unwrap();
    let attributes = SetAttributes { size: Some(0), ..SetAttributes::default() };
    vfs.set_attributes(ino, &attributes).await.unwrap();
    vfs.fsync_directory().await.unwrap();
    // J5: once the bucket has them, segments are removed by themselves, and there is room again.
    world.faulty.heal();
    vault.sync(LONG).await.unwrap();
    let until = std::time::Instant::now() + LONG;
    while files(&journal).len() > 1 {
        assert!(std::time::Instant::now() < until, "the journal is not trimmed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    set(&value).await.unwrap();
    assert_eq!(vfs.xattr(ino, b"user.x").await.unwrap(), value);
    vault.close(LONG).await.unwrap();
}
