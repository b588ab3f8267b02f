//! Deletion in the bucket (K4, K5): what goes, what stays, and that it can stop anywhere.

use super::*;
use crate::store::{Fault, On, Verb};
use crate::types::CommitNo;
use crate::vault::check;

const RETENTION: Duration = Duration::from_secs(100);

/// A vault on machine "a" that keeps old states for [`RETENTION`].
async fn vault(world: &World) -> Arc<Vault> {
    world.store.set_time(std::time::SystemTime::now());
    let vault = world.open("a").await;
    vault.set_retention(RETENTION).await.unwrap();
    vault
}

async fn reclaim(vault: &Vault) -> Reclaimed {
    vault.reclaim(false, &|_| {}).await.unwrap()
}

async fn unlink(vault: &Vault, name: &str) {
    vault.vfs().unlink(InodeNo::ROOT, name.as_bytes()).await.unwrap();
    vault.sync(LONG).await.unwrap();
}

/// The error of a store that does not let these credentials delete.
fn denied() -> StoreError {
    let cause = Arc::new(std::io::Error::other("no"));
    StoreError::Denied { object: "pack/".into(), cause }
}

fn count(world: &World, prefix: &str) -> usize {
    world.store.names().iter().filter(|name| name.starts_with(prefix)).count()
}

/// Time passes and something changes, so the next run makes a new checkpoint.
async fn later(world: &World, vault: &Vault) {
    world.store.advance(RETENTION + Duration::from_secs(2));
    write(&vault.vfs(), "clock", b"ticks").await;
    vault.sync(LONG).await.unwrap();
}

/// The bucket is whole, and another machine finds exactly this.
async fn is_whole(world: &World, vault: Arc<Vault>, model: &BTreeMap<String, Vec<u8>>) {
    vault.close(LONG).await.unwrap();
    let secret = MasterKey::from_bytes(world.master);
    let unlocked = unlock(&world.bucket, None, &secret).await.unwrap();
    drop(vault);
    world.shows_elsewhere(model).await;
    let report = check(&world.bucket, &unlocked, true, None, &|_, _| ()).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test]
async fn k4_what_died_goes_when_the_retention_is_over() {
    let world = World::new().await;
    let vault = vault(&world).await;
    let mut model = fill(&vault, "kept").await;
    write(&vault.vfs(), "gone", &bytes(9, 3 << 20)).await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    world.store.advance(Duration::from_secs(2));
    unlink(&vault, "gone").await;
    let packs = count(&world, "pack/");
    // It has just died: every state of the last hundred seconds can still be shown.
    let first = reclaim(&vault).await;
    assert_eq!((first.gone().objects, first.oldest), (0, 0), "{first:?}");
    assert_eq!(first.retained.objects, 1, "{first:?}");
    // That run made a checkpoint. Once it is old enough, no promised state begins at the one before it.
    later(&world, &vault).await;
    let second = reclaim(&vault).await;
    assert!(second.packs.objects == 1 && second.packs.bytes > 3 << 20, "{second:?}");
    assert!(second.checkpoints.objects > 0 && second.oldest > 0, "{second:?}");
    assert_eq!(count(&world, "pack/"), packs, "one came, one went");
    // The next checkpoint has no row for what is gone.
    let rows = |vault: &Vault| vault.index().base().records(crate::records::Tag::Pack);
    let before = rows(&vault);
    later(&world, &vault).await;
    reclaim(&vault).await;
    assert!(rows(&vault) <= before, "{} rows, {before} before", rows(&vault));
    // A dry run reports what would go, and deletes nothing.
    write(&vault.vfs(), "kept0", b"other").await;
    model.insert("kept0".into(), b"other".to_vec());
    model.insert("clock".into(), b"ticks".to_vec());
    let all = world.store.names();
    let dry = vault.reclaim(true, &|_| {}).await.unwrap();
    assert!(dry.dry_run);
    let gone: Vec<_> = all.iter().filter(|name| world.store.peek(name).is_none()).collect();
    assert!(gone.is_empty(), "{gone:?}");
    is_whole(&world, vault, &model).await;
}

#[tokio::test]
async fn k4_a_snapshot_holds_what_it_shows_until_it_ends() {
    let world = World::new().await;
    let vault = vault(&world).await;
    write(&vault.vfs(), "old", &bytes(1, 3 << 20)).await;
    let pin = vault.make_snapshot(b"before", None).await.unwrap();
    let taken = vault.make_snapshot(b"before", None).await.unwrap_err();
    assert!(matches!(taken, Error::Snapshot(_)), "{taken}");
    unlink(&vault, "old").await;
    for _ in 0..3 {
        later(&world, &vault).await;
        reclaim(&vault).await;
    }
    let report = reclaim(&vault).await;
    assert_eq!(report.pinned.objects, 1, "{report:?}");
    assert!(report.alone["before"] > 3 << 20, "{report:?}");
    let manifest = crate::checkpoint::manifest_name(pin.commit);
    assert!(world.store.peek(&manifest).is_some(), "its manifest stays");
    assert!(pin.commit < CommitNo(report.oldest));
    // A second snapshot of the current state, with an end.
    write(&vault.vfs(), "next", &bytes(2, 2 << 20)).await;
    let keep = Some(RETENTION);
    vault.make_snapshot(b"short", keep).await.unwrap();
    unlink(&vault, "next").await;
    vault.delete_snapshot(b"before").await.unwrap();
    for _ in 0..3 {
        later(&world, &vault).await;
        reclaim(&vault).await;
    }
    assert!(world.store.peek(&manifest).is_none());
    assert!(vault.snapshots().await.unwrap().is_empty(), "its time is over");
    let report = reclaim(&vault).await;
    assert_eq!((report.pinned.objects, report.alone.len()), (0, 0), "{report:?}");
    is_whole(&world, vault, &[("clock".into(), b"ticks".to_vec())].into()).await;
}

#[tokio::test]
async fn k5_what_an_upload_left_goes_and_what_is_under_way_stays() {
    let world = World::new().await;
    let vault = vault(&world).await;
    write(&vault.vfs(), "a", b"here").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    let stray = "pack/ab/abababababababababababababababab";
    world.store.plant(stray, vec![7; 1000]);
    world.store.plant("page/0000000000000001/abababababababababababababababab", vec![7; 10]);
    let young = reclaim(&vault).await;
    assert_eq!((young.young.objects, young.gone().objects), (1, 0), "{young:?}");
    later(&world, &vault).await;
    // An open, unpublished file: nothing in the bucket refers to its packs, and yet they are needed.
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let open = vault.vfs().create(&USER, InodeNo::ROOT, b"open", 0o644, flags).await.unwrap().1;
    vault.vfs().write(open, WriteAt::Offset(0), &bytes(3, 5 << 20)).await.unwrap();
    let old = reclaim(&vault).await;
    assert_eq!((old.packs.objects, old.young.objects), (1, 0), "{old:?}");
    assert_eq!(old.checkpoints.objects, 1, "{old:?}");
    assert!(world.store.peek(stray).is_none());
    vault.vfs().flush(open).await.unwrap();
    vault.vfs().release(open).await.unwrap();
    let model =
        [("a", b"here".to_vec()), ("clock", b"ticks".to_vec()), ("open", bytes(3, 5 << 20))];
    is_whole(&world, vault, &model.map(|(name, data)| (name.to_owned(), data)).into()).await;
}

#[tokio::test]
async fn k5_a_store_that_does_not_delete_is_said_and_no_more() {
    let world = World::new().await;
    let vault = vault(&world).await;
    write(&vault.vfs(), "gone", &bytes(9, 3 << 20)).await;
    vault.sync(LONG).await.unwrap();
    unlink(&vault, "gone").await;
    later(&world, &vault).await;
    reclaim(&vault).await;
    later(&world, &vault).await;
    world.faulty.inject(On::next(Verb::Delete, "").times(u32::MAX), Fault::Fails(denied()));
    let refused = reclaim(&vault).await;
    assert_eq!(refused.gone().objects, 0);
    assert!(refused.refused.is_some(), "{refused:?}");
    write(&vault.vfs(), "works", b"on").await;
    vault.sync(LONG).await.unwrap();
    world.faulty.heal();
    assert!(reclaim(&vault).await.packs.objects > 0);
}

#[tokio::test]
async fn k5_what_lives_in_a_mostly_dead_pack_is_written_anew() {
    let world = World::new().await;
    let vault = vault(&world).await;
    let mut model = BTreeMap::new();
    // One pack of many files, and a large file whose middle is overwritten.
    for n in 0..40 {
        let (name, data) = (format!("small{n}"), bytes(n, 100_000));
        write(&vault.vfs(), &name, &data).await;
        model.insert(name, data);
    }
    vault.sync(LONG).await.unwrap();
    let mut large = bytes(77, 9 << 20);
    write(&vault.vfs(), "large", &large).await;
    vault.sync(LONG).await.unwrap();
    for n in (0..40).filter(|n| n % 8 > 0) {
        unlink(&vault, &format!("small{n}")).await;
        model.remove(&format!("small{n}"));
    }
    let found = vault.vfs().lookup(InodeNo::ROOT, b"large").await.unwrap();
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let open = vault.vfs().open(found.ino, flags).await.unwrap();
    let (over, at) = (bytes(78, 7 << 20), 1 << 20);
    for (n, part) in over.chunks(128 << 10).enumerate() {
        let to = (at + n * (128 << 10)) as u64;
        vault.vfs().write(open, WriteAt::Offset(to), part).await.unwrap();
    }
    vault.vfs().flush(open).await.unwrap();
    vault.vfs().release(open).await.unwrap();
    large[at..at + over.len()].copy_from_slice(&over);
    model.insert("large".into(), large);
    vault.sync(LONG).await.unwrap();
    let first = reclaim(&vault).await;
    assert!(first.sparse.objects >= 2 && first.rewritten >= 2 << 20, "{first:?}");
    assert!(first.rewritten < 4 << 20, "what lives, and no more: {first:?}");
    for _ in 0..3 {
        later(&world, &vault).await;
        reclaim(&vault).await;
    }
    let last = reclaim(&vault).await;
    assert_eq!((last.sparse.objects, last.rewritten), (0, 0), "{last:?}");
    model.insert("clock".into(), b"ticks".to_vec());
    let live: usize = model.values().map(Vec::len).sum();
    let stored = |prefix: &str| -> usize {
        let names = world.store.names();
        let sizes = names.iter().filter(|name| name.starts_with(prefix));
        sizes.map(|name| world.store.peek(name).unwrap().len()).sum()
    };
    assert!(stored("pack/") < live * 3 / 2, "{} bytes for {live}", stored("pack/"));
    is_whole(&world, vault, &model).await;
}
