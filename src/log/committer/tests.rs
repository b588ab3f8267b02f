//! C2 and C3: one in flight, the same bytes each time, and never two winners.

use std::ops::Deref;
use std::time::{Duration, SystemTime};

use super::super::chain::Head;
use super::super::*;
use crate::records::{Change, Claimant, Key, Transaction, WriterClaim, decode_value};
use crate::store::{Fault, On, Verb};
use crate::types::{CommitNo, Generation, Hash, JournalId, Seq};

struct World {
    ground: Ground,
}

impl Deref for World {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl World {
    fn new() -> Self {
        Self { ground: Ground::new(Duration::from_millis(200)) }
    }

    async fn committer(&self) -> Committer {
        let chain = Chain::new(self.bucket.clone(), self.keys.clone());
        let mut recent = Vec::new();
        let noted = |link: ChainedCommit| {
            LogEnd::note(&mut recent, link.number, &link.hash);
            Ok::<_, Error>(())
        };
        let head = chain.follow((CommitNo(0), Hash::ZERO), noted).await.unwrap();
        let end = LogEnd { head, recent, generation: Generation(1), upto: Seq(0) };
        Committer::new(self.bucket.clone(), self.keys.clone(), end)
    }

    async fn head(&self) -> Head {
        let chain = Chain::new(self.bucket.clone(), self.keys.clone());
        chain.follow((CommitNo(0), Hash::ZERO), |_| Ok::<_, Error>(())).await.unwrap()
    }
}

fn transaction(seq: u64) -> Journaled {
    let key = Key::Pin(seq.to_be_bytes().to_vec()).encode();
    let bytes = Transaction::new(vec![Change { key, value: None }]).encode().unwrap();
    let hash = Transaction::hash_of(&bytes);
    Journaled { seq: Seq(seq), bytes, hash }
}

fn claimant(machine: &str) -> Claimant {
    Claimant { machine: machine.into(), host: machine.into(), journal: JournalId([1; 16]) }
}

#[tokio::test]
async fn c3_each_commit_names_its_predecessor_and_gaps_and_strangers_are_told() {
    let world = World::new();
    let mut committer = world.committer().await;
    for seq in 1..=5 {
        committer.prepare(&[transaction(seq)]);
        let receipt = committer.attempt().await.unwrap();
        assert_eq!((receipt.number(), receipt.upto()), (CommitNo(seq), Seq(seq)));
    }
    assert_eq!(world.head().await.number, CommitNo(5));
    let chain = Chain::new(world.bucket.clone(), world.keys.clone());
    let read = || chain.follow((CommitNo(0), Hash::ZERO), |_| Ok::<_, Error>(()));
    let three = world.store.steal("log/0000000000000003").unwrap();
    let gap = read().await.unwrap_err();
    assert!(matches!(gap, Error::Gap { missing: CommitNo(3), .. }), "{gap}");
    let two = world.store.peek("log/0000000000000002").unwrap();
    world.store.plant("log/0000000000000003", two);
    assert!(matches!(read().await.unwrap_err(), Error::Seal { .. }));
    let mut cut = three.to_vec();
    cut.truncate(cut.len() - 1);
    world.store.steal("log/0000000000000003");
    world.store.plant("log/0000000000000003", cut);
    assert!(matches!(read().await.unwrap_err(), Error::Seal { .. }));
    world.store.steal("log/0000000000000003");
    world.store.plant("log/0000000000000003", three);
    read().await.unwrap();
}

#[tokio::test]
async fn c2_a_reply_that_is_lost_after_the_put_was_applied_is_found_out() {
    let world = World::new();
    let mut committer = world.committer().await;
    committer.prepare(&[transaction(1)]);
    world.faulty.inject(On::next(Verb::Put, "log/"), Fault::LosesReply);
    let receipt = committer.attempt().await.unwrap();
    assert_eq!(receipt.number(), CommitNo(1));
    committer.prepare(&[transaction(2)]);
    assert_eq!(committer.attempt().await.unwrap().number(), CommitNo(2));
}

#[tokio::test]
async fn c2_an_attempt_that_was_not_applied_is_repeated_with_the_same_bytes() {
    let world = World::new();
    let mut committer = world.committer().await;
    committer.prepare(&[transaction(1)]);
    let sealed = committer.pending_bytes();
    world.faulty.inject(On::next(Verb::Put, "log/"), Fault::Breaks);
    let error = committer.attempt().await.unwrap_err();
    assert!(matches!(error, CommitError::Again { .. }), "{error}");
    committer.attempt().await.unwrap();
    assert_eq!(world.store.peek("log/0000000000000001"), sealed);
}

#[tokio::test]
async fn c2_the_loser_of_a_race_is_fenced_for_good() {
    let world = World::new();
    let mut one = world.committer().await;
    let mut other = world.committer().await;
    one.prepare(&[transaction(1)]);
    other.prepare(&[transaction(1)]);
    one.attempt().await.unwrap();
    for _ in 0..2 {
        let error = other.attempt().await.unwrap_err();
        assert!(matches!(error, CommitError::Fenced { found: CommitNo(1) }), "{error}");
    }
    one.prepare(&[transaction(2)]);
    one.attempt().await.unwrap();
    assert_eq!(world.head().await.number, CommitNo(2));
}

#[tokio::test]
async fn c2_what_someone_without_the_key_puts_fences_nobody_and_is_named() {
    let world = World::new();
    let mut committer = world.committer().await;
    committer.prepare(&[transaction(1)]);
    committer.attempt().await.unwrap();
    let first = world.store.peek("log/0000000000000001").unwrap();
    let numbers = [2, 3, u64::MAX];
    for (n, bytes) in numbers.into_iter().zip([first.to_vec(), vec![7; 100], Vec::new()]) {
        let name = format!("log/{}", CommitNo(n));
        world.store.plant(&name, bytes);
        if !committer.is_pending() {
            committer.prepare(&[transaction(2)]);
        }
        for _ in 0..2 {
            // After a put that is believed, nothing is listed.
            world.faulty.inject(On::next(Verb::Put, "log/"), Fault::Breaks);
            let error = committer.attempt().await.unwrap_err();
            assert!(matches!(error, CommitError::Log(Error::Stranger { .. })), "{error}");
            assert!(error.to_string().starts_with(&name), "{error}");
        }
        // A new machine reports it as well.
        let chain = Chain::new(world.bucket.clone(), world.keys.clone());
        let told = chain.follow((CommitNo(0), Hash::ZERO), |_| Ok::<_, Error>(())).await;
        assert!(told.is_err_and(|error| error.to_string().starts_with(&name)));
        world.store.steal(&name);
    }
    // Once it is gone, the log goes on.
    assert_eq!(committer.attempt().await.unwrap().number(), CommitNo(2));
    // Another writer's commit among strangers still fences.
    let mut other = world.committer().await;
    for seq in 1..=2 {
        other.prepare(&[transaction(seq)]);
        other.attempt().await.unwrap();
    }
    world.store.steal("log/0000000000000003");
    world.store.plant(&format!("log/{}", CommitNo(u64::MAX)), b"x".to_vec());
    committer.prepare(&[transaction(3)]);
    world.faulty.inject(On::next(Verb::Put, "log/"), Fault::Breaks);
    let fenced = committer.attempt().await.unwrap_err();
    assert!(matches!(fenced, CommitError::Fenced { found: CommitNo(4) }), "{fenced}");
}

#[tokio::test]
async fn c2_an_old_date_is_not_believed() {
    let world = World::new();
    let mut sleeper = world.committer().await;
    sleeper.prepare(&[transaction(1)]);
    // While the sleeper sleeps, another writer puts three commits, and the first is trimmed: its
    // number is free.
    let mut other = world.committer().await;
    for seq in 1..=3 {
        other.prepare(&[transaction(seq)]);
        other.attempt().await.unwrap();
    }
    world.store.steal("log/0000000000000001");
    world.store.advance(Duration::from_secs(4 * 24 * 60 * 60));
    let error = sleeper.attempt().await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced { found: CommitNo(2) }), "{error}");
}

#[tokio::test]
async fn c2_a_store_that_tells_no_date_is_never_believed_at_once() {
    let world = World::new();
    world.store.set_time(SystemTime::UNIX_EPOCH);
    let mut sleeper = world.committer().await;
    sleeper.prepare(&[transaction(1)]);
    let mut other = world.committer().await;
    for seq in 1..=3 {
        other.prepare(&[transaction(seq)]);
        assert_eq!(other.attempt().await.unwrap().number(), CommitNo(seq));
    }
    world.store.steal("log/0000000000000001");
    let error = sleeper.attempt().await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced { found: CommitNo(2) }), "{error}");
}

#[tokio::test]
async fn c2_a_clock_that_moved_costs_a_listing_and_no_more() {
    let world = World::new();
    let mut committer = world.committer().await;
    world.store.set_time(SystemTime::now() + Duration::from_secs(40 * 24 * 60 * 60));
    committer.prepare(&[transaction(1)]);
    assert_eq!(committer.attempt().await.unwrap().number(), CommitNo(1));
}

#[tokio::test]
async fn w1_a_claim_is_a_commit_of_its_own_number_and_is_released() {
    let world = World::new();
    let mut committer = world.committer().await;
    let claim = committer.claim(&claimant("a")).await.unwrap();
    let record: WriterClaim =
        decode_value("meta", claim.records()[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((record.epoch, record.released), (claim.number(), None));
    let release = committer.release().await.unwrap();
    let record: WriterClaim =
        decode_value("meta", release.records()[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(record.epoch, claim.number());
    assert!(record.released.is_some());
}

#[tokio::test]
async fn w3_two_that_claim_at_once_have_one_winner() {
    let world = World::new();
    let mut one = world.committer().await;
    let mut other = world.committer().await;
    let (mine, theirs) = (claimant("a"), claimant("b"));
    let (one, other) = tokio::join!(one.claim(&mine), other.claim(&theirs));
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1);
    let lost = one.err().or(other.err()).unwrap();
    assert!(matches!(lost, CommitError::Fenced { .. }), "{lost}");
}

#[tokio::test]
async fn history_holds_the_hashes_of_each_run_of_256() {
    let world = World::new();
    let mut committer = world.committer().await;
    let mut hashes = vec![[0; 16]];
    for seq in 1..=600 {
        let next = committer.upto().next();
        committer.prepare(&[transaction(next.0)]);
        let receipt = committer.attempt().await.unwrap();
        let mut short = [0; 16];
        short.copy_from_slice(&receipt.hash().0[..16]);
        hashes.push(short);
        if receipt.number().0.is_multiple_of(256) {
            let run = receipt.number().0 / 256 - 1;
            let record = &receipt.records()[0];
            assert_eq!(Key::decode(&record.key).unwrap(), Key::History(run));
            let held: minicbor::bytes::ByteVec =
                decode_value("history", record.value.as_ref().unwrap()).unwrap();
            let from = usize::try_from(run).unwrap() * 256;
            assert_eq!(&held[..], hashes[from..from + 256].concat());
        } else {
            assert!(receipt.records().is_empty());
        }
        if seq == 300 {
            committer = world.committer().await;
        }
    }
}
