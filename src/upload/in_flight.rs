//! What is on its way to the bucket now: the progress of each pack and of the commit, and how much more the link
//! takes.

use std::collections::HashMap;

use tokio::time::Instant;

use super::bandwidth::Bandwidth;
use super::job::PackJob;
use crate::store::Moved;
use crate::types::PackId;

/// The packs and the commit on the wire, and what the link carries.
#[derive(Default)]
pub(super) struct UploadsInFlight {
    packs: HashMap<PackId, (PackJob, Moved)>,
    commit: Option<(u64, Moved)>,
    /// Bytes of packs and commits that the bucket has confirmed.
    confirmed: u64,
    /// The most that [`UploadsInFlight::carried`] has returned.
    furthest: u64,
    /// Bytes of all full packs sent so far. Small packs measure how soon the store replies, not the link.
    full_sent: u64,
    bandwidth: Bandwidth,
}

impl UploadsInFlight {
    pub(super) fn begin(&mut self, job: PackJob, moved: Moved) {
        self.packs.insert(job.pack, (job, moved));
        self.look(false);
    }

    pub(super) fn end(&mut self, job: PackJob, sent: bool) {
        self.packs.remove(&job.pack);
        if sent {
            self.confirmed += job.length;
        }
        if job.is_full() && sent {
            self.full_sent += job.length;
        }
        self.look(job.is_full() && sent);
    }

    /// A commit is being put, one at a time: its length and its progress.
    pub(super) fn begin_commit(&mut self, commit: Option<(u64, Moved)>) {
        self.commit = commit;
    }

    pub(super) fn end_commit(&mut self, sent: bool) {
        if let (Some((length, _)), true) = (self.commit.take(), sent) {
            self.confirmed += length;
        }
    }

    /// Bytes that the other end has taken. A pack or commit counts at most its length, however often it is sent: a
    /// store that forever takes bytes and then fails makes no progress beyond what was reached before.
    pub(super) fn carried(&mut self) -> u64 {
        let packs = self.packs.values().map(|(job, moved)| (job.length, moved));
        let commit = self.commit.iter().map(|(length, moved)| (*length, moved));
        let flying = packs.chain(commit).map(|(length, moved)| moved.bytes().min(length));
        self.furthest = self.furthest.max(self.confirmed + flying.sum::<u64>());
        self.furthest
    }

    fn full(&self) -> impl Iterator<Item = (u64, u64)> {
        let full = self.packs.values().filter(|(job, _)| job.is_full());
        full.map(|(job, moved)| (job.length, moved.bytes().min(job.length)))
    }

    /// Measures the link by the current progress. `ended`: a full pack was sent.
    pub(super) fn look(&mut self, ended: bool) {
        let carried = self.full_sent + self.full().map(|(_, moved)| moved).sum::<u64>();
        // All bytes are sent and the store's reply is awaited: that time is not the link's.
        let waits = self.full().all(|(length, moved)| moved == length);
        self.bandwidth.look(Instant::now(), carried, ended || waits);
        if waits {
            self.bandwidth.rest();
        }
    }

    /// How many bytes the next pack may have, and the next full pack, if `budget` bytes may be in memory at once. A
    /// pack larger than the budget goes alone.
    pub(super) fn room(&self, budget: u64) -> (u64, u64) {
        if self.packs.is_empty() {
            return (u64::MAX, u64::MAX);
        }
        let room = budget.saturating_sub(self.packs.values().map(|(job, _)| job.length).sum());
        let left = self.full().map(|(length, moved)| length - moved).sum();
        let alone = self.full().next().is_none();
        (room, if alone { room } else { room.min(self.bandwidth.room(left)) })
    }
}
