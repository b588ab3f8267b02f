//! The table of staged packs: who refers to each, what of it is durable, whether the bucket has it. Pure bookkeeping, no I/O.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::commit_spans::CommitSpans;
use super::error::{Error, Result};
use super::freezer::Freezer;
use super::job::{InBucket, PackJob};
use super::pack::{PackToSync, Stage, StagedPack};
use super::ref_counts::RefCounts;
use super::referred_parts::ReferredParts;
use super::send_queue::SendQueue;
use super::settled::Settled;
use crate::log::DroppedPack;
use crate::os::DiskFile;
use crate::types::{PackId, Seq};

/// Files of closed packs that are kept open for readers; beyond that they are opened for each read.
const OPEN_FILES: usize = 256;
/// Ids of dropped packs that are remembered, so that a late reference is an error instead of a loss.
const DROPPED_IDS: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct PackTable {
    packs: HashMap<PackId, StagedPack>,
    queue: SendQueue,
    /// By first transaction: packs that the bucket does not have. The smallest bounds the next commit (C1).
    blocking: BTreeSet<(Seq, PackId)>,
    /// Referred to further than they are durable.
    unsynced: HashSet<PackId>,
    /// In the bucket, not left yet.
    done: HashSet<PackId>,
    /// Closed packs whose files are kept open, oldest first.
    kept_open: VecDeque<PackId>,
    dropped: HashSet<PackId>,
    dropped_order: VecDeque<PackId>,
    /// How many records refer to packs that the bucket does not have.
    refs: RefCounts,
    /// Runs of transactions that go into one commit, because a pack of theirs was dropped.
    spans: CommitSpans,
    /// Packs that are dropped, and noted so in the journal: they go with the next barrier.
    doomed: HashSet<PackId>,
    /// What is being deleted in the bucket (K5).
    pub(super) freezer: Freezer,
}

impl PackTable {
    /// A pack just made.
    pub(super) fn created(&mut self, id: PackId, file: Option<Arc<dyn DiskFile>>) {
        let pack = StagedPack { made_here: true, ..StagedPack::new(0, file, false) };
        self.packs.insert(id, pack);
    }

    /// A pack found at start: it waits for recovery.
    pub(super) fn found(&mut self, id: PackId, length: u64, renamed: bool) {
        self.packs.insert(id, StagedPack::new(length, None, renamed));
    }

    pub(super) fn get(&self, id: PackId) -> Option<&StagedPack> {
        self.packs.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PackId, &StagedPack)> {
        self.packs.iter().map(|(id, pack)| (*id, pack))
    }

    /// Whether its file may be gone from here already.
    pub(super) fn has_left(&self, id: PackId) -> bool {
        self.packs.get(&id).is_none_or(|p| matches!(p.stage, Stage::Leaving | Stage::Dropped))
    }

    /// Whether it went, or goes, without ever having been sent, because nothing refers to it.
    pub(super) fn was_dropped(&self, id: PackId) -> bool {
        self.dropped.contains(&id)
    }

    /// A pack that was made without a file has one now.
    pub(super) fn set_file(&mut self, id: PackId, file: Arc<dyn DiskFile>) {
        if let Some(pack) = self.packs.get_mut(&id) {
            pack.file = Some(file);
        }
    }

    /// Returns whether something of it was fsynced before.
    pub(super) fn set_length(&mut self, id: PackId, length: u64) -> bool {
        let Some(pack) = self.packs.get_mut(&id) else { return false };
        pack.length = length;
        pack.synced > 0
    }

    /// The pack has its footer and its name: it is in the queue.
    pub(super) fn closed(&mut self, id: PackId, parts: Option<Arc<ReferredParts>>) {
        let Some(pack) = self.packs.get_mut(&id) else { return };
        pack.stage = Stage::Closed;
        pack.renamed = true;
        pack.parts = parts;
        if pack.file.is_some() {
            self.kept_open.push_back(id);
        }
        self.queue.push(id, pack.length);
        if self.kept_open.len() > OPEN_FILES
            && let Some(oldest) = self.kept_open.pop_front()
            && let Some(pack) = self.packs.get_mut(&oldest)
        {
            pack.file = None;
        }
    }

    /// Takes a pack out if nothing refers to it, nor will: closed (or `even_open`), not sent, not held. It is the
    /// caller who removes the file.
    pub(super) fn take_unwanted(&mut self, id: PackId, even_open: bool) -> Option<StagedPack> {
        let pack = self.packs.get(&id)?;
        let here = pack.stage == Stage::Closed || (even_open && pack.stage == Stage::Open);
        if !here || pack.refs.is_some() || pack.holds > 0 {
            return None;
        }
        self.remember_dropped(id);
        self.remove(id)
    }

    /// C4: from now on the packs stay until `seq` is confirmed. Those that are not here are in the bucket, or an
    /// error if they were dropped. Returns which are here.
    pub(super) fn appending(&mut self, seq: Seq, packs: &[PackId]) -> Result<Vec<PackId>> {
        let is_gone = |id: &&PackId| {
            // Taken out of the queue to be dropped: the note of that may be written in this moment.
            let taken = self.packs.get(id).is_some_and(|pack| pack.stage == Stage::Dropped);
            taken || self.dropped.contains(id) || self.freezer.is_frozen(**id)
        };
        if let Some(gone) = packs.iter().find(is_gone) {
            return Err(Error::Gone(*gone));
        }
        let mut here = Vec::new();
        for id in packs {
            self.freezer.mention(*id);
            let Some(pack) = self.packs.get_mut(id).filter(|p| p.stage != Stage::Leaving) else {
                continue;
            };
            here.push(*id);
            let (first, last) = pack.refs.unwrap_or((seq, seq));
            pack.refs = Some((first, last.max(seq)));
            pack.referred = pack.length;
            if pack.stage != Stage::InBucket {
                self.blocking.insert((first, *id));
            }
            if pack.synced < pack.referred || !pack.named {
                self.unsynced.insert(*id);
            }
        }
        Ok(here)
    }

    pub(super) fn hold(&mut self, id: PackId) -> bool {
        self.packs.get_mut(&id).map(|pack| pack.holds += 1).is_some()
    }

    /// A hold is let go. Returns whether that may let the pack leave.
    pub(super) fn unhold(&mut self, id: PackId) -> bool {
        let Some(pack) = self.packs.get_mut(&id) else { return false };
        pack.holds = pack.holds.saturating_sub(1);
        pack.holds == 0 && (pack.stage == Stage::InBucket || self.refs.is_dead(id))
    }

    /// A transaction was appended: what it put or deleted, and what that refers to now. Returns whether a pack that
    /// was not sent lost its last reference.
    pub(super) fn appended(
        &mut self,
        seq: Seq,
        bytes: usize,
        changed: &[(&[u8], Option<PackId>)],
    ) -> bool {
        let packs = &self.packs;
        let begins = |id: PackId| {
            packs.get(&id).is_some_and(|pack| {
                pack.made_here
                    && pack.is_unsent()
                    && pack.refs.is_some_and(|(first, _)| first == seq)
            })
        };
        self.refs.appended(seq, bytes, changed, begins)
    }

    fn may_drop(&self, id: PackId) -> bool {
        self.packs.get(&id).is_some_and(|pack| pack.stage == Stage::Closed && pack.holds == 0)
    }

    /// Whether there is anything that a barrier would remove, or could.
    pub(super) fn has_dead(&self) -> bool {
        !self.doomed.is_empty() || self.refs.dead().any(|id| self.may_drop(id))
    }

    /// Packs that need not be sent any more: from here on nothing refers to them, and they are not in the queue. The
    /// caller notes that in the journal, and says so by `noted_dropped`, or calls `not_dropped`.
    pub(super) fn take_dead(&mut self) -> Vec<DroppedPack> {
        let dead: Vec<_> = self.refs.dead().filter(|id| self.may_drop(*id)).collect();
        let mut taken = Vec::new();
        for id in dead {
            let bound = self.refs.bind(id, &mut self.spans);
            let Some(pack) = self.packs.get_mut(&id).filter(|_| bound.is_some()) else {
                // Too much lies between its first reference and its last: it is sent as any other.
                self.refs.forget(id);
                continue;
            };
            pack.stage = Stage::Dropped;
            taken.extend(bound);
        }
        let packs = &self.packs;
        self.queue.retain(|id| packs.get(&id).is_some_and(|pack| pack.stage == Stage::Closed));
        taken
    }

    /// The journal says that these are dropped: no commit waits for them, and the next barrier lets them go.
    pub(super) fn noted_dropped(&mut self, packs: &[DroppedPack]) {
        for dropped in packs {
            let id = dropped.pack;
            self.refs.forget(id);
            self.blocking.remove(&(dropped.first, id));
            self.unsynced.remove(&id);
            self.remember_dropped(id);
            self.doomed.insert(id);
        }
    }

    /// The journal did not take the note: they are in the queue again. `once_more`: tried again, unless they are sent first.
    pub(super) fn not_dropped(&mut self, packs: &[DroppedPack], once_more: bool) {
        for dropped in packs {
            let id = dropped.pack;
            if !once_more {
                self.refs.forget(id);
            }
            let Some(pack) = self.packs.get_mut(&id) else { continue };
            pack.stage = Stage::Closed;
            self.queue.push(id, pack.length);
        }
    }

    /// What a journal that goes on says of packs that were dropped; some may be here still.
    pub(super) fn restore_dropped(&mut self, packs: &[DroppedPack]) {
        self.spans.restore(packs);
        for dropped in packs {
            self.remember_dropped(dropped.pack);
            if let Some(pack) = self.packs.get_mut(&dropped.pack) {
                pack.stage = Stage::Dropped;
                self.doomed.insert(dropped.pack);
            }
        }
    }

    /// The packs that go once the journal is durable as it is now.
    pub(super) fn doomed(&self) -> Vec<PackId> {
        self.doomed.iter().copied().collect()
    }

    /// Where a commit ends that follows `from` and would end with `at` (C1).
    pub(super) fn commit_end(&self, from: Seq, at: Seq) -> Seq {
        self.spans.end_near(from, at)
    }

    /// Every transaction up to this one is in the bucket.
    pub(super) fn confirmed(&mut self, upto: Seq) {
        self.spans.confirmed(upto);
    }

    /// K5: of these packs in the bucket those that nothing here needs once everything up to `confirmed` is in it, and that
    /// nothing was appended for since the deletion began. From now on nothing may refer to them.
    pub(super) fn freeze(&mut self, packs: &[PackId], confirmed: Seq) -> Vec<PackId> {
        let packs_here = &self.packs;
        let unneeded = |id: &PackId| {
            packs_here.get(id).is_none_or(|pack| !pack.is_unsent() && pack.may_leave(confirmed))
        };
        self.freezer.freeze(packs.iter().copied().filter(unneeded))
    }

    /// Takes a pack out.
    pub(super) fn remove(&mut self, id: PackId) -> Option<StagedPack> {
        let pack = self.packs.remove(&id)?;
        if pack.stage == Stage::Closed {
            self.queue.retain(|other| other != id);
        }
        self.kept_open.retain(|other| *other != id);
        if let Some((first, _)) = pack.refs {
            self.blocking.remove(&(first, id));
        }
        self.unsynced.remove(&id);
        self.done.remove(&id);
        self.refs.forget(id);
        self.doomed.remove(&id);
        Some(pack)
    }

    fn remember_dropped(&mut self, id: PackId) {
        self.dropped.insert(id);
        self.dropped_order.push_back(id);
        if self.dropped_order.len() > DROPPED_IDS
            && let Some(oldest) = self.dropped_order.pop_front()
        {
            self.dropped.remove(&oldest);
        }
    }

    /// The next pack to send: see [`SendQueue::take`].
    pub(super) fn take(&mut self, most: u64, most_full: u64) -> Option<PackJob> {
        let id = self.queue.take(most, most_full)?;
        let pack = self.packs.get_mut(&id)?;
        pack.stage = Stage::Sending;
        Some(PackJob { pack: id, length: pack.length })
    }

    /// Of a pack found after a crash: what is needed of it (J7).
    pub(super) fn parts(&self, id: PackId) -> Option<Arc<ReferredParts>> {
        self.packs.get(&id)?.parts.clone()
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// It was not sent: first in the queue again.
    pub(super) fn not_sent(&mut self, job: PackJob) {
        self.queue.landed(job);
        let Some(pack) = self.packs.get_mut(&job.pack) else { return };
        pack.stage = Stage::Closed;
        self.queue.put_back(job);
    }

    /// The bucket has it.
    pub(super) fn in_bucket(&mut self, proof: &InBucket) {
        let job = proof.job();
        self.queue.landed(job);
        let Some(pack) = self.packs.get_mut(&job.pack) else { return };
        pack.stage = Stage::InBucket;
        pack.same = proof.is_same();
        self.refs.forget(job.pack);
        if let Some((first, _)) = pack.refs {
            self.blocking.remove(&(first, job.pack));
        }
        self.done.insert(job.pack);
    }

    /// C1: the last transaction up to `appended` that, with all before it, refers only to packs that the bucket has, or
    /// that nothing refers to any more after it.
    pub(super) fn sendable(&self, appended: Seq) -> Seq {
        let upto = match self.blocking.first() {
            Some((first, _)) => appended.min(Seq(first.0.saturating_sub(1))),
            None => appended,
        };
        self.spans.end_before(upto)
    }

    /// J2: packs that transactions refer to further than they are durable. Those whose transactions are all
    /// confirmed are in the bucket for good, and need no fsync here.
    pub(super) fn to_sync(&mut self, confirmed: Seq) -> Vec<PackToSync> {
        let packs = &self.packs;
        let settled = |p: &StagedPack| {
            p.stage == Stage::InBucket && p.refs.is_none_or(|(_, last)| last <= confirmed)
        };
        self.unsynced.retain(|id| packs.get(id).is_some_and(|p| !settled(p)));
        let to_sync = |id: &PackId| {
            self.packs.get(id).map(|pack| PackToSync {
                pack: *id,
                length: pack.length,
                renamed: pack.renamed,
                file: pack.file.clone(),
            })
        };
        self.unsynced.iter().filter_map(to_sync).collect()
    }

    /// Whether the directory must be fsynced for any of these.
    pub(super) fn any_unnamed(&self, packs: &[PackToSync]) -> bool {
        packs.iter().any(|p| self.packs.get(&p.pack).is_some_and(|pack| !pack.named))
    }

    /// These are durable up to the lengths given, and so are their names.
    pub(super) fn synced(&mut self, packs: &[PackToSync]) {
        for done in packs {
            let Some(pack) = self.packs.get_mut(&done.pack) else { continue };
            pack.synced = pack.synced.max(done.length);
            pack.named = true;
            if pack.synced >= pack.referred {
                self.unsynced.remove(&done.pack);
            }
        }
    }

    /// C4: packs that nothing needs here any more, and whether the cache may have the file. They are marked as leaving.
    pub(super) fn leave(&mut self, settled: Settled) -> Vec<(PackId, bool)> {
        let mut leaving = Vec::new();
        self.done.retain(|id| {
            let Some(pack) = self.packs.get_mut(id) else { return false };
            let leaves = pack.may_leave(settled.upto());
            if leaves {
                pack.stage = Stage::Leaving;
                leaving.push((*id, pack.same));
            }
            !leaves
        });
        leaving
    }

    /// Whether any could leave if everything up to `confirmed` were settled.
    pub(super) fn may_leave(&self, confirmed: Seq) -> bool {
        self.done.iter().filter_map(|id| self.packs.get(id)).any(|p| p.may_leave(confirmed))
    }
}
