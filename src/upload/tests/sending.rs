//! C1, C4, C5, J7: packs, then commits, whatever the store does.

use std::sync::Arc;
use std::time::Duration;

use super::rig::*;
use crate::log::{CommitContent, CommitHeader, seal_commit};
use crate::os::PipelineStep;
use crate::records::TRANSACTION_MAX;
use crate::store::{Error as StoreError, Fault, On, Verb};
use crate::types::{CommitNo, Generation, Hash, MIB, Seq, Timestamp};
use crate::upload::{Error, pack_object};

const MANY: usize = 2 << 20;

/// The names of all puts in order, repeated attempts included.
fn puts(rig: &Rig) -> Vec<String> {
    let requests = rig.faulty.take_requests();
    requests.into_iter().filter(|r| r.verb == Verb::Put).map(|r| r.name).collect()
}

#[tokio::test]
async fn c1_data_before_pointer() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    // The pack of the first transaction is still open; the second needs no pack.
    let (pack, hold) = rig.pack(1, 1000);
    rig.publish(1, &[1], 1000);
    drop(hold);
    let second = rig.touch(2);
    let late = uploader.sync(second, Duration::from_millis(300)).await;
    assert!(matches!(late, Err(Error::Unfinished { missing }) if missing.contains("2 changes")));
    assert!(puts(&rig).is_empty(), "in order: nothing overtakes");
    pack.close(FOOTER).unwrap();
    uploader.sync(second, SOON).await.unwrap();
    let order = puts(&rig);
    assert_eq!(order, [pack_object(id(1)), "log/0000000000000002".into()]);
    assert_eq!(rig.logged(), [2]);
}

#[tokio::test]
async fn c1_a_run_ends_before_the_first_transaction_whose_pack_is_missing() {
    let rig = Rig::new();
    rig.faulty.inject(On::next(Verb::Put, &pack_object(id(2))).always(), Fault::Breaks);
    let uploader = rig.uploader(quick()).await;
    let first = rig.file(1, 100);
    rig.file(2, 100);
    let last = rig.file(3, MANY);
    uploader.sync(first, SOON).await.unwrap();
    until("the third pack is sent", || rig.store.peek(&pack_object(id(3))).is_some()).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(uploader.confirmed(), first);
    rig.faulty.heal();
    uploader.sync(last, SOON).await.unwrap();
    assert_eq!(rig.logged(), [1, 2]);
}

#[tokio::test]
async fn c1_what_comes_while_a_commit_is_in_flight_rides_together() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    rig.faulty.inject(On::next(Verb::Put, "log/"), Fault::Delays(Duration::from_millis(150)));
    rig.touch(1);
    until("a commit is on the wire", || rig.stepped(PipelineStep::CommitPrepared) == 1).await;
    for n in 2..=500 {
        rig.touch(n);
    }
    uploader.finish(SOON).await.unwrap();
    assert_eq!(rig.logged(), [1, 499]);
    assert_eq!(*rig.confirmed.lock(), [Seq(1), Seq(500)]);
}

#[tokio::test]
async fn c1_a_commit_lingers_unless_somebody_waits_for_it() {
    let rig = Rig::new();
    let limits = crate::upload::UploadLimits { linger: Duration::from_secs(60), ..quick() };
    let uploader = rig.uploader(limits).await;
    rig.touch(1);
    rig.touch(2);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(puts(&rig).is_empty(), "it lingers");
    uploader.sync(Seq(2), SOON).await.unwrap();
    assert_eq!(rig.logged(), [2]);
}

#[tokio::test]
async fn c1_a_commit_is_at_most_16_mib() {
    let rig = Rig::new();
    let uploader = {
        for n in 0..10 {
            let value = Some(vec![n; 3 << 20].into());
            let key = crate::records::Key::Pin(vec![n]).encode();
            let change = crate::records::Change { key, value };
            rig.journal.append(&crate::records::Transaction::new(vec![change])).unwrap();
        }
        rig.uploader(quick()).await
    };
    uploader.finish(SOON).await.unwrap();
    let most = 16 * (1 << 20) + (1 << 16);
    let names = rig.store.names();
    assert!(names.iter().all(|name| rig.store.peek(name).unwrap().len() <= most));
    assert_eq!(rig.logged().iter().sum::<usize>(), 10);
    assert!(rig.logged().len() <= 4 && TRANSACTION_MAX < most);
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_moves_is_not_given_up_and_one_that_does_not_is() {
    let rig = Rig::new();
    let patience = Duration::from_millis(400);
    let slow = Fault::Delays(patience / 2);
    rig.faulty.inject(On::next(Verb::Put, "pack/").always(), slow);
    let limits = crate::upload::UploadLimits { parallel: 1, ..quick() };
    let uploader = rig.uploader(limits).await;
    // One transaction refers to all of them, so no commit shows progress.
    let packs: Vec<u16> = (1..=6).collect();
    for n in &packs {
        let (pack, hold) = rig.pack(*n, MANY);
        std::mem::forget(hold);
        pack.close(FOOTER).unwrap();
    }
    let seq = rig.publish(1, &packs, MANY);
    let moves = std::sync::atomic::AtomicU32::new(0);
    let note = || _ = moves.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    uploader.sync_while_moving(seq, patience, note).await.unwrap();
    assert!(began.elapsed() > 2 * patience, "or nothing is shown");
    assert!(moves.into_inner() >= 5);

    rig.faulty.heal();
    rig.faulty.inject(On::next(Verb::Put, "").always(), Fault::Breaks);
    let seq = rig.touch(2);
    let began = tokio::time::Instant::now();
    let dead = uploader.sync_while_moving(seq, patience, || ()).await;
    assert!(matches!(dead, Err(Error::Unfinished { .. })), "{dead:?}");
    assert!(began.elapsed() < 4 * patience);
}

#[tokio::test(start_paused = true)]
async fn one_pack_and_one_commit_that_move_are_waited_for_however_long_they_take() {
    let rig = Rig::new();
    let patience = Duration::from_millis(400);
    let slow = Fault::Trickles(8, patience / 4);
    rig.faulty.inject(On::next(Verb::Put, "pack/"), slow.clone());
    rig.faulty.inject(On::next(Verb::Put, "log/").after(1), slow); // the first is the claim
    let uploader = rig.uploader(quick()).await;
    let (pack, hold) = rig.pack(1, MANY);
    std::mem::forget(hold);
    pack.close(FOOTER).unwrap();
    let seq = rig.publish(1, &[1], MANY);
    let began = tokio::time::Instant::now();
    uploader.sync_while_moving(seq, patience, || ()).await.unwrap();
    assert!(began.elapsed() >= 4 * patience, "or nothing is shown");

    // What is taken and then lost, again and again, is no progress, whatever the wire carries.
    for prefix in ["pack/", "log/"] {
        rig.faulty.heal();
        rig.faulty.inject(On::next(Verb::Put, prefix).always(), Fault::Wastes);
        let (pack, hold) = rig.pack(if prefix == "log/" { 2 } else { 3 }, MANY);
        std::mem::forget(hold);
        pack.close(FOOTER).unwrap();
        let seq = rig.publish(2, &[if prefix == "log/" { 2 } else { 3 }], MANY);
        let began = tokio::time::Instant::now();
        let dead = uploader.sync_while_moving(seq, patience, || ()).await;
        assert!(matches!(dead, Err(Error::Unfinished { .. })), "{dead:?}");
        assert!(began.elapsed() < 4 * patience, "{prefix}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn c4_a_pack_stays_until_its_transactions_are_confirmed_and_that_is_synced() {
    let rig = Rig::with(64 * MIB, Duration::from_secs(3600));
    rig.faulty.inject(On::next(Verb::Put, "log/").after(1).always(), Fault::Breaks);
    let uploader = rig.uploader(quick()).await;
    let seq = rig.file(1, 1000);
    until("the pack is sent", || rig.stepped(PipelineStep::PackConfirmed) == 1).await;
    rig.barrier.sync(seq).await.unwrap();
    assert!(rig.staging.contains(id(1)), "its transaction is not confirmed");
    assert_eq!(rig.staging.usage().unsent_packs, 0);
    rig.faulty.heal();
    uploader.sync(seq, SOON).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.staging.contains(id(1)), "confirmed, but the journal's note may be lost");
    rig.touch(2);
    rig.barrier.sync_all().await.unwrap();
    until("it leaves", || !rig.staging.contains(id(1))).await;
    assert_eq!(*rig.adopted.lock(), [pack_object(id(1))]);
    assert_eq!(rig.staging.usage().used, 0);
}

#[tokio::test]
async fn c4_a_pack_stays_while_an_unpublished_write_refers_to_it() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    // A stream: its first pack is uploaded before anything refers to it (V1).
    let (pack, hold) = rig.pack(1, MANY);
    pack.close(FOOTER).unwrap();
    until("the pack is sent", || rig.stepped(PipelineStep::PackConfirmed) == 1).await;
    rig.touch(7);
    uploader.finish(SOON).await.unwrap();
    rig.barrier.sync_all().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.staging.contains(id(1)), "held");
    rig.publish(1, &[1], MANY);
    drop(hold);
    assert!(rig.staging.contains(id(1)), "referred to");
    uploader.finish(SOON).await.unwrap();
    until("it leaves", || !rig.staging.contains(id(1))).await;
}

#[tokio::test]
async fn c4_a_pack_that_somebody_waits_for_leaves_at_once() {
    let rig = Rig::with(4 * MIB, Duration::from_secs(3600));
    let uploader = rig.uploader(quick()).await;
    let seq = rig.file(1, MANY);
    uploader.sync(seq, SOON).await.unwrap();
    assert!(rig.staging.contains(id(1)));
    let room = tokio::time::timeout(SOON, rig.staging.reserve(2 * MIB));
    assert!(room.await.unwrap().is_ok(), "the wait for room brings the barrier on");
    assert!(!rig.staging.contains(id(1)));
}

#[tokio::test]
async fn c5_a_store_that_keeps_half_or_nothing_does_not_make_anything_sent() {
    for fault in [Fault::KeepsHalf, Fault::KeepsNothing, Fault::KeepsOther] {
        let rig = Rig::new();
        rig.faulty.inject(On::next(Verb::Put, "pack/").times(12), fault.clone());
        let uploader = rig.uploader(quick()).await;
        let seq = rig.file(1, 5000);
        until("it is tried", || uploader.status().trouble.len() == 1).await;
        assert_eq!(uploader.confirmed(), Seq(0));
        assert_eq!(uploader.status().staging.unsent_packs, 1, "{fault:?}");
        assert!(rig.logged().is_empty());
        rig.faulty.heal();
        uploader.sync(seq, SOON).await.unwrap();
        assert_eq!(rig.store.peek(&pack_object(id(1))).unwrap().len(), 5000 + FOOTER.len());
        assert!(uploader.status().trouble.is_empty());
    }
}

#[tokio::test]
async fn c5_a_commit_that_was_answered_but_not_kept_is_put_again() {
    for fault in [Fault::KeepsHalf, Fault::KeepsNothing, Fault::KeepsOther] {
        let rig = Rig::new();
        let uploader = rig.uploader(quick()).await;
        rig.faulty.inject(On::next(Verb::Put, "log/").times(3), fault.clone());
        let seq = rig.touch(1);
        uploader.sync(seq, SOON).await.unwrap();
        assert_eq!(rig.logged(), [1], "{fault:?}");
        assert!(puts(&rig).len() >= 4, "{fault:?}");
        assert!(rig.fenced.lock().is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn c2_a_reply_lost_after_the_put_was_applied_is_no_second_object() {
    let rig = Rig::new();
    rig.faulty.inject(On::next(Verb::Put, "pack/").times(2), Fault::LosesReply);
    let uploader = rig.uploader(quick()).await;
    rig.faulty.inject(On::next(Verb::Put, "log/").times(2), Fault::LosesReply);
    let seq = rig.file(1, 100);
    uploader.sync(seq, SOON).await.unwrap();
    let seq = rig.touch(2);
    uploader.sync(seq, SOON).await.unwrap();
    assert_eq!(rig.logged(), [1, 1]);
    assert_eq!(rig.store.names().len(), 4, "a pack, the claim, two commits");
}

#[tokio::test]
async fn a_store_that_was_down_for_a_while_gets_everything_and_says_why_not_before() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    rig.faulty.disappear();
    for n in 1..=20 {
        rig.file(n, if n % 3 == 0 { MANY } else { 500 });
    }
    let late = uploader.finish(Duration::from_millis(1500)).await.unwrap_err().to_string();
    assert!(late.contains("20 changes") && late.contains("20 packs"), "{late}");
    until("it is told", || !uploader.status().trouble.is_empty()).await;
    let status = uploader.status();
    assert!(status.trouble[0].error.contains("cannot be reached"), "{:?}", status.trouble);
    assert!(status.trouble[0].attempts >= 1 && status.unsent_transactions() == 20);
    rig.faulty.heal();
    uploader.finish(SOON).await.unwrap();
    assert!(uploader.status().trouble.is_empty());
    until("all leave", || rig.staging.packs().is_empty()).await;
    assert_eq!(rig.adopted.lock().len(), 20);
}

#[tokio::test]
async fn a_store_that_is_full_or_denies_is_tried_again() {
    let rig = Rig::new();
    let cause: Arc<dyn std::error::Error + Send + Sync> = Arc::from(Box::from("quota"));
    let full = StoreError::Full { object: "pack".into(), cause };
    rig.faulty.inject(On::next(Verb::Put, "pack/").times(3), Fault::Fails(full));
    let uploader = rig.uploader(quick()).await;
    let seq = rig.file(1, 100);
    until("it is said", || {
        uploader
            .status()
            .trouble
            .first()
            .is_some_and(|t| t.error.contains("no room left") || t.error.contains("full"))
    })
    .await;
    uploader.sync(seq, SOON).await.unwrap();
}

#[tokio::test]
async fn w3_fenced_nothing_more_is_sent_and_everything_stays() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    let header = CommitHeader {
        vault: rig.keys.vault(),
        number: CommitNo(2),
        previous: Hash([9; 32]),
        claim: CommitNo(2),
        generation: Generation(1),
        time: Timestamp::now(),
        records: Vec::new(),
    };
    let theirs = seal_commit(&rig.keys, &CommitContent { header, transactions: Vec::new() });
    rig.store.plant("log/0000000000000002", theirs);
    let seq = rig.file(1, 100);
    assert!(matches!(uploader.sync(seq, SOON).await, Err(Error::Fenced)));
    assert_eq!(rig.fenced.lock().len(), 1);
    assert!(uploader.status().fenced.is_some());
    puts(&rig);
    let seq = rig.file(2, 100);
    assert!(matches!(uploader.sync(seq, SOON).await, Err(Error::Fenced)));
    rig.barrier.sync_all().await.unwrap();
    assert!(puts(&rig).is_empty());
    assert!(rig.staging.contains(id(1)) && rig.staging.contains(id(2)));
    assert_eq!(rig.journal.read_after(Seq(0), 1 << 20).unwrap().len(), 2);
}

#[tokio::test]
async fn c2_what_is_no_commit_stops_uploads_until_it_is_gone_and_is_named() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    rig.store.plant("log/0000000000000002", "nobody's");
    let seq = rig.file(1, 100);
    let waits = uploader.sync(seq, Duration::from_millis(500)).await;
    assert!(matches!(waits, Err(Error::Unfinished { .. })), "{waits:?}");
    until("it is told", || !uploader.status().trouble.is_empty()).await;
    let status = uploader.status();
    assert!(status.fenced.is_none() && rig.fenced.lock().is_empty());
    assert!(
        format!("{:?}", status.trouble).contains("log/0000000000000002"),
        "{:?}",
        status.trouble
    );
    rig.store.steal("log/0000000000000002");
    uploader.sync(seq, SOON).await.unwrap();
}

#[tokio::test]
async fn j7_what_was_put_before_a_crash_under_the_same_id_is_right_if_our_extents_are_in_it() {
    // The bucket's object may be longer, end otherwise, or differ in what nothing refers to (this disk may have changed
    // that), but not in the extents that are needed.
    let ours = [vec![1; 1000], FOOTER.to_vec()].concat();
    let longer = [vec![1; 1000], vec![9; 500], b"<another footer>".to_vec()].concat();
    let (mut elsewhere, mut stranger) = (ours.clone(), ours.clone());
    (elsewhere[500], stranger[300]) = (2, 2);
    let broken = vec![1; 999]; // half a put: removed, and put again
    for (theirs, right, kept) in [
        (&ours, true, true),
        (&longer, true, true),
        (&elsewhere, true, true),
        (&stranger, false, true),
        (&broken, true, false),
    ] {
        let rig = Rig::new();
        let (pack, hold) = rig.pack(1, 1000);
        let seq = rig.publish(1, &[1], 1000);
        std::mem::forget((pack, hold)); // the crash
        let parts = [0..400, 600..1000].into_iter().collect();
        let found = std::collections::HashMap::from([(id(1), parts)]);
        rig.staging.recover(&found, &NoFooters).unwrap();
        rig.store.plant(&pack_object(id(1)), theirs.clone());
        let uploader = rig.uploader(quick()).await;
        let wait = if right { SOON } else { Duration::from_millis(500) };
        assert_eq!(uploader.sync(seq, wait).await.is_ok(), right);
        until("it is told", || right || !uploader.status().trouble.is_empty()).await;
        assert_eq!(rig.logged().len(), usize::from(right));
        let now = rig.store.peek(&pack_object(id(1))).unwrap();
        assert_eq!(now, if kept { theirs } else { &ours });
        if !right {
            assert!(uploader.status().trouble[0].error.contains("something else"));
            assert!(rig.staging.contains(id(1)));
        }
    }
}

struct NoFooters;

impl crate::upload::Footers for NoFooters {
    fn is_good(&self, _: &crate::upload::Staging, _: crate::types::PackId, _: u64) -> bool {
        false
    }
    fn make(&self, _: crate::types::PackId, _: u64) -> Vec<u8> {
        FOOTER.to_vec()
    }
}

/// How many packs are on the wire at once while all of these wait and the store is slow.
async fn at_once(sizes: &[usize]) -> u64 {
    let rig = Rig::new();
    let slow = Fault::Delays(Duration::from_millis(200));
    rig.faulty.inject(On::next(Verb::Put, "pack/").always(), slow);
    for (n, bytes) in (1..).zip(sizes) {
        rig.file(n, *bytes);
    }
    let uploader = rig.uploader(quick()).await;
    let mut most = 0;
    until("all are sent", || {
        most = most.max(uploader.status().sending);
        rig.store.names().len() > sizes.len()
    })
    .await;
    uploader.finish(SOON).await.unwrap();
    most
}

#[tokio::test]
async fn packs_that_are_not_full_go_one_at_a_time_and_full_ones_in_parallel() {
    assert_eq!(at_once(&[1000, 1000, 1000]).await, 1);
    assert_eq!(at_once(&[1 << 20, 1 << 20, 1 << 20, 1 << 20]).await, 3, "the limit");
    assert_eq!(at_once(&[1000, 1 << 20, 1000]).await, 2, "a small one waits for no stream");
}

#[tokio::test]
async fn bytes_on_the_wire_are_bounded_and_one_large_pack_goes_all_the_same() {
    assert_eq!(at_once(&[3 << 20, 3 << 20, 6 << 20]).await, 1, "4 MiB at most");
}

#[tokio::test]
async fn an_idle_uploader_sends_nothing_and_steps_nowhere() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    let seq = rig.file(1, 100);
    uploader.sync(seq, SOON).await.unwrap();
    until("the pack leaves", || rig.staging.packs().is_empty()).await;
    until("all is synced", || !rig.journal.unsynced()).await;
    until("that it left is told", || rig.stepped(PipelineStep::PackLeft) == 1).await;
    rig.faulty.take_requests();
    rig.steps.lock().clear();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.faulty.take_requests(), []);
    assert_eq!(*rig.steps.lock(), []);
}

#[tokio::test]
async fn a_stopped_uploader_gives_the_committer_back_and_another_goes_on() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    let seq = rig.file(1, 100);
    uploader.sync(seq, SOON).await.unwrap();
    rig.faulty.inject(On::next(Verb::Put, "log/"), Fault::Stalls);
    rig.touch(2);
    until("a commit is on the wire", || rig.stepped(PipelineStep::CommitPrepared) == 2).await;
    let committer = uploader.stop().await.unwrap();
    assert!(committer.is_pending());
    let uploader = rig.start(committer, quick());
    rig.touch(3);
    uploader.finish(SOON).await.unwrap();
    assert_eq!(rig.logged(), [1, 1, 1]);
}

#[tokio::test]
async fn thousands_of_small_transactions_are_few_commits() {
    let rig = Rig::new();
    let uploader = rig.uploader(quick()).await;
    for n in 0..5000 {
        rig.touch(n);
    }
    uploader.finish(SOON).await.unwrap();
    assert_eq!(rig.logged().iter().sum::<usize>(), 5000);
    assert!(rig.logged().len() <= 20, "{:?}", rig.logged());
}

/// A rig whose task panics the first time that this step is done.
fn panics_at(at: PipelineStep) -> Rig {
    let is_first = std::sync::atomic::AtomicBool::new(true);
    Rig::observed(64 * MIB, Duration::from_millis(150), move |step| {
        let panics = step == at && is_first.swap(false, std::sync::atomic::Ordering::Relaxed);
        assert!(!panics, "planted");
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_task_of_the_pipeline_panics_nobody_waits_for_it_and_nothing_more_is_taken() {
    for at in
        [PipelineStep::PackConfirmed, PipelineStep::CommitPrepared, PipelineStep::CommitConfirmed]
    {
        let rig = panics_at(at);
        let uploader = rig.uploader(quick()).await;
        let seq = rig.file(1, MANY);
        let began = std::time::Instant::now();
        let ended = uploader.sync(seq, SOON).await;
        match &ended {
            // The pack was confirmed before its task panicked, so its commit may be, too, before that is known.
            Ok(()) if at != PipelineStep::CommitPrepared => assert!(!rig.logged().is_empty()),
            ended => assert!(
                matches!(ended, Err(Error::Poisoned(why)) if why.contains("panic")),
                "{at:?}: {ended:?}"
            ),
        }
        until("the panic is known", || uploader.status().poisoned.is_some()).await;
        assert!(began.elapsed() < SOON / 4, "{at:?}: told at once");
        let room = rig.staging.reserve(1000).await;
        assert!(matches!(room, Err(Error::Poisoned(_))), "{at:?}: {room:?}");
        assert!(uploader.status().poisoned.is_some_and(|why| why.contains("panic")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_whose_sending_panics_is_sent_again() {
    let rig = panics_at(PipelineStep::PackRead);
    let uploader = rig.uploader(quick()).await;
    let seq = rig.file(1, MANY);
    uploader.sync(seq, SOON).await.unwrap();
    assert!(uploader.status().trouble.is_empty());
}

#[tokio::test]
async fn a_stopped_uploader_tells_whoever_waits_and_gives_its_committer_back_once() {
    let rig = Rig::new();
    let uploader = Arc::new(rig.uploader(quick()).await);
    rig.faulty.disappear();
    let seq = rig.touch(1);
    let waits = tokio::spawn({
        let uploader = uploader.clone();
        async move { uploader.sync(seq, SOON).await }
    });
    until("a commit is tried", || rig.stepped(PipelineStep::CommitPrepared) > 0).await;
    assert!(uploader.stop().await.is_some());
    assert!(matches!(waits.await.unwrap(), Err(Error::Stopped)));
    assert!(uploader.stop().await.is_none());
}
