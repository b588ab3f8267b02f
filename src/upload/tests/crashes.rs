//! C1, C4, C5, W1: the process dies after any step of the pipeline, and another one goes on.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::rig::*;
use crate::crypto::Keys;
use crate::log::{Chain, Committer, Journal, LogEnd, commit_name};
use crate::os::PipelineStep;
use crate::records::Claimant;
use crate::records::Transaction;
use crate::store::{Bucket, Deadlines, MemoryStore};
use crate::types::{CommitNo, Generation, Hash, MIB, PackId, Seq};
use crate::upload::{
    Barrier, Footers, Hooks, Parts, ReferredParts, Staging, StagingLimits, StepObserver, Uploader,
    pack_object,
};

/// Everything that outlives the process, at one moment.
struct Moment {
    step: PipelineStep,
    local: tempfile::TempDir,
    objects: Vec<(String, Bytes)>,
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            // It may just have left for the cache.
            _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
        }
    }
}

fn moment(step: PipelineStep, local: &Path, memory: &MemoryStore) -> Moment {
    let dir = tempfile::tempdir().unwrap();
    // In this order: what the first copy refers to, the later ones have, whatever happens meanwhile.
    copy(&local.join("journal"), &dir.path().join("journal"));
    copy(&local.join("staging"), &dir.path().join("staging"));
    let object = |name: String| memory.peek(&name).map(|bytes| (name, bytes));
    Moment { step, local: dir, objects: memory.names().into_iter().filter_map(object).collect() }
}

struct AnyFooter;

impl Footers for AnyFooter {
    fn is_good(&self, staging: &Staging, pack: PackId, length: u64) -> bool {
        let from = length.saturating_sub(FOOTER.len() as u64);
        staging.read(pack, from..length).unwrap().is_some_and(|tail| tail == FOOTER)
    }
    fn make(&self, _: PackId, _: u64) -> Vec<u8> {
        FOOTER.to_vec()
    }
}

/// The log's end, and the hashes of its transactions in order. What these refer to must be in the bucket.
async fn read_log(bucket: &Bucket, keys: &Keys, memory: &MemoryStore) -> (LogEnd, Vec<Hash>) {
    let chain = Chain::new(bucket.clone(), keys.clone());
    let (mut recent, mut hashes) = (Vec::new(), Vec::new());
    let take = |link: crate::log::ChainedCommit| {
        LogEnd::note(&mut recent, link.number, &link.hash);
        for bytes in &link.content.transactions {
            hashes.push(Transaction::hash_of(bytes));
            for reference in Transaction::decode(bytes)?.references()? {
                let end = usize::try_from(reference.offset + reference.sealed_length).unwrap();
                let name = pack_object(reference.pack);
                let there = memory.peek(&name).is_some_and(|pack| pack.len() >= end);
                assert!(there, "C1: {} refers to {name}", commit_name(link.number));
            }
        }
        Ok::<_, crate::log::Error>(())
    };
    let head = chain.follow((CommitNo(0), Hash::ZERO), take).await.unwrap();
    (LogEnd { head, recent, generation: Generation(1), upto: Seq(0) }, hashes)
}

/// The next process: W1 in short. Returns how many transactions the log holds at the end.
async fn go_on(moment: &Moment, keys: &Keys) -> usize {
    let memory = Arc::new(MemoryStore::new());
    for (name, bytes) in &moment.objects {
        memory.plant(name, bytes.clone());
    }
    let bucket = Bucket::over(memory.clone(), "", Deadlines::default());
    let (staging_dir, journal_dir) =
        (moment.local.path().join("staging"), moment.local.path().join("journal"));
    let limits = StagingLimits { free_floor: 0, budget: 64 * MIB, ..StagingLimits::default() };
    let staging = Staging::open(&staging_dir, limits).unwrap();
    let found = Journal::inspect(&journal_dir, keys).unwrap().unwrap();
    assert!(found.torn.is_none());

    let (mut end, hashes) = read_log(&bucket, keys, &memory).await;
    let logged: HashSet<_> = hashes.iter().collect();
    let in_log = found.unsent.iter().filter(|tx| logged.contains(&tx.hash)).map(|tx| tx.seq);
    let confirmed = in_log.max().unwrap_or(found.noted.upto()).max(found.noted.upto());
    assert_eq!(hashes.len() as u64, confirmed.0, "each once, none left out");
    let mut referred = HashMap::new();
    for tx in found.unsent.iter().filter(|tx| tx.seq > confirmed) {
        for reference in &tx.staged {
            let end = reference.offset + reference.sealed_length;
            let there = staging.length(reference.pack).is_some_and(|length| length >= end);
            assert!(there, "C4: {:?} needs {}, after {:?}", tx.seq, reference.pack, moment.step);
            let parts: &mut ReferredParts = referred.entry(reference.pack).or_default();
            parts.add(reference.offset..end);
        }
        let packs: Vec<_> = tx.staged.iter().map(|reference| reference.pack).collect();
        staging.appending(tx.seq, &packs).unwrap();
    }
    staging.recover(&referred, &AnyFooter).unwrap();
    let options = journal_options(keys, &staging, &journal_dir);
    let journal = Arc::new(Journal::resume(options, &found).unwrap());
    let (number, hash) = (end.head.number, end.head.hash);
    journal.note_found(confirmed, number, hash).unwrap();
    end.upto = confirmed;

    let mut committer = Committer::new(bucket.clone(), keys.clone(), end);
    let (machine, host) = ("machine".into(), "host".into());
    committer.claim(&Claimant { machine, host, journal: journal.id() }).await.unwrap();
    let adopt = Arc::new(|_: &str, file: &Path| std::fs::remove_file(file));
    let steps = StepObserver::default();
    let every = Duration::from_secs(3600);
    let barrier = Barrier::start(staging.clone(), journal.clone(), adopt, every, steps.clone());
    let hooks = Hooks { on_confirmed: Arc::new(|_| ()), on_fenced: Arc::new(|_| ()) };
    let parts = Parts {
        staging: staging.clone(),
        journal,
        committer,
        bucket: bucket.clone(),
        barrier: barrier.clone(),
    };
    let uploader = Uploader::start(parts, hooks, quick(), steps);
    uploader.finish(SOON).await.unwrap();
    uploader.stop().await.unwrap();
    barrier.finish().await.unwrap();
    // The barrier's own task may be giving the last ones away just now.
    let until = std::time::Instant::now() + SOON;
    while !staging.packs().is_empty() && std::time::Instant::now() < until {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(staging.packs(), [], "all have left, after {:?}", moment.step);
    let (_, hashes) = read_log(&bucket, keys, &memory).await;
    assert_eq!(hashes.len() as u64, found.last.0, "everything arrives, once");
    assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
    hashes.len()
}

#[tokio::test]
async fn c5_the_process_may_die_after_any_step_and_nothing_is_lost_or_sent_twice() {
    let moments: Arc<Mutex<Vec<Moment>>> = Arc::default();
    let place: Arc<Mutex<Option<(std::path::PathBuf, Arc<MemoryStore>)>>> = Arc::default();
    let observer = {
        let (moments, place) = (moments.clone(), place.clone());
        move |step| {
            if let Some((local, memory)) = &*place.lock() {
                moments.lock().push(moment(step, local, memory));
            }
        }
    };
    let rig = Rig::observed(64 * MIB, Duration::from_millis(20), observer);
    let uploader = rig.uploader(quick()).await;
    *place.lock() = Some((rig.dir.path().to_owned(), rig.store.clone()));
    for round in 0..3 {
        let n = round * 10;
        // No moment is taken in the middle of this: the files are copied one after the other.
        let one_at_a_time = place.lock();
        let (shared, hold) = rig.pack(n + 1, 3000);
        rig.publish(n + 1, &[n + 1], 1000);
        rig.file(n + 2, 1 << 20);
        rig.touch(n + 3);
        rig.publish(n + 4, &[n + 1, n + 2], 2000);
        shared.close(FOOTER).unwrap();
        drop(hold);
        rig.file(n + 5, 10);
        drop(one_at_a_time);
        tokio::time::sleep(Duration::from_millis(u64::from(40 * round))).await;
    }
    uploader.finish(SOON).await.unwrap();
    rig.barrier.finish().await.unwrap();
    assert!(rig.staging.packs().is_empty(), "all have left");
    *place.lock() = None;
    let moments = std::mem::take(&mut *moments.lock());
    for step in [
        PipelineStep::PackRead,
        PipelineStep::PackConfirmed,
        PipelineStep::CommitPrepared,
        PipelineStep::CommitConfirmed,
        PipelineStep::Noted,
        PipelineStep::BarrierWritten,
        PipelineStep::PackLeft,
    ] {
        assert!(moments.iter().any(|moment| moment.step == step), "{step:?}");
    }
    let mut arrived = HashSet::new();
    for moment in &moments {
        arrived.insert(go_on(moment, &rig.keys).await);
    }
    assert!(arrived.contains(&15) && arrived.len() > 1, "{arrived:?}");
}
