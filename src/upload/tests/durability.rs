//! J2, J6, J7: what a barrier promises when the power fails or an fsync does.

use crate::log::NOTHING_NOTED;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::powercut::PowerCut;
use super::rig::*;
use crate::crypto::Keys;
use crate::log::{Journal, JournalOptions, PackWatcher};
use crate::os::{Directory, Disk, PipelineStep};
use crate::types::{PackId, Reference, Seq};
use crate::upload::{
    Barrier, Error, Footers, OpenPack, PackHold, ReferredParts, Staging, StagingLimits,
    StepObserver,
};

pub(super) struct Local {
    pub(super) disk: PowerCut,
    pub(super) staging: Staging,
    pub(super) journal: Arc<Journal>,
    pub(super) barrier: Barrier,
}

pub(super) fn limits() -> StagingLimits {
    StagingLimits { free_floor: 0, ..StagingLimits::default() }
}

fn options(keys: &Keys, staging: &Staging, disk: Arc<dyn Disk>) -> JournalOptions {
    let watcher: Arc<dyn PackWatcher> = Arc::new(staging.clone());
    let (keys, boot) = (keys.clone(), "boot".into());
    JournalOptions { keys, boot, disk, watcher: Some(watcher), room: None }
}

fn local(keys: &Keys, cut_at: Option<usize>, every: Duration, steps: StepObserver) -> Local {
    local_of(limits(), keys, cut_at, every, steps)
}

pub(super) fn local_of(
    limits: StagingLimits,
    keys: &Keys,
    cut_at: Option<usize>,
    every: Duration,
    steps: StepObserver,
) -> Local {
    let disk = PowerCut::new(cut_at);
    let staging = Staging::over(Arc::new(disk.clone()), limits).unwrap();
    let options = options(keys, &staging, Arc::new(disk.journal()));
    let journal = Arc::new(Journal::create(options, NOTHING_NOTED).unwrap());
    let adopt = Arc::new(|_: &str, _: &Path| Ok(()));
    let barrier = Barrier::start(staging.clone(), journal.clone(), adopt, every, steps);
    Local { disk, staging, journal, barrier }
}

const HOUR: Duration = Duration::from_secs(3600);

/// The bytes of an extent, unlike those of any other.
fn extent(pack: PackId, end: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let seed = u64::from(pack.0[1]) << 40 | u64::from(pack.0[0]) << 48 | end;
    rand::RngCore::fill_bytes(&mut StdRng::seed_from_u64(seed), &mut bytes);
    bytes
}

/// Writes packs and publishes what is in them, with barriers between and beside. Returns the last transaction that was
/// durable before the power was cut, and all references.
async fn work(local: &Local, dice: &mut StdRng) -> (Seq, HashMap<(PackId, u64), usize>) {
    let mut extents = HashMap::new();
    let mut open: Vec<(OpenPack, PackHold)> = Vec::new();
    let mut acknowledged = Seq(0);
    let mut beside = Vec::new();
    for n in 1..60 {
        if open.is_empty() || dice.random_ratio(1, 4) {
            let pack = local.staging.create(id(n)).unwrap();
            let hold = local.staging.hold(id(n));
            open.push((pack, hold));
        }
        let at = dice.random_range(0..open.len());
        let length = dice.random_range(1..200);
        let (pack, end) = {
            let pack = &mut open[at].0;
            let end = pack.length() + length as u64;
            pack.append(&extent(pack.id(), end, length)).unwrap();
            (pack.id(), end)
        };
        extents.insert((pack, end), length);
        let packs = if dice.random_ratio(3, 4) { vec![(pack, end)] } else { Vec::new() };
        let (seq, _) = local.journal.append(&transaction(n.into(), &packs)).unwrap();
        if dice.random_ratio(1, 5) {
            let (pack, hold) = open.swap_remove(at);
            pack.close(FOOTER).unwrap();
            drop(hold);
        }
        if dice.random_ratio(1, 5) {
            let synced = local.barrier.sync(seq).await;
            if synced.is_ok() && !local.disk.is_cut() {
                acknowledged = seq;
            }
        } else if dice.random_ratio(1, 4) {
            let barrier = local.barrier.clone();
            beside.push(tokio::spawn(async move { barrier.sync(seq).await }));
            tokio::task::yield_now().await;
        }
    }
    for round in beside {
        round.await.unwrap().unwrap();
    }
    local.disk.cut_now();
    std::mem::forget(open);
    (acknowledged, extents)
}

struct GoodFooters;

impl Footers for GoodFooters {
    fn is_good(&self, staging: &Staging, pack: PackId, length: u64) -> bool {
        let from = length.saturating_sub(FOOTER.len() as u64);
        staging.read(pack, from..length).unwrap().is_some_and(|tail| tail == FOOTER)
    }
    fn make(&self, _: PackId, _: u64) -> Vec<u8> {
        FOOTER.to_vec()
    }
}

/// After a power cut: J3 as the vault applies it, then recovery.
fn reopen(keys: &Keys, cut: &PowerCut, extents: &HashMap<(PackId, u64), usize>, seed: u64) -> Seq {
    let dir = tempfile::tempdir().unwrap();
    let disk = cut.after(dir.path(), seed);
    let staging = Staging::over(Arc::new(disk), limits()).unwrap();
    let Some(mut found) = Journal::inspect(dir.path(), keys).unwrap() else { return Seq(0) };
    let intact = |pack: PackId, end: u64| {
        let length = extents[&(pack, end)];
        let range = end - length as u64..end;
        let read = staging.length(pack).filter(|there| *there >= end).map(|_| range);
        let read = read.and_then(|range| staging.read(pack, range).unwrap());
        read.is_some_and(|bytes| bytes == extent(pack, end, length))
    };
    let end = |reference: &Reference| reference.offset + reference.sealed_length;
    let is_bad = |staged: &[Reference]| staged.iter().any(|r| !intact(r.pack, end(r)));
    let bad = found.unsent.iter().find(|tx| is_bad(&tx.staged)).map(|tx| tx.seq);
    if let Some(bad) = bad {
        found.drop_from(bad).expect("what a barrier covers is whole");
    }
    let mut referred = HashMap::new();
    for reference in found.unsent.iter().flat_map(|tx| &tx.staged) {
        let parts: &mut ReferredParts = referred.entry(reference.pack).or_default();
        parts.add(reference.offset..end(reference));
    }
    staging.recover(&referred, &GoodFooters).unwrap();
    for tx in &found.unsent {
        assert!(!is_bad(&tx.staged), "recovery keeps every extent that is referred to");
    }
    for (pack, length) in staging.packs() {
        assert!(GoodFooters.is_good(&staging, pack, length));
    }
    let journal = Arc::new(Directory::open(dir.path()).unwrap());
    Journal::resume(options(keys, &staging, journal), &found).unwrap();
    found.last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j2_what_a_barrier_covers_survives_the_loss_of_power_at_any_step() {
    let keys = keys();
    let mut lost = 0;
    for seed in 0..150 {
        let mut dice = StdRng::seed_from_u64(seed);
        let cut_at = dice.random_range(1..350);
        let local = local(&keys, Some(cut_at), HOUR, StepObserver::default());
        let (acknowledged, extents) = work(&local, &mut dice).await;
        for again in 0..4 {
            let last = reopen(&keys, &local.disk, &extents, seed * 10 + again);
            assert!(last >= acknowledged, "{last:?} of {acknowledged:?}, seed {seed}");
            lost += u32::from(last < Seq(59));
        }
    }
    assert!(lost > 100, "the disk does forget: {lost}");
}

#[tokio::test]
async fn j2_packs_and_their_directory_then_the_barrier() {
    let steps: Arc<parking_lot::Mutex<Vec<PipelineStep>>> = Arc::default();
    let seen = steps.clone();
    let watched = StepObserver::watched(move |step| seen.lock().push(step));
    let local = local(&keys(), None, HOUR, watched);
    let mut one = local.staging.create(id(1)).unwrap();
    let _hold = local.staging.hold(id(1));
    one.append(b"extent").unwrap();
    local.journal.append(&transaction(1, &[(id(1), 6)])).unwrap();
    // Nothing refers to this one: a stream that is being written does not slow a barrier.
    let mut two = local.staging.create(id(2)).unwrap();
    two.append(b"extent").unwrap();
    local.barrier.sync_all().await.unwrap();
    assert_eq!(
        *steps.lock(),
        [PipelineStep::PackSynced, PipelineStep::DirectorySynced, PipelineStep::BarrierWritten]
    );
    // What is durable is not synced again.
    local.journal.append(&transaction(2, &[(id(1), 6)])).unwrap();
    local.barrier.sync_all().await.unwrap();
    assert_eq!(steps.lock()[3..], [PipelineStep::BarrierWritten]);
    local.barrier.sync_all().await.unwrap();
    assert_eq!(steps.lock().len(), 4, "nothing new: nothing to do");
    one.append(b"more").unwrap();
    local.journal.append(&transaction(3, &[(id(1), 10)])).unwrap();
    local.barrier.sync_all().await.unwrap();
    assert_eq!(steps.lock()[4..], [PipelineStep::PackSynced, PipelineStep::BarrierWritten]);
}

#[tokio::test]
async fn j2_a_transaction_that_comes_while_packs_are_synced_is_not_covered() {
    let late: Arc<parking_lot::Mutex<Option<(Staging, Arc<Journal>)>>> = Arc::default();
    let places = late.clone();
    let watched = StepObserver::watched(move |step| {
        if step == PipelineStep::PackSynced
            && let Some((staging, journal)) = places.lock().take()
        {
            let mut pack = staging.create(id(2)).unwrap();
            pack.append(b"late").unwrap();
            journal.append(&transaction(2, &[(id(2), 4)])).unwrap();
            std::mem::forget(pack);
        }
    });
    let local = local(&keys(), None, HOUR, watched);
    *late.lock() = Some((local.staging.clone(), local.journal.clone()));
    let mut pack = local.staging.create(id(1)).unwrap();
    pack.append(b"extent").unwrap();
    local.journal.append(&transaction(1, &[(id(1), 6)])).unwrap();
    local.barrier.sync(Seq(1)).await.unwrap();
    assert_eq!(local.journal.appended(), Seq(2));
    assert_eq!(local.journal.durable(), Seq(1), "its pack is not durable");
    local.barrier.sync(Seq(2)).await.unwrap();
    assert_eq!(local.journal.durable(), Seq(2));
}

#[tokio::test]
async fn j2_everything_is_synced_after_a_while() {
    let local = local(&keys(), None, Duration::from_millis(50), StepObserver::default());
    local.journal.append(&transaction(1, &[])).unwrap();
    until("it is durable", || local.journal.durable() == Seq(1)).await;
    let mut durable = local.barrier.subscribe();
    // The watch fires a moment later.
    tokio::time::timeout(SOON, durable.wait_for(|seq| *seq == Seq(1))).await.unwrap().unwrap();
    local.journal.append(&transaction(2, &[])).unwrap();
    durable.changed().await.unwrap();
    assert!(!local.journal.unsynced());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn j2_callers_at_the_same_time_share_a_round() {
    let rounds = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = rounds.clone();
    let watched = StepObserver::watched(move |step| {
        if step == PipelineStep::BarrierWritten {
            std::thread::sleep(Duration::from_millis(20));
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let local = Arc::new(local(&keys(), None, HOUR, watched));
    let callers = (1..=100).map(|n| {
        let local = local.clone();
        tokio::spawn(async move {
            let (seq, _) = local.journal.append(&transaction(n, &[])).unwrap();
            local.barrier.sync(seq).await.unwrap();
            assert!(local.journal.durable() >= seq);
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let rounds = rounds.load(std::sync::atomic::Ordering::Relaxed);
    assert!(rounds <= 20, "{rounds} rounds");
}

#[tokio::test]
async fn j6_after_a_failed_fsync_everything_refuses_and_nothing_is_sent() {
    for with_pack in [true, false] {
        let local = local(&keys(), None, HOUR, StepObserver::default());
        let mut pack = local.staging.create(id(1)).unwrap();
        let _hold = local.staging.hold(id(1));
        pack.append(b"extent").unwrap();
        let packs = if with_pack { vec![(id(1), 6)] } else { Vec::new() };
        local.journal.append(&transaction(1, &packs)).unwrap();
        local.disk.fail_syncs();
        assert!(local.barrier.sync(Seq(1)).await.is_err());
        // A second fsync would succeed, as Linux's do: it must not be tried.
        let again = local.barrier.sync(Seq(1)).await;
        assert!(matches!(again, Err(Error::Poisoned(_))), "{again:?}");
        assert!(local.journal.append(&transaction(2, &[])).is_err());
        assert!(pack.append(b"more").is_err());
        assert!(local.staging.create(id(2)).is_err());
        assert!(local.staging.reserve(1).await.is_err());
        assert!(local.barrier.poisoned().unwrap().contains("injected"));
        assert_eq!(local.journal.durable(), Seq(0));
        assert_eq!(local.staging.read(id(1), 0..6).unwrap().unwrap(), "extent", "reading goes on");
    }
}

#[tokio::test]
async fn j6_a_poisoned_uploader_sends_nothing_more() {
    let rig = Rig::new();
    let committer = rig.committer().await;
    // There is a pack to send, and a transaction that waits for nothing.
    rig.touch(1);
    rig.file(2, 1000);
    rig.faulty.take_requests();
    rig.staging.poison("a write failed");
    let uploader = rig.start(committer, quick());
    until("the journal is told", || rig.journal.poisoned().is_some()).await;
    let synced = uploader.sync(Seq(1), SOON).await;
    assert!(matches!(synced, Err(Error::Poisoned(reason)) if reason == "a write failed"));
    assert_eq!(uploader.status().poisoned.as_deref(), Some("a write failed"));
    // Long enough that each would have been sent several times.
    tokio::time::sleep(4 * quick().linger).await;
    assert!(rig.faulty.take_requests().is_empty());
    assert_eq!(uploader.confirmed(), Seq(0));
}

#[tokio::test]
async fn c4_a_vault_that_is_closed_leaves_no_packs_behind() {
    let rig = Rig::with(1 << 30, HOUR);
    let uploader = rig.uploader(quick()).await;
    let seq = rig.file(1, 1000);
    uploader.sync(seq, SOON).await.unwrap();
    uploader.stop().await.unwrap();
    assert!(rig.staging.contains(id(1)));
    rig.barrier.finish().await.unwrap();
    assert_eq!(rig.staging.packs(), []);
    assert_eq!(rig.adopted.lock().len(), 1);
}

#[tokio::test]
async fn c4_confirmed_transactions_need_no_fsync_of_their_packs() {
    let rig = Rig::with(1 << 30, HOUR);
    let uploader = rig.uploader(quick()).await;
    let seq = rig.file(1, 1000);
    uploader.sync(seq, SOON).await.unwrap();
    rig.barrier.sync(seq).await.unwrap();
    assert_eq!(rig.stepped(PipelineStep::PackSynced), 0, "the bucket has them for good");
    assert_eq!(rig.stepped(PipelineStep::BarrierWritten), 1);
}

#[tokio::test]
async fn j6_when_it_is_told_that_nothing_is_accepted_it_is_so() {
    let local = local(&keys(), None, HOUR, StepObserver::default());
    local.journal.append(&transaction(1, &[])).unwrap();
    local.staging.poison("a pack could not be written");
    assert_eq!(local.barrier.poisoned().as_deref(), Some("a pack could not be written"));
    assert!(local.journal.append(&transaction(2, &[])).is_err());
}
