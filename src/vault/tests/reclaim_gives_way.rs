//! Background deletion gives way, reports what it did, and retries what it could not do.

use std::time::Instant;

use super::*;
use crate::reclaim::{Pace, ReclaimPlan};
use crate::store::{Fault, On, Verb};

const RETENTION: Duration = Duration::from_secs(100);
const BACKGROUND: ReclaimPlan = ReclaimPlan { dry_run: false, pace: Pace::Background };

/// A vault with a pack that has been dead for longer than the retention; nothing was deleted yet.
async fn with_a_dead_pack(world: &World) -> Arc<Vault> {
    world.store.set_time(std::time::SystemTime::now());
    let vault = world.open("a").await;
    vault.set_retention(RETENTION).await.unwrap();
    write(&vault.vfs(), "kept", &bytes(1, 100_000)).await;
    write(&vault.vfs(), "gone", &bytes(2, 3 << 20)).await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    vault.vfs().unlink(InodeNo::ROOT, b"gone").await.unwrap();
    later(world, &vault).await;
    vault.checkpoint().await.unwrap();
    later(world, &vault).await;
    vault
}

async fn later(world: &World, vault: &Vault) {
    world.store.advance(RETENTION + Duration::from_secs(2));
    write(&vault.vfs(), "clock", b"ticks").await;
    vault.sync(LONG).await.unwrap();
}

/// A run like those that a mount makes by itself.
async fn in_the_background(vault: &Arc<Vault>) -> Result<Reclaimed> {
    let reclaiming = vault.writer.as_ref().unwrap().reclaiming.clone();
    reclaiming.run(BACKGROUND, &|_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn k5_a_run_in_the_background_ends_after_its_step_when_somebody_waits() {
    let world = World::new().await;
    let vault = with_a_dead_pack(&world).await;
    // After a request that takes a second (its deadline is the next) nine times as much is rest. The first deletion is
    // of parts of a checkpoint.
    world.faulty.inject(On::next(Verb::Delete, ""), Fault::Delays(Duration::from_secs(1)));
    let run = tokio::spawn({
        let vault = vault.clone();
        async move { in_the_background(&vault).await.unwrap() }
    });
    let until = Instant::now() + LONG;
    while !vault.status().old_states.running {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = Instant::now();
    let listed = vault.reclaim(true, &|_| {}).await.unwrap();
    let waited = asked.elapsed();
    assert!(waited < Duration::from_secs(8), "{waited:?} behind a run for nobody");
    let gave_way = run.await.unwrap();
    assert!(gave_way.gave_way && gave_way.packs.objects == 0, "{gave_way:?}");
    assert!(gave_way.checkpoints.objects > 0, "what its step deleted is told: {gave_way:?}");
    let status = vault.status().old_states;
    assert_eq!((status.running, status.deleted_objects), (false, gave_way.gone().objects));
    assert_eq!(listed.packs.objects, 1, "the rest is found by whoever waited: {listed:?}");
    assert_eq!(in_the_background(&vault).await.unwrap().packs.objects, 1);
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn what_a_deletion_did_is_told_though_what_follows_it_fails_and_is_tried_again() {
    let world = World::new().await;
    let vault = with_a_dead_pack(&world).await;
    // A pack of a file that is overwritten except for its end.
    write(&vault.vfs(), "large", &bytes(7, 5 << 20)).await;
    vault.sync(LONG).await.unwrap();
    let found = vault.vfs().lookup(InodeNo::ROOT, b"large").await.unwrap();
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let open = vault.vfs().open(found.ino, flags).await.unwrap();
    vault.vfs().write(open, WriteAt::Offset(0), &bytes(8, 4 << 20)).await.unwrap();
    vault.vfs().flush(open).await.unwrap();
    vault.vfs().release(open).await.unwrap();
    vault.sync(LONG).await.unwrap();
    // Footers cannot be read: sparse packs stay as they are.
    let broken = || StoreError::Corrupt { object: "pack/".into(), reason: "a test".into() };
    world.faulty.inject(On::next(Verb::Get, "pack/").times(u32::MAX), Fault::Fails(broken()));
    let first = vault.reclaim(false, &|_| {}).await.unwrap();
    assert_eq!(first.packs.objects, 1, "{first:?}");
    assert!(first.sparse.objects > 0 && first.rewritten == 0, "{first:?}");
    assert_eq!(first.trouble.len(), 1, "{first:?}");
    let told = vault.status().old_states;
    assert!(!told.running && told.deleted_bytes == first.gone().bytes, "{told:?}");
    // As soon as footers can be read, the same packs are emptied, in the same mount.
    world.faulty.heal();
    let second = vault.reclaim(false, &|_| {}).await.unwrap();
    assert!(second.rewritten > 0, "{second:?}");
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_that_fails_leaves_no_deletion_at_running() {
    let world = World::new().await;
    let vault = with_a_dead_pack(&world).await;
    vault.close(LONG).await.unwrap();
    drop(vault);
    // A new claim: the background run first makes a checkpoint of its own, as nothing else did.
    let vault = world.open("a").await;
    vault.set_retention(Duration::from_secs(2 * 24 * 60 * 60)).await.unwrap();
    world.faulty.inject(On::next(Verb::Put, "checkpoint/").always(), Fault::Breaks);
    let refused = in_the_background(&vault).await;
    assert!(refused.is_err(), "{refused:?}");
    let told = vault.status().old_states;
    assert!(!told.running && told.trouble.is_some(), "{told:?}");
    world.faulty.heal();
    in_the_background(&vault).await.unwrap();
    let told = vault.status().old_states;
    assert!(!told.running && told.trouble.is_none(), "{told:?}");
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn k4_a_snapshot_ends_by_the_clock_of_the_moment_it_is_made_in() {
    let world = World::new().await;
    let (day, now) = (Duration::from_secs(24 * 60 * 60), std::time::SystemTime::now());
    world.store.set_time(now);
    let vault = world.open("a").await;
    write(&vault.vfs(), "file", b"content").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    // Nothing was written for three days: what was last heard of the store's clock is as old.
    world.store.advance(3 * day);
    let pin = vault.make_snapshot(b"today", Some(day)).await.unwrap();
    assert_eq!(pin.ends, Some(crate::types::Timestamp::from(now + 4 * day)));
    assert_eq!(vault.states().await.unwrap().names().await.unwrap(), ["today"]);
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn k4_a_snapshot_over_a_store_that_tells_no_date_ends_by_this_machines_clock() {
    let world = World::new().await;
    world.store.set_time(std::time::SystemTime::UNIX_EPOCH);
    let vault = world.open("a").await;
    write(&vault.vfs(), "file", b"content").await;
    vault.sync(LONG).await.unwrap();
    let hour = Duration::from_secs(60 * 60);
    let before = crate::types::Timestamp::now();
    let pin = vault.make_snapshot(b"an-hour", Some(hour)).await.unwrap();
    let ends = pin.ends.unwrap();
    assert!(before.after(hour) <= ends && ends < before.after(2 * hour), "{ends:?}");
    let names = vault.snapshot_names().await.unwrap();
    assert_eq!(names, [(b"an-hour".to_vec(), pin.commit)]);
    vault.close(LONG).await.unwrap();
}

#[tokio::test]
async fn a_mount_that_is_idle_comes_to_rest() {
    let world = World::new().await;
    let vault = with_a_dead_pack(&world).await;
    let reclaiming = vault.writer.as_ref().unwrap().reclaiming.clone();
    let mut runs = 0;
    while !reclaiming.is_idle() {
        runs += 1;
        assert!(runs <= 4, "each run is the reason for the next");
        in_the_background(&vault).await.unwrap();
        world.store.advance(RETENTION + Duration::from_secs(2));
    }
    assert!(vault.status().old_states.deleted_objects > 0);
    // By hand it looks, but makes no checkpoint.
    let newest = vault.index().base_commit();
    let looked = vault.reclaim(false, &|_| {}).await.unwrap();
    assert_eq!(looked.packs.objects, 0, "{looked:?}");
    assert_eq!(vault.index().base_commit(), newest, "no checkpoint, that is");
    assert!(reclaiming.is_idle());
    // After a change it looks again.
    write(&vault.vfs(), "kept", b"other").await;
    vault.sync(LONG).await.unwrap();
    assert!(!reclaiming.is_idle());
    vault.close(LONG).await.unwrap();
}

/// With a long retention a run in the background makes no checkpoint, and cannot see what died since the last.
#[tokio::test]
async fn k5_what_no_checkpoint_covers_yet_is_not_seen_and_goes_later() {
    const DAYS: Duration = Duration::from_hours(48);
    let world = World::new().await;
    world.store.set_time(std::time::SystemTime::now());
    let vault = world.open("a").await;
    vault.set_retention(DAYS).await.unwrap();
    write(&vault.vfs(), "gone", &bytes(2, 3 << 20)).await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    vault.vfs().unlink(InodeNo::ROOT, b"gone").await.unwrap();
    vault.sync(LONG).await.unwrap();
    in_the_background(&vault).await.unwrap();
    let reclaiming = vault.writer.as_ref().unwrap().reclaiming.clone();
    assert!(!reclaiming.is_idle(), "the next run is to look again");
    // By hand: the first makes the checkpoint, and once that is old enough the pack goes.
    assert_eq!(vault.reclaim(false, &|_| {}).await.unwrap().packs.objects, 0);
    world.store.advance(DAYS + Duration::from_secs(2));
    assert_eq!(vault.reclaim(false, &|_| {}).await.unwrap().packs.objects, 1);
    vault.close(LONG).await.unwrap();
}

/// A pack that cannot be read stands before no other.
#[tokio::test]
async fn k5_a_sparse_pack_that_cannot_be_read_does_not_keep_the_others() {
    for failing in 0..2 {
        let world = World::new().await;
        let vault = with_a_dead_pack(&world).await;
        let mut packs = Vec::new();
        for name in ["one", "other"] {
            let before = world.store.names();
            write(&vault.vfs(), name, &bytes(7, 5 << 20)).await;
            vault.sync(LONG).await.unwrap();
            let is_new = |name: &String| name.starts_with("pack/") && !before.contains(name);
            packs.extend(world.store.names().into_iter().find(is_new));
            let ino = vault.vfs().lookup(InodeNo::ROOT, name.as_bytes()).await.unwrap().ino;
            let flags = OpenFlags { write: true, ..OpenFlags::default() };
            let open = vault.vfs().open(ino, flags).await.unwrap();
            vault.vfs().write(open, WriteAt::Offset(0), &bytes(8, 4 << 20)).await.unwrap();
            vault.vfs().release(open).await.unwrap();
            vault.sync(LONG).await.unwrap();
        }
        let broken = StoreError::Corrupt { object: "pack/".into(), reason: "a test".into() };
        let get = On::next(Verb::Get, &packs[failing]).times(u32::MAX);
        world.faulty.inject(get, Fault::Fails(broken));
        let done = vault.reclaim(false, &|_| {}).await.unwrap();
        assert!(done.rewritten > 0 && done.trouble.len() == 1, "{failing}: {done:?}");
        vault.close(LONG).await.unwrap();
    }
}
