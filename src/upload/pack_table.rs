//! The table of staged packs: what refers to each, how much of it is durable, whether the bucket has it. No I/O.

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

/// How many files of closed packs are kept open for readers; others are opened for each read.
const OPEN_FILES: usize = 256;
/// How many ids of dropped packs are remembered, so that a late reference is an error and not a loss.
const DROPPED_IDS: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct PackTable {
    packs: HashMap<PackId, StagedPack>,
    queue: SendQueue,
    /// Packs that the bucket does not have, by the first transaction that refers to them. The smallest bounds the next commit
    /// (C1).
    blocking: BTreeSet<(Seq, PackId)>,
    /// Packs that are referred to beyond what is durable of them.
    unsynced: HashSet<PackId>,
    /// Packs that the bucket has, and that have not left yet.
    done: HashSet<PackId>,
    /// Closed packs whose files are kept open, oldest first.
    kept_open: VecDeque<PackId>,
    dropped: HashSet<PackId>,
    dropped_order: VecDeque<PackId>,
    /// For packs that the bucket does not have: how many records refer to each.
    refs: RefCounts,
    /// Runs of transactions that must share a commit, because a pack that they refer to was dropped.
    spans: CommitSpans,
    /// Dropped packs whose drop is noted in the journal: they go with the next barrier.
    doomed: HashSet<PackId>,
    /// What is being deleted in the bucket (K5).
    pub(super) freezer: Freezer,
}

impl PackTable {
    /// Adds a pack that was just made.
    pub(super) fn created(&mut self, id: PackId, file: Option<Arc<dyn DiskFile>>) {
        let pack = StagedPack { made_here: true, ..StagedPack::new(0, file, false) };
        self.packs.insert(id, pack);
    }

    /// Adds a pack found at start: it waits for recovery.
    pub(super) fn found(&mut self, id: PackId, length: u64, renamed: bool) {
        self.packs.insert(id, StagedPack::new(length, None, renamed));
    }

    pub(super) fn get(&self, id: PackId) -> Option<&StagedPack> {
        self.packs.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PackId, &StagedPack)> {
        self.packs.iter().map(|(id, pack)| (*id, pack))
    }

    /// Whether the pack's file may be gone from here already.
    pub(super) fn has_left(&self, id: PackId) -> bool {
        self.packs.get(&id).is_none_or(|p| matches!(p.stage, Stage::Leaving | Stage::Dropped))
    }

    /// Whether the pack is gone, or going, unsent, because nothing refers to it.
    pub(super) fn was_dropped(&self, id: PackId) -> bool {
        self.dropped.contains(&id)
    }

    /// Sets the file of a pack that was made without one.
    pub(super) fn set_file(&mut self, id: PackId, file: Arc<dyn DiskFile>) {
        if let Some(pack) = self.packs.get_mut(&id) {
            pack.file = Some(file);
        }
    }

    /// Sets how much of the pack is in its file. Returns whether any of it was fsynced before.
    pub(super) fn set_length(&mut self, id: PackId, length: u64) -> bool {
        let Some(pack) = self.packs.get_mut(&id) else { return false };
        pack.length = length;
        pack.synced > 0
    }

    /// Puts a pack that has its footer and its final name into the queue.
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

    /// Takes a pack out if nothing refers to it, now or later: it is closed (or `even_open`), not sent, not held. The caller
    /// removes the file.
    pub(super) fn take_unwanted(&mut self, id: PackId, even_open: bool) -> Option<StagedPack> {
        let pack = self.packs.get(&id)?;
        let here = pack.stage == Stage::Closed || (even_open && pack.stage == Stage::Open);
        if !here || pack.refs.is_some() || pack.holds > 0 {
            return None;
        }
        self.remember_dropped(id);
        self.remove(id)
    }

    /// C4: from now on these packs stay until `seq` is confirmed. Returns those that are here. The others are in the bucket;
    /// if one was dropped or is frozen, that is an error.
    pub(super) fn appending(&mut self, seq: Seq, packs: &[PackId]) -> Result<Vec<PackId>> {
        let is_gone = |id: &&PackId| {
            // It is being dropped: the note of that may be written at this moment.
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

    /// Lets go of a hold. Returns whether the pack may now leave or be dropped.
    pub(super) fn unhold(&mut self, id: PackId) -> bool {
        let Some(pack) = self.packs.get_mut(&id) else { return false };
        pack.holds = pack.holds.saturating_sub(1);
        pack.holds == 0 && (pack.stage == Stage::InBucket || self.refs.is_dead(id))
    }

    /// Notes that a transaction was appended: the records it put or deleted, and the packs they refer to now. Returns whether
    /// an unsent pack lost its last reference.
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

    /// Whether a barrier would, or could, remove any pack.
    pub(super) fn has_dead(&self) -> bool {
        !self.doomed.is_empty() || self.refs.dead().any(|id| self.may_drop(id))
    }

    /// Takes packs that nothing refers to any more out of the queue. The caller notes them in the journal, and then calls
    /// `noted_dropped`, or `not_dropped` if that failed.
    pub(super) fn take_dead(&mut self) -> Vec<DroppedPack> {
        let dead: Vec<_> = self.refs.dead().filter(|id| self.may_drop(*id)).collect();
        let mut taken = Vec::new();
        for id in dead {
            let bound = self.refs.bind(id, &mut self.spans);
            let Some(pack) = self.packs.get_mut(&id).filter(|_| bound.is_some()) else {
                // Too much lies between its first and its last reference: it is sent like any other.
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

    /// The journal has noted these drops: no commit waits for the packs, and the next barrier removes them.
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

    /// The journal did not take the note: the packs are queued again. `once_more`: the drop is tried again, unless they are
    /// sent first.
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

    /// Takes over what a continued journal says of dropped packs; some may still be here.
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

    /// The packs to remove once the journal, as it is now, is durable.
    pub(super) fn doomed(&self) -> Vec<PackId> {
        self.doomed.iter().copied().collect()
    }

    /// C1: the end of a commit that follows `from` and would end at `at`: see [`CommitSpans::end_near`].
    pub(super) fn commit_end(&self, from: Seq, at: Seq) -> Seq {
        self.spans.end_near(from, at)
    }

    /// Notes that every transaction up to this one is in the bucket.
    pub(super) fn confirmed(&mut self, upto: Seq) {
        self.spans.confirmed(upto);
    }

    /// K5: freezes those of `packs` (all in the bucket) that nothing here needs once everything up to `confirmed` is in the
    /// bucket, and that no append has referred to since the deletion began. From now on nothing may refer to them.
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
        if !self.dropped.insert(id) {
            return; // else its first place in the order would let it be forgotten too soon
        }
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

    /// The parts of a pack found after a crash that are still needed (J7).
    pub(super) fn parts(&self, id: PackId) -> Option<Arc<ReferredParts>> {
        self.packs.get(&id)?.parts.clone()
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Puts a pack that was not sent back at the head of the queue.
    pub(super) fn not_sent(&mut self, job: PackJob) {
        self.queue.landed(job);
        let Some(pack) = self.packs.get_mut(&job.pack) else { return };
        pack.stage = Stage::Closed;
        self.queue.put_back(job);
    }

    /// Notes that the bucket has a pack.
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

    /// C1: the last transaction up to `appended` where a commit may end: up to it, all refer only to packs that the bucket
    /// has, or to dropped ones that nothing refers to after it.
    pub(super) fn sendable(&self, appended: Seq) -> Seq {
        let upto = match self.blocking.first() {
            Some((first, _)) => appended.min(Seq(first.0.saturating_sub(1))),
            None => appended,
        };
        self.spans.end_before(upto)
    }

    /// J2: packs that are referred to beyond what is durable of them. A pack in the bucket whose transactions are all
    /// confirmed needs no fsync here.
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

    /// Notes that these packs are durable up to the lengths given, and so are their names.
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

    /// C4: marks the packs that nothing needs here any more as leaving, and returns them, each with whether the cache may
    /// take the file.
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

    /// Whether any pack could leave if everything up to `confirmed` were settled.
    pub(super) fn may_leave(&self, confirmed: Seq) -> bool {
        self.done.iter().filter_map(|id| self.packs.get(id)).any(|p| p.may_leave(confirmed))
    }
}
