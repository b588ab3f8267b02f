//! The table of staged packs: who refers to each, what of it is durable, whether the bucket has it. Pure bookkeeping, no I/O.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::barrier::Settled;
use super::dead::{Living, Spans};
use super::disk::DiskFile;
use super::error::{Error, Result};
use super::send::InBucket;
use crate::log::DroppedPack;
use crate::types::{MIB, PackId, Seq};

/// From this length on a pack has earned a request of its own; of smaller ones one is in flight at a time, so that
/// what comes meanwhile rides together (natural batching). A stream of over 1 MiB has a pack of its own.
pub(super) const FULL: u64 = MIB;
/// Files of closed packs that are kept open for readers; beyond that they are opened for each read.
const OPEN_FILES: usize = 256;
/// Ids of dropped packs that are remembered, so that a late reference is an error instead of a loss.
const DROPPED_IDS: usize = 8192;

/// Where a pack is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Takes extents.
    Open,
    /// Waits for the uploader.
    Closed,
    /// On the wire.
    Sending,
    /// The bucket has it: it stays until what refers to it is confirmed (C4).
    InBucket,
    /// Being given to the cache.
    Leaving,
    /// Nothing refers to it any more, and it was not sent: it goes once the journal says so durably (J3).
    Dropped,
}

#[derive(Debug)]
pub(super) struct Pack {
    pub(super) stage: Stage,
    /// Made by this process: nothing that is confirmed refers to it before it is in the bucket.
    made_here: bool,
    pub(super) length: u64,
    /// First and last transaction that refers to it, of those that this process knows.
    refs: Option<(Seq, Seq)>,
    /// Unpublished writes that refer to it.
    holds: u32,
    /// How far a transaction may refer into it, and how far it is durable, in bytes.
    referred: u64,
    synced: u64,
    /// Its name in the directory is durable, and it is `<id>.pack`.
    named: bool,
    pub(super) renamed: bool,
    /// Recovered after a crash: where its last extent ends. The bucket may have it with another footer (J7).
    pub(super) extents_end: Option<u64>,
    /// The bucket's object equals the file byte for byte.
    same: bool,
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

/// A pack that the uploader may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) pack: PackId,
    pub(super) length: u64,
    pub(super) extents_end: Option<u64>,
}

impl Job {
    /// Whether it is one of those that go side by side.
    pub(super) fn is_full(&self) -> bool {
        self.length >= FULL
    }
}

/// A pack that a barrier must fsync (J2).
#[derive(Debug)]
pub(super) struct ToSync {
    pub(super) pack: PackId,
    pub(super) length: u64,
    pub(super) renamed: bool,
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    packs: HashMap<PackId, Pack>,
    /// Closed packs in the order of their closing.
    full: VecDeque<PackId>,
    partial: VecDeque<PackId>,
    partial_in_flight: bool,
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
    /// What refers to packs that the bucket does not have.
    living: Living,
    /// Runs of transactions that go into one commit, because a pack of theirs was dropped.
    spans: Spans,
    /// Packs that are dropped, and noted so in the journal: they go with the next barrier.
    doomed: HashSet<PackId>,
}

impl Table {
    /// A pack just made.
    pub(super) fn created(&mut self, id: PackId, file: Option<Arc<dyn DiskFile>>) {
        self.insert(id, 0, file, false);
        if let Some(pack) = self.packs.get_mut(&id) {
            pack.made_here = true;
        }
    }

    /// A pack found at start: it waits for recovery.
    pub(super) fn found(&mut self, id: PackId, length: u64, renamed: bool) {
        self.insert(id, length, None, renamed);
    }

    fn insert(&mut self, id: PackId, length: u64, file: Option<Arc<dyn DiskFile>>, renamed: bool) {
        let pack = Pack {
            stage: Stage::Open,
            made_here: false,
            length,
            refs: None,
            holds: 0,
            referred: 0,
            synced: 0,
            named: false,
            renamed,
            extents_end: None,
            same: false,
            file,
        };
        self.packs.insert(id, pack);
    }

    pub(super) fn get(&self, id: PackId) -> Option<&Pack> {
        self.packs.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PackId, &Pack)> {
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

    pub(super) fn set_length(&mut self, id: PackId, length: u64) {
        if let Some(pack) = self.packs.get_mut(&id) {
            pack.length = length;
        }
    }

    /// The pack has its footer and its name: it is in the queue.
    pub(super) fn closed(&mut self, id: PackId, extents_end: Option<u64>) {
        let Some(pack) = self.packs.get_mut(&id) else { return };
        pack.stage = Stage::Closed;
        pack.renamed = true;
        pack.extents_end = extents_end;
        if pack.file.is_some() {
            self.kept_open.push_back(id);
        }
        let queue = if pack.length >= FULL { &mut self.full } else { &mut self.partial };
        queue.push_back(id);
        if self.kept_open.len() > OPEN_FILES
            && let Some(oldest) = self.kept_open.pop_front()
            && let Some(pack) = self.packs.get_mut(&oldest)
        {
            pack.file = None;
        }
    }

    /// Takes a pack out if nothing refers to it, nor will: closed (or `even_open`), not sent, not held. It is the
    /// caller who removes the file.
    pub(super) fn take_unwanted(&mut self, id: PackId, even_open: bool) -> Option<Pack> {
        let pack = self.packs.get(&id)?;
        let here = pack.stage == Stage::Closed || (even_open && pack.stage == Stage::Open);
        if !here || pack.refs.is_some() || pack.holds > 0 {
            return None;
        }
        self.remember_dropped(id);
        self.remove(id)
    }

    /// C4: from now on the packs stay until `seq` is confirmed. Those that are not here are in the bucket, or an
    /// error if they were dropped. Answers which are here.
    pub(super) fn appending(&mut self, seq: Seq, packs: &[PackId]) -> Result<Vec<PackId>> {
        let is_gone = |id: &&PackId| {
            // Taken out of the queue to be dropped: the note of that may be written in this moment.
            let taken = self.packs.get(id).is_some_and(|pack| pack.stage == Stage::Dropped);
            taken || self.dropped.contains(id)
        };
        if let Some(gone) = packs.iter().find(is_gone) {
            return Err(Error::Gone(*gone));
        }
        let mut here = Vec::new();
        for id in packs {
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

    /// A hold is let go. Answers whether that may let the pack leave.
    pub(super) fn unhold(&mut self, id: PackId) -> bool {
        let Some(pack) = self.packs.get_mut(&id) else { return false };
        pack.holds = pack.holds.saturating_sub(1);
        pack.holds == 0 && (pack.stage == Stage::InBucket || self.living.is_dead(id))
    }

    /// A transaction was appended: what it put or deleted, and what that refers to now. Answers whether a pack that
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
                let unsent = matches!(pack.stage, Stage::Open | Stage::Closed | Stage::Sending);
                pack.made_here && unsent && pack.refs.is_some_and(|(first, _)| first == seq)
            })
        };
        self.living.appended(seq, bytes, changed, begins)
    }

    fn may_drop(&self, id: PackId) -> bool {
        self.packs.get(&id).is_some_and(|pack| pack.stage == Stage::Closed && pack.holds == 0)
    }

    /// Whether there is anything that a barrier would remove, or could.
    pub(super) fn has_dead(&self) -> bool {
        !self.doomed.is_empty() || self.living.dead().any(|id| self.may_drop(id))
    }

    /// Packs that need not be sent any more: from here on nothing refers to them, and they are not in the queue. The
    /// caller notes that in the journal, and says so by `noted_dropped`, or calls `not_dropped`.
    pub(super) fn take_dead(&mut self) -> Vec<DroppedPack> {
        let dead: Vec<_> = self.living.dead().filter(|id| self.may_drop(*id)).collect();
        let mut taken = Vec::new();
        for id in dead {
            let bound = self.living.bind(id, &mut self.spans);
            let Some(pack) = self.packs.get_mut(&id).filter(|_| bound.is_some()) else {
                // Too much lies between its first reference and its last: it is sent as any other.
                self.living.forget(id);
                continue;
            };
            pack.stage = Stage::Dropped;
            taken.extend(bound);
        }
        let packs = &self.packs;
        let waits = |id: &PackId| packs.get(id).is_some_and(|pack| pack.stage == Stage::Closed);
        self.full.retain(waits);
        self.partial.retain(waits);
        taken
    }

    /// The journal says that these are dropped: no commit waits for them, and the next barrier lets them go.
    pub(super) fn noted_dropped(&mut self, packs: &[DroppedPack]) {
        for dropped in packs {
            let id = dropped.pack;
            self.living.forget(id);
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
                self.living.forget(id);
            }
            let Some(pack) = self.packs.get_mut(&id) else { continue };
            pack.stage = Stage::Closed;
            let queue = if pack.length >= FULL { &mut self.full } else { &mut self.partial };
            queue.push_back(id);
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

    /// Takes a pack out.
    pub(super) fn remove(&mut self, id: PackId) -> Option<Pack> {
        let pack = self.packs.remove(&id)?;
        if pack.stage == Stage::Closed {
            self.full.retain(|other| *other != id);
            self.partial.retain(|other| *other != id);
        }
        self.kept_open.retain(|other| *other != id);
        if let Some((first, _)) = pack.refs {
            self.blocking.remove(&(first, id));
        }
        self.unsynced.remove(&id);
        self.done.remove(&id);
        self.living.forget(id);
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

    /// The next pack to send that is at most `most` bytes: the first of those that are not full, if none of them is in
    /// flight (so that a small file does not wait behind a long stream), else the first full one, if it is at most
    /// `most_full`.
    pub(super) fn take(&mut self, most: u64, most_full: u64) -> Option<Job> {
        let fits = |id: &PackId, most| self.packs.get(id).is_some_and(|p| p.length <= most);
        let id = if !self.partial_in_flight && self.partial.front().is_some_and(|id| fits(id, most))
        {
            self.partial_in_flight = true;
            self.partial.pop_front()
        } else if self.full.front().is_some_and(|id| fits(id, most_full)) {
            self.full.pop_front()
        } else {
            None
        }?;
        let pack = self.packs.get_mut(&id)?;
        pack.stage = Stage::Sending;
        Some(Job { pack: id, length: pack.length, extents_end: pack.extents_end })
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_queue(&self) -> bool {
        !self.full.is_empty() || !self.partial.is_empty()
    }

    /// It was not sent: first in the queue again.
    pub(super) fn not_sent(&mut self, job: Job) {
        let Some(pack) = self.packs.get_mut(&job.pack) else { return };
        pack.stage = Stage::Closed;
        if job.length >= FULL {
            self.full.push_front(job.pack);
        } else {
            self.partial_in_flight = false;
            self.partial.push_front(job.pack);
        }
    }

    /// The bucket has it.
    pub(super) fn in_bucket(&mut self, proof: &InBucket) {
        let job = proof.job();
        if job.length < FULL {
            self.partial_in_flight = false;
        }
        let Some(pack) = self.packs.get_mut(&job.pack) else { return };
        pack.stage = Stage::InBucket;
        pack.same = proof.is_same();
        self.living.forget(job.pack);
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
    pub(super) fn to_sync(&mut self, confirmed: Seq) -> Vec<ToSync> {
        let packs = &self.packs;
        let settled = |p: &Pack| {
            p.stage == Stage::InBucket && p.refs.is_none_or(|(_, last)| last <= confirmed)
        };
        self.unsynced.retain(|id| packs.get(id).is_some_and(|p| !settled(p)));
        let to_sync = |id: &PackId| {
            self.packs.get(id).map(|pack| ToSync {
                pack: *id,
                length: pack.length,
                renamed: pack.renamed,
                file: pack.file.clone(),
            })
        };
        self.unsynced.iter().filter_map(to_sync).collect()
    }

    /// Whether the directory must be fsynced for any of these.
    pub(super) fn any_unnamed(&self, packs: &[ToSync]) -> bool {
        packs.iter().any(|p| self.packs.get(&p.pack).is_some_and(|pack| !pack.named))
    }

    /// These are durable up to the lengths given, and so are their names.
    pub(super) fn synced(&mut self, packs: &[ToSync]) {
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

impl Pack {
    fn may_leave(&self, confirmed: Seq) -> bool {
        self.holds == 0 && self.refs.is_none_or(|(_, last)| last <= confirmed)
    }
}
