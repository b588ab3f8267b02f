//! J8: a full disk, filled by others or by us, holds up what needs room, and nothing else; nothing is lost.

use std::time::Duration;

use super::rig::*;
use crate::log::RoomClass;
use crate::os::SmallDisk;
use crate::types::{KIB, MIB};
use crate::upload::{Error, StagingLimits};

fn rig(disk: &SmallDisk) -> Rig {
    let dir = tempfile::tempdir_in(disk.path()).unwrap();
    let wait = Duration::from_millis(200);
    let limits = StagingLimits { budget: 16 * MIB, free_floor: MIB, wait };
    Rig::placed(dir, limits, true, Duration::from_millis(100), |_| ())
}

fn is_full<T>(result: &crate::log::Result<T>) -> bool {
    matches!(result, Err(crate::log::Error::Full))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j8_while_others_fill_the_disk_what_is_there_is_sent_and_what_comes_waits() {
    let disk = SmallDisk::of(24 * MIB);
    let rig = rig(&disk);
    let uploader = rig.uploader(quick()).await;
    rig.faulty.disappear();
    rig.file(1, 300_000);
    rig.file(2, 2000);
    let (mut pack, hold) = rig.pack(3, 1000);
    disk.fill();
    // What was written before the disk was known to be full goes on in memory, and is read from there.
    assert_eq!(pack.append(&vec![7; 300_000]).unwrap(), 1000);
    assert_eq!(pack.append(b"end").unwrap(), 301_000);
    let read = rig.staging.read(id(3), 999..1002).unwrap().unwrap();
    assert_eq!(read[..], [3, 7, 7]);
    assert_eq!(rig.staging.read(id(3), 300_999..301_003).unwrap().unwrap(), "\u{7}end");
    assert!(matches!(rig.staging.read(id(3), 0..301_004), Err(Error::Short { .. })));
    // J1: no transaction may refer to it before it is written.
    let late = transaction(3, &[(id(3), 301_003)]);
    assert!(is_full(&rig.journal.append(&late)));
    assert!(is_full(&rig.journal.append_for(&late, RoomClass::FreesRoom)));
    pack.close(FOOTER).unwrap();
    assert!(matches!(rig.staging.reserve(1).await, Err(Error::Full)));
    // Once what is left is used up, there is room only for changes that free some.
    while rig.journal.append(&transaction(9, &[])).is_ok() {}
    let (seq, _) = rig.journal.append_for(&transaction(4, &[]), RoomClass::FreesRoom).unwrap();
    rig.barrier.sync(seq).await.unwrap();
    assert_eq!(rig.journal.durable(), seq);
    // The store comes back: what is here is sent and noted, with the disk still full.
    rig.faulty.heal();
    uploader.sync(seq, SOON).await.unwrap();
    until("it is noted", || rig.journal.durable_noted().upto() == seq).await;
    until("it has left", || !rig.staging.contains(id(1))).await;
    assert!(rig.barrier.poisoned().is_none() && rig.staging.contains(id(3)));
    // There is room again: what waited is written and sent by itself.
    disk.empty();
    until("it is written", || rig.journal.append(&late).is_ok()).await;
    drop(hold);
    uploader.finish(SOON).await.unwrap();
    assert_eq!(rig.store.peek(&crate::upload::pack_object(id(3))).unwrap().len(), 301_003 + 8);
    drop(rig.staging.reserve(100_000).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j8_a_pack_that_cannot_be_made_is_made_when_there_is_room() {
    let disk = SmallDisk::of(24 * MIB);
    let rig = rig(&disk);
    let uploader = rig.uploader(quick()).await;
    let tails = &rig.staging.area.tails;
    until("nothing else wakes the barrier", || !rig.journal.unsynced()).await;
    disk.fill();
    disk.fill_names();
    // One that gets its file while nobody writes to it, and one that is complete by then.
    let (mut later, later_hold) = rig.pack(1, 0);
    let (mut whole, whole_hold) = rig.pack(2, 5000);
    assert!(rig.staging.read(id(2), 0..5000).unwrap().unwrap().iter().all(|byte| *byte == 2));
    assert!(is_full(&rig.journal.append(&transaction(2, &[(id(2), 5000)]))));
    whole.append(b"end").unwrap();
    whole.close(FOOTER).unwrap();
    disk.empty();
    until("what waited is written", || !tails.any()).await;
    later.append(&[1; 3000]).unwrap();
    rig.publish(1, &[1], 3000);
    rig.publish(2, &[2], 5003);
    later.close(FOOTER).unwrap();
    drop((later_hold, whole_hold));
    uploader.finish(SOON).await.unwrap();
    for (n, length) in [(1, 3000), (2, 5003)] {
        assert_eq!(rig.store.peek(&crate::upload::pack_object(id(n))).unwrap().len(), length + 8);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j8_a_barrier_without_room_promises_nothing_and_is_made_when_there_is() {
    let disk = SmallDisk::of(8 * MIB);
    let dir = tempfile::tempdir_in(disk.path()).unwrap();
    let limits = StagingLimits { budget: 4 * MIB, free_floor: 0, wait: Duration::ZERO };
    // Nothing is kept ahead.
    let rig = Rig::placed(dir, limits, false, Duration::from_secs(3), |_| ());
    let uploader = rig.uploader(quick()).await;
    rig.barrier.sync(rig.touch(1)).await.unwrap();
    disk.fill();
    // Barriers that cover nothing of what comes now.
    let before: Vec<_> = (0..100).map(|_| rig.journal.mark().unwrap()).collect();
    let mut last = rig.touch(2);
    for length in [20_000, 1000, 1] {
        let change =
            || crate::records::Change { key: vec![1, 1], value: Some(vec![0; length].into()) };
        while let Ok((seq, _)) =
            rig.journal.append(&crate::records::Transaction::new(vec![change()]))
        {
            last = seq;
        }
    }
    // They take the room that was too little for the last transaction.
    assert!(before.into_iter().any(|mark| is_full(&rig.journal.sync_data(mark).map(drop))));
    assert!(matches!(rig.barrier.sync_all().await, Err(Error::Full)));
    assert!(rig.journal.durable() < last);
    assert!(rig.barrier.poisoned().is_none());
    // The uploads are not held up.
    uploader.sync(last, SOON).await.unwrap();
    disk.empty();
    until("it is durable", || rig.journal.durable() >= last).await;
    until("it is noted", || rig.journal.durable_noted().upto() >= last).await;
    rig.touch(2);
    uploader.finish(SOON).await.unwrap();
}

#[tokio::test]
async fn j8_the_journal_is_in_the_budget_and_leaves_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let wait = Duration::from_millis(50);
    let limits = StagingLimits { budget: 8 * MIB, free_floor: 0, wait };
    let rig = Rig::placed(dir, limits, true, Duration::from_millis(50), |_| ());
    let uploader = rig.uploader(quick()).await;
    rig.faulty.disappear();
    let big = || {
        let change =
            crate::records::Change { key: vec![1, 1], value: Some(vec![0; 20_000].into()) };
        crate::records::Transaction::new(vec![change])
    };
    while rig.journal.append(&big()).is_ok() {}
    let used = rig.staging.usage().used;
    assert!((7 * MIB..=8 * MIB).contains(&used), "{used}");
    assert!(matches!(rig.staging.reserve(KIB).await, Err(Error::Full)));
    let (seq, _) = rig.journal.append_for(&big(), RoomClass::FreesRoom).unwrap();
    assert!(rig.staging.usage().used <= 8 * MIB);
    rig.faulty.heal();
    uploader.sync(seq, SOON).await.unwrap();
    rig.barrier.sync_all().await.unwrap();
    until("it is noted", || rig.journal.durable_noted().upto() == seq).await;
    rig.journal.trim(seq).unwrap();
    rig.journal.append(&big()).unwrap();
    drop(rig.staging.reserve(MIB).await.unwrap());
}
