//! Full disks, segments that could not be begun, and what a removal leaves (J3, J5, J8).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::*;
use super::{NOTHING, change, create, keys, options, real};
use crate::os::SmallDisk;
use crate::types::{CommitNo, KIB, MIB};

/// Room without a budget: whatever the disk has.
#[derive(Default)]
struct Plain {
    taken: AtomicU64,
}

const AHEAD: u64 = 256 * KIB;

impl JournalRoom for Plain {
    fn kept_ahead(&self) -> u64 {
        AHEAD
    }
    fn take(&self, bytes: u64, _: RoomClass) -> bool {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        true
    }
    fn found(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }
    fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn roomy(dir: &Path, room: &Arc<Plain>) -> JournalOptions {
    JournalOptions { room: Some(room.clone()), ..options(real(dir)) }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

fn on_disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

fn is_full<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Full))
}

#[test]
fn j8_on_a_full_disk_changes_are_refused_and_what_frees_room_and_upkeep_go_on() {
    let disk = SmallDisk::of(6 * MIB);
    let (dir, room) = (disk.path().join("journal"), Arc::new(Plain::default()));
    let journal = Journal::create(roomy(&dir, &room), NOTHING).unwrap();
    // Over segments, until the disk is full.
    let refused = loop {
        if let Err(error) = journal.append(&change(1, 20_000)) {
            break error;
        }
    };
    assert!(matches!(refused, Error::Full), "{refused}");
    assert!(count(&dir) > 2);
    disk.fill();
    while journal.append(&change(1, 100)).is_ok() {}
    let last = journal.appended();
    assert!(is_full(&journal.append(&change(1, 100))), "what is kept back is kept");
    journal.append_for(&change(1, 100), RoomClass::FreesRoom).unwrap();
    let noted = NotedCommit { upto: last, number: CommitNo(7), hash: Hash([7; 32]) };
    journal.note(noted).unwrap();
    journal.sync_data(journal.mark().unwrap()).unwrap();
    assert_eq!((journal.durable_noted(), journal.durable()), (noted, last.next()));
    // A change that frees room does not take the last of it.
    for length in [1000, 1] {
        while journal.append_for(&change(1, length), RoomClass::FreesRoom).is_ok() {}
    }
    let last = journal.appended();
    // More barriers than would fit into the room that was too small for a change.
    for _ in 0..20 {
        journal.sync_data(journal.mark().unwrap()).unwrap();
    }
    assert_eq!(journal.durable(), last, "barriers have room still");
    assert!(journal.poisoned().is_none(), "a full disk is no failure (J6)");
    // Dropping does nothing, like a kill. Then the journal is opened on the full disk.
    drop(journal);
    let found = Journal::inspect(&dir, &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.torn, found.noted), (last, None, noted));
    let journal = Journal::resume(roomy(&dir, &Arc::default()), &found).unwrap();
    assert!(is_full(&journal.append(&change(1, 100))));
    journal.trim(last).unwrap();
    disk.empty();
    for _ in 0..100 {
        journal.append(&change(1, 20_000)).unwrap();
    }
    journal.sync_data(journal.mark().unwrap()).unwrap();
    let last = journal.appended();
    drop(journal);
    let found = Journal::inspect(&dir, &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.durable, found.torn), (last, last, None));
}

#[test]
fn j8_without_any_room_notes_and_barriers_are_made_up_for() {
    let disk = SmallDisk::of(3 * MIB);
    let dir = disk.path().join("journal");
    // Nothing is reserved ahead.
    let journal = Journal::create(options(real(&dir)), NOTHING).unwrap();
    journal.append(&change(1, 900_000)).unwrap();
    disk.fill();
    while journal.append(&change(1, 100)).is_ok() {}
    let last = journal.appended();
    let noted = NotedCommit { upto: last, number: CommitNo(7), hash: Hash([7; 32]) };
    while journal.sync_data(journal.mark().unwrap()).is_ok() {}
    journal.note(noted).unwrap();
    assert!(is_full(&journal.sync_data(journal.mark().unwrap())));
    assert_eq!(journal.noted(), noted);
    assert_ne!(journal.durable_noted(), noted, "it is not written yet");
    assert!(journal.poisoned().is_none() && journal.unsynced());
    let mark = journal.mark().unwrap();
    disk.empty();
    journal.sync_data(mark).unwrap();
    assert_ne!(journal.durable_noted(), noted, "it came after the mark");
    assert!(journal.unsynced(), "so it is told to the next barrier");
    journal.sync_data(journal.mark().unwrap()).unwrap();
    assert_eq!((journal.durable_noted(), journal.durable()), (noted, last));
    drop(journal);
    assert_eq!(Journal::inspect(&dir, &keys()).unwrap().unwrap().noted, noted);
}

#[test]
fn j8_the_journal_counts_what_it_takes_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let room = Arc::new(Plain::default());
    let journal = Journal::create(roomy(dir.path(), &room), NOTHING).unwrap();
    let agree = |room: &Plain| {
        let (counted, there) = (room.taken.load(Ordering::Relaxed), on_disk(dir.path()));
        assert!(counted.abs_diff(there) <= 64 * KIB, "{counted} counted, {there} taken");
    };
    agree(&room);
    for _ in 0..150 {
        journal.append(&change(1, 20_000)).unwrap();
    }
    agree(&room);
    let last = journal.appended();
    let noted = NotedCommit { upto: last, number: CommitNo(7), hash: Hash([7; 32]) };
    journal.note(noted).unwrap();
    journal.sync_data(journal.mark().unwrap()).unwrap();
    let before = room.taken.load(Ordering::Relaxed);
    journal.trim(last).unwrap();
    assert!(room.taken.load(Ordering::Relaxed) + MIB < before);
    agree(&room);
    drop(journal);
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    let again = Arc::new(Plain::default());
    let _journal = Journal::resume(roomy(dir.path(), &again), &found).unwrap();
    agree(&again);
}

#[test]
fn j1_a_segment_that_cannot_be_begun_is_tried_again_and_is_none_until_it_has_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let room = Arc::new(Plain::default());
    let journal = Journal::create(roomy(dir.path(), &room), NOTHING).unwrap();
    // This blocks whatever is to be made there.
    let obstacle = dir.path().join("making");
    fs::create_dir(&obstacle).unwrap();
    for _ in 0..80 {
        journal.append(&change(1, 20_000)).unwrap();
    }
    assert!(!segment::path(dir.path(), 2).exists());
    fs::remove_dir(&obstacle).unwrap();
    for _ in 0..10 {
        journal.append(&change(1, 20_000)).unwrap();
    }
    assert!(segment::path(dir.path(), 2).exists());
    journal.sync_data(journal.mark().unwrap()).unwrap();
    drop(journal);
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.durable, found.torn), (Seq(90), Seq(90), None));
}

#[test]
fn j3_a_last_segment_without_a_start_is_a_torn_tail() {
    for left in [&b""[..], &[0; 32], &[0; 5000]] {
        let dir = tempfile::tempdir().unwrap();
        let journal = create(dir.path());
        journal.append(&change(1, 40)).unwrap();
        journal.sync_data(journal.mark().unwrap()).unwrap();
        drop(journal);
        let mut content = fs::read(segment::path(dir.path(), 1)).unwrap()[..32].to_vec();
        content[31] = 2;
        content.extend_from_slice(left);
        fs::write(segment::path(dir.path(), 2), &content).unwrap();
        fs::write(dir.path().join("making"), left).unwrap();
        let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
        assert_eq!((found.last, found.torn.is_some()), (Seq(1), true));
        let journal = Journal::resume(options(real(dir.path())), &found).unwrap();
        journal.append(&change(1, 40)).unwrap();
        assert!(!segment::path(dir.path(), 2).exists());
    }
}

/// A journal of at least four segments, all durable; with `is_confirmed`, the bucket has them all.
fn long(dir: &Path, is_confirmed: bool) -> Journal {
    let journal = Journal::create(roomy(dir, &Arc::default()), NOTHING).unwrap();
    while count(dir) < 4 {
        journal.append(&change(1, 20_000)).unwrap();
    }
    if is_confirmed {
        let upto = journal.appended();
        let noted = NotedCommit { upto, number: CommitNo(9), hash: Hash([9; 32]) };
        journal.note(noted).unwrap();
    }
    journal.append(&change(1, 40)).unwrap();
    journal.sync_data(journal.mark().unwrap()).unwrap();
    journal
}

#[test]
fn j5_what_a_removal_left_of_confirmed_segments_is_no_damage() {
    // After a power cut any of the names may be back.
    for gone in [vec![1, 2, 3], vec![2, 3], vec![2], vec![3], vec![1, 3], vec![1]] {
        let dir = tempfile::tempdir().unwrap();
        let last = long(dir.path(), true).appended();
        for number in &gone {
            fs::remove_file(segment::path(dir.path(), *number)).unwrap();
        }
        let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
        assert_eq!((found.last, found.torn), (last, None), "without {gone:?}");
        assert_eq!(found.unsent.len(), 1);
        let journal = Journal::resume(roomy(dir.path(), &Arc::default()), &found).unwrap();
        journal.append(&change(1, 40)).unwrap();
        drop(journal);
        let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
        assert_eq!((found.last, found.torn), (last.next(), None), "without {gone:?}");
    }
}

#[test]
fn j3_a_segment_that_is_missing_while_it_is_needed_is_damage() {
    for gone in [1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        drop(long(dir.path(), false));
        fs::remove_file(segment::path(dir.path(), gone)).unwrap();
        let error = Journal::inspect(dir.path(), &keys()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "without {gone}: {error}");
    }
}
