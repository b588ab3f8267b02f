//! What is on the wire: how far each pack and the commit are, and how much more the link takes.

use std::collections::HashMap;

use tokio::time::Instant;

use super::link::Link;
use super::packs::Job;
use crate::store::Moved;
use crate::types::PackId;

/// The packs on the wire, the commit, and what the link carries.
#[derive(Default)]
pub(super) struct Wire {
    flights: HashMap<PackId, (Job, Moved)>,
    commit: Option<(u64, Moved)>,
    /// Bytes of packs and commits that the bucket has confirmed.
    confirmed: u64,
    /// The most that was carried.
    furthest: u64,
    /// Bytes of full packs that are through, ever. Small ones measure the store's answers, not the link.
    through: u64,
    link: Link,
}

impl Wire {
    pub(super) fn begins(&mut self, job: Job, moved: Moved) {
        self.flights.insert(job.pack, (job, moved));
        self.look(false);
    }

    pub(super) fn ends(&mut self, job: Job, sent: bool) {
        self.flights.remove(&job.pack);
        if sent {
            self.confirmed += job.length;
        }
        if job.is_full() && sent {
            self.through += job.length;
        }
        self.look(job.is_full() && sent);
    }

    /// A commit leaves, one at a time: its length, and how far it is.
    pub(super) fn commit_begins(&mut self, commit: Option<(u64, Moved)>) {
        self.commit = commit;
    }

    pub(super) fn commit_ends(&mut self, sent: bool) {
        if let (Some((length, _)), true) = (self.commit.take(), sent) {
            self.confirmed += length;
        }
    }

    /// Bytes that the other end has taken. No pack or commit counts for more than its length, however often it is
    /// sent: a store that takes bytes and then fails, for ever, brings nobody beyond a point that was reached before.
    pub(super) fn carried(&mut self) -> u64 {
        let packs = self.flights.values().map(|(job, moved)| (job.length, moved));
        let commit = self.commit.iter().map(|(length, moved)| (*length, moved));
        let flying = packs.chain(commit).map(|(length, moved)| moved.bytes().min(length));
        self.furthest = self.furthest.max(self.confirmed + flying.sum::<u64>());
        self.furthest
    }

    fn full(&self) -> impl Iterator<Item = (u64, u64)> {
        let full = self.flights.values().filter(|(job, _)| job.is_full());
        full.map(|(job, moved)| (job.length, moved.bytes().min(job.length)))
    }

    pub(super) fn look(&mut self, ended: bool) {
        let carried = self.through + self.full().map(|(_, moved)| moved).sum::<u64>();
        // All that there is waits for the store's answer: that is not the link's time.
        let waits = self.full().all(|(length, moved)| moved == length);
        self.link.look(Instant::now(), carried, ended || waits);
        if waits {
            self.link.rest();
        }
    }

    /// Bytes that the next pack may have, and those of the next full one, when so many may be in memory at once. One
    /// pack may be larger than the whole budget: it goes alone.
    pub(super) fn room(&self, budget: u64) -> (u64, u64) {
        if self.flights.is_empty() {
            return (u64::MAX, u64::MAX);
        }
        let room = budget.saturating_sub(self.flights.values().map(|(job, _)| job.length).sum());
        let left = self.full().map(|(length, moved)| length - moved).sum();
        let alone = self.full().next().is_none();
        (room, if alone { room } else { room.min(self.link.room(left)) })
    }
}
