//! Packs that lose all references before they were sent.

use super::rig::*;
use crate::log::Journal;
use crate::os::PipelineStep;
use crate::records::{Change, Key, Transaction};
use crate::store::{Fault, On, Verb};
use crate::types::{InodeNo, MIB, Seq};
use crate::upload::{Error, Staging, StagingLimits};

const SIZE: usize = (1 << 20) + 1000;

/// Removes what `Rig::file` and `Rig::publish` made.
fn remove(rig: &Rig, ino: u16, extents: u64) -> Seq {
    let ino = InodeNo(ino.into());
    let keys = (0..extents).map(|n| Key::Extent(ino, n * MIB)).chain([Key::Inode(ino)]);
    let changes = keys.map(|key| Change { key: key.encode(), value: None });
    rig.journal.append(&Transaction::new(changes.collect())).unwrap().0
}

fn puts(rig: &Rig) -> Vec<String> {
    let requests = rig.faulty.take_requests().into_iter();
    let puts = requests.filter(|request| request.verb == Verb::Put);
    puts.map(|request| request.name).filter(|name| name.starts_with("pack/")).collect()
}

/// Only the barrier runs: the store is away from the beginning.
#[tokio::test]
async fn c1_what_was_removed_unsent_gives_its_room_back_and_is_not_sent() {
    let rig = Rig::new();
    rig.touch(99);
    rig.file(1, SIZE);
    rig.file(2, SIZE);
    rig.publish(3, &[2], SIZE); // a copy
    remove(&rig, 1, 1);
    remove(&rig, 2, 1);
    rig.barrier.sync_all().await.unwrap();
    assert!(!rig.staging.contains(id(1)) && rig.staging.was_dropped(id(1)));
    assert!(rig.staging.contains(id(2)), "its copy refers to it");
    let usage = rig.staging.usage();
    assert_eq!((usage.unsent_packs, usage.used), (1, (SIZE + FOOTER.len()) as u64));
    // The note is durable before the pack is removed.
    let steps = rig.steps.lock().clone();
    let at = |step| steps.iter().position(|done| *done == step).unwrap();
    assert!(at(PipelineStep::DropsNoted) < at(PipelineStep::BarrierWritten));
    assert!(at(PipelineStep::BarrierWritten) < at(PipelineStep::PackDropped));
    // A late reference would be a loss, so it is an error.
    assert!(matches!(rig.staging.appending(Seq(99), &[id(1)]), Err(Error::Gone(_))));
    remove(&rig, 3, 1);
    let last = rig.touch(98);
    rig.barrier.sync_all().await.unwrap();
    assert_eq!(rig.staging.usage().used, 0);
    let uploader = rig.uploader(quick()).await;
    uploader.sync(last, SOON).await.unwrap();
    assert_eq!(puts(&rig), [""; 0]);
    assert_eq!(rig.logged().iter().sum::<usize>(), 8);
}

/// The pack is out of the queue and not noted yet; then there is no room for the note.
#[tokio::test]
async fn c4_nothing_refers_to_what_is_about_to_be_dropped() {
    let rig = Rig::new();
    rig.file(1, SIZE);
    remove(&rig, 1, 1);
    let table = &rig.staging.area.table;
    let dead = table.lock().take_dead();
    assert_eq!(dead.len(), 1);
    assert!(matches!(rig.staging.appending(Seq(99), &[id(1)]), Err(Error::Gone(_))));
    table.lock().not_dropped(&dead, true);
    assert!(table.lock().has_queue() && table.lock().has_dead(), "sent, or tried again");
    assert_eq!(table.lock().take_dead(), dead);
    table.lock().not_dropped(&dead, false);
    assert!(table.lock().has_queue() && !table.lock().has_dead(), "sent");
}

/// A pack that is open, held or on the wire is not dropped; it is later, or not at all.
#[tokio::test]
async fn c4_a_pack_that_is_open_held_or_being_sent_is_not_dropped() {
    let rig = Rig::new();
    let (open, open_hold) = rig.pack(1, SIZE);
    rig.publish(1, &[1], SIZE);
    drop(open_hold);
    rig.file(2, SIZE);
    let job = rig.staging.area.table.lock().take(u64::MAX, u64::MAX).unwrap();
    let (held, hold) = rig.pack(3, SIZE);
    rig.publish(3, &[3], SIZE);
    held.close(FOOTER).unwrap();
    (1..=3).for_each(|n| _ = remove(&rig, n, 1));
    rig.barrier.sync_all().await.unwrap();
    assert!((1..=3).all(|n| rig.staging.contains(id(n))));
    open.close(FOOTER).unwrap();
    rig.staging.area.table.lock().not_sent(job);
    rig.publish(4, &[3], SIZE); // an unpublished write becomes a file after all
    drop(hold);
    rig.touch(5);
    rig.barrier.sync_all().await.unwrap();
    assert_eq!([1, 2, 3].map(|n| rig.staging.contains(id(n))), [false, false, true]);
    let uploader = rig.uploader(quick()).await;
    uploader.sync(rig.journal.appended(), SOON).await.unwrap();
    assert_eq!(puts(&rig), [crate::upload::pack_object(id(3))]);
}

/// A commit that shows a file whose pack was dropped shows its removal, too: no state of the bucket lacks
/// anything.
#[tokio::test]
async fn c1_a_commit_holds_all_of_a_dropped_packs_life() {
    let rig = Rig::new();
    for n in 1..=6 {
        rig.touch(50 + n);
        rig.file(n, SIZE);
    }
    let last_alive = rig.journal.appended();
    // 2, 4 and 5 go; 3 stays, and is sent later than all others.
    remove(&rig, 2, 1);
    rig.touch(60);
    remove(&rig, 4, 1);
    remove(&rig, 5, 1);
    rig.touch(61);
    rig.barrier.sync_all().await.unwrap();
    let three = crate::upload::pack_object(id(3));
    rig.faulty.inject(On::next(Verb::Put, &three).times(6), Fault::Breaks);
    let uploader = rig.uploader(quick()).await;
    uploader.sync(rig.journal.appended(), SOON).await.unwrap();
    let mut after = 0;
    for commit in rig.logged() {
        after += commit;
        let ends = after as u64;
        // 2 lives from 4 to 13, 4 from 8 to 15, 5 from 10 to 16.
        assert!(
            !(4..16).contains(&ends),
            "a commit ends with {ends}, of {last_alive:?} and five more"
        );
    }
    let sent = puts(&rig);
    for n in [2, 4, 5] {
        assert!(!sent.contains(&crate::upload::pack_object(id(n))), "{n}");
    }
}

/// kill -9 between the note and the removal, and after it.
#[tokio::test]
async fn j3_a_journal_that_goes_on_knows_what_was_dropped() {
    let rig = Rig::new();
    rig.file(1, SIZE);
    rig.file(2, SIZE);
    remove(&rig, 1, 1);
    rig.barrier.stop();
    let dropped = rig.staging.area.table.lock().take_dead();
    rig.journal.note_dropped(&dropped).unwrap();
    let found = Journal::inspect(&rig.dir.path().join("journal"), &rig.keys).unwrap().unwrap();
    assert_eq!(found.dropped().collect::<Vec<_>>(), dropped);
    assert_eq!((dropped[0].first, dropped[0].last), (Seq(1), Seq(3)));
    let limits = StagingLimits { free_floor: 0, ..StagingLimits::default() };
    let staging = Staging::open(&rig.dir.path().join("staging"), limits).unwrap();
    staging.restore_dropped(&dropped);
    let table = staging.area.table.lock();
    assert_eq!((table.doomed(), table.has_dead()), (vec![id(1)], true));
    assert_eq!([1, 2, 3].map(|upto| table.sendable(Seq(upto)).0), [0, 0, 3]);
}

/// A pack whose first and last reference lie too far apart is sent as usual.
#[tokio::test]
async fn c1_a_life_that_does_not_fit_into_a_commit_is_sent() {
    let rig = Rig::new();
    rig.file(1, SIZE);
    let value = vec![7; 3 << 20];
    for ino in 10..15 {
        let key = Key::Xattr(InodeNo(ino), crate::types::NameHash([1; 16])).encode();
        let change = Change { key, value: Some(value.clone().into()) };
        rig.journal.append(&Transaction::new(vec![change])).unwrap();
    }
    let last = remove(&rig, 1, 1);
    rig.barrier.sync_all().await.unwrap();
    assert!(rig.staging.contains(id(1)));
    let uploader = rig.uploader(quick()).await;
    uploader.sync(last, SOON).await.unwrap();
    assert_eq!(puts(&rig), [crate::upload::pack_object(id(1))]);
}
