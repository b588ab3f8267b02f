//! Tests of the staging area on a real directory.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::log::RoomClass;
use crate::types::{KIB, MIB, PackId, Seq};
use crate::upload::{Error, Footers, StagingLimits};

const FOOTER: &[u8] = b"<footer>";

struct TestFooters;

impl Footers for TestFooters {
    fn is_good(&self, staging: &Staging, pack: PackId, length: u64) -> bool {
        let from = length.saturating_sub(FOOTER.len() as u64);
        staging.read(pack, from..length).unwrap().is_some_and(|tail| tail == FOOTER)
    }
    fn make(&self, _: PackId, _: u64) -> Vec<u8> {
        FOOTER.to_vec()
    }
}

fn id(n: u8) -> PackId {
    PackId([n; 16])
}

fn limits(budget: u64) -> StagingLimits {
    StagingLimits { budget, free_floor: 0, wait: Duration::from_millis(200) }
}

fn open(dir: &tempfile::TempDir) -> Staging {
    Staging::open(&dir.path().join("staging"), limits(MIB)).unwrap()
}

#[test]
fn open_and_closed_packs_are_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    let mut pack = staging.create(id(1)).unwrap();
    let hold = staging.hold(id(1));
    assert_eq!(pack.append(b"hello ").unwrap(), 0);
    assert_eq!(pack.append(b"world").unwrap(), 6);
    assert_eq!(staging.read(id(1), 4..8).unwrap().unwrap(), "o wo");
    assert!(matches!(staging.read(id(1), 4..12), Err(Error::Short { length: 11, .. })));
    pack.close(FOOTER).unwrap();
    assert_eq!(staging.read(id(1), 4..8).unwrap().unwrap(), "o wo");
    assert!(dir.path().join(format!("staging/{}.pack", id(1))).exists());
    assert_eq!(staging.read(id(2), 0..1).unwrap(), None);
    assert_eq!(staging.usage().used, 19);
    drop(hold);
}

/// As after a panic of its writer: nobody would close the pack, and a caller that waits for what refers to it would wait
/// forever.
#[test]
fn j6_a_pack_that_is_given_up_open_poisons_if_anything_refers_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    drop(staging.create(id(1)).unwrap());
    assert_eq!((staging.poisoned(), staging.contains(id(1))), (None, false));
    let pack = staging.create(id(2)).unwrap();
    let _hold = staging.hold(id(2));
    drop(pack);
    assert!(staging.poisoned().is_some_and(|why| why.contains("open")));
    assert!(staging.contains(id(2)), "the next mount closes it");
}

#[test]
fn j8_what_is_taken_beside_is_missing_for_what_is_written_and_not_for_what_frees_room() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    let fits = |bytes| staging.try_reserve(bytes).unwrap().is_some();
    assert!(fits(512 * KIB));
    staging.takes_beside(512 * KIB);
    assert!(!fits(512 * KIB) && fits(128 * KIB));
    staging.takes_beside(MIB);
    let journal = staging.journal_room();
    assert!(!fits(1) && !journal.take(1, RoomClass::Change));
    assert!(journal.take(1, RoomClass::FreesRoom) && journal.take(1, RoomClass::Upkeep));
    staging.takes_beside(0);
    assert!(fits(512 * KIB));
}

#[test]
fn c4_a_pack_that_nothing_refers_to_goes_and_a_late_reference_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    for n in 1..=2 {
        let mut pack = staging.create(id(n)).unwrap();
        pack.append(b"data").unwrap();
        let hold = staging.hold(id(n));
        if n == 2 {
            assert_eq!(staging.appending(Seq(1), &[id(2), id(9)]).unwrap(), [id(2)]);
        }
        pack.close(FOOTER).unwrap();
        assert!(staging.contains(id(n)), "held");
        drop(hold);
    }
    assert!(!staging.contains(id(1)), "neither held nor referred to");
    assert!(staging.contains(id(2)), "referred to");
    assert!(matches!(staging.appending(Seq(2), &[id(1)]), Err(Error::Gone(_))));
    assert_eq!(staging.usage().used, 12);
}

#[test]
fn a_pack_dropped_open_stays_only_if_something_refers_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    let pack = staging.create(id(1)).unwrap();
    drop(pack);
    assert!(!staging.contains(id(1)));
    let mut pack = staging.create(id(2)).unwrap();
    pack.append(b"data").unwrap();
    staging.appending(Seq(1), &[id(2)]).unwrap();
    drop(pack);
    assert_eq!(staging.length(id(2)), Some(4));
}

#[test]
fn j7_a_pack_without_a_good_footer_is_cut_after_the_last_extent_referred_to() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    let mut packs = Vec::new();
    for n in 1..=4 {
        let mut pack = staging.create(id(n)).unwrap();
        packs.push(staging.hold(id(n)));
        pack.append(b"first second torn").unwrap();
        match n {
            1 => std::mem::forget(pack),
            2 | 4 => pack.close(FOOTER).unwrap(),
            _ => pack.close(b"half a foo").unwrap(), // renamed, but its end never reached the disk
        }
    }
    std::mem::forget(packs); // kill -9
    drop(staging);

    let staging = open(&dir);
    let upto = |end| std::iter::once(0..end).collect();
    let referred = HashMap::from([1, 2, 3].map(|n| (id(n), upto(12))));
    staging.appending(Seq(1), &[id(1), id(2), id(3)]).unwrap();
    let done = staging.recover(&referred, &TestFooters).unwrap();
    assert_eq!((done.whole, done.mended, done.removed), (1, 2, 1));
    for n in [1, 3] {
        assert_eq!(staging.read(id(n), 0..20).unwrap().unwrap(), "first second<footer>");
        assert_eq!(staging.length(id(n)), Some(20));
    }
    assert_eq!(staging.length(id(2)), Some(17 + 8));
    // What was cut off it is confirmed, and is read from the bucket.
    assert!(staging.read(id(3), 12..400).unwrap().is_none());
    assert!(!staging.contains(id(4)), "nothing refers to it");
    assert_eq!(staging.usage().used, 20 + 20 + 25);
    // A pack that is not here is taken to be in the bucket: a copied reference is no error.
    assert!(staging.appending(Seq(2), &[id(4)]).unwrap().is_empty());
    // Interrupted and repeated, recovery has the same result.
    let again = open(&dir).recover(&referred, &TestFooters).unwrap();
    assert_eq!((again.whole, again.mended, again.removed), (3, 0, 0));
    let too_far = HashMap::from([(id(1), upto(4 * KIB))]);
    assert!(matches!(open(&dir).recover(&too_far, &TestFooters), Err(Error::Short { .. })));
}

#[tokio::test]
async fn j8_a_full_staging_is_backpressure_then_full_and_the_reserve_stays() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    let first = staging.reserve(512 * KIB).await.unwrap();
    assert!(first.bytes() > 512 * KIB, "overhead is counted");
    assert!(staging.try_reserve(400 * KIB).unwrap().is_none());
    assert!(matches!(staging.reserve(400 * KIB).await, Err(Error::Full)));
    let mut all = Vec::new();
    while let Some(more) = staging.try_reserve(4 * KIB).unwrap() {
        all.push(more);
    }
    assert!(staging.usage().reserved <= MIB / 8 * 7, "a reserve is kept back");
    let room = staging.journal_room();
    assert!(room.take(60 * KIB, RoomClass::Change), "what is written can be published");
    assert!(!room.take(30 * KIB, RoomClass::Change), "the other half is kept back from changes");
    assert!(room.take(30 * KIB, RoomClass::FreesRoom), "for what frees room");
    assert!(room.take(30 * KIB, RoomClass::Upkeep), "and for what must go on");
    assert!(!room.take(30 * KIB, RoomClass::Upkeep), "but the budget is the budget");
    room.give_back(120 * KIB);
    drop(all);

    let waiter = tokio::spawn({
        let staging = staging.clone();
        async move { staging.reserve(400 * KIB).await }
    });
    let mut waiting = staging.waiting();
    waiting.wait_for(|n| *n == 1).await.unwrap();
    drop(first);
    assert!(waiter.await.unwrap().is_ok(), "room given back wakes the one who waits");
    assert_eq!(staging.usage().reserved, 0);
}

#[tokio::test]
async fn j8_what_is_in_packs_counts_and_a_removed_pack_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    let mut pack = staging.create(id(1)).unwrap();
    let hold = staging.hold(id(1));
    let mut reservation = staging.reserve(600 * KIB).await.unwrap();
    pack.append(&vec![0; 600 << 10]).unwrap();
    drop(reservation.split(600 * KIB));
    assert_eq!(reservation.bytes(), 0);
    assert!(staging.try_reserve(400 * KIB).unwrap().is_none());
    pack.close(FOOTER).unwrap();
    drop(hold);
    let mut other = staging.try_reserve(400 * KIB).unwrap().unwrap();
    other.absorb(staging.try_reserve(10 * KIB).unwrap().unwrap());
    assert_eq!(staging.usage().reserved, cost(400 * KIB) + cost(10 * KIB));
}

#[test]
fn j8_the_disk_keeps_its_floor() {
    let dir = tempfile::tempdir().unwrap();
    let limits = StagingLimits { free_floor: u64::MAX, ..limits(MIB) };
    let staging = Staging::open(dir.path(), limits).unwrap();
    assert!(staging.try_reserve(1).unwrap().is_none());
    assert!(!staging.journal_room().take(KIB, RoomClass::Change), "of the journal too");
    assert!(staging.journal_room().take(KIB, RoomClass::FreesRoom));
}

#[test]
fn j6_after_a_poison_everything_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let staging = open(&dir);
    let mut pack = staging.create(id(1)).unwrap();
    pack.append(b"before").unwrap();
    let _hold = staging.hold(id(1));
    staging.poison("fsync: EIO");
    staging.poison("and another");
    assert!(matches!(pack.append(b"x"), Err(Error::Poisoned(reason)) if reason == "fsync: EIO"));
    assert!(pack.close(FOOTER).is_err());
    assert!(staging.create(id(2)).is_err());
    assert!(staging.appending(Seq(1), &[]).is_err());
    assert!(staging.try_reserve(1).is_err());
    assert_eq!(staging.read(id(1), 0..6).unwrap().unwrap(), "before", "reading goes on");
}
