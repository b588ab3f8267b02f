//! The closed packs that wait to be sent, in the order in which they were closed. Pure bookkeeping, no I/O.

use std::collections::VecDeque;

use super::job::{PackJob, is_full_pack};
use crate::types::PackId;

/// Full packs are sent side by side; of the others one at a time.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    full: VecDeque<Queued>,
    partial: VecDeque<Queued>,
    partial_in_flight: bool,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    pack: PackId,
    length: u64,
}

impl SendQueue {
    fn of(&mut self, length: u64) -> &mut VecDeque<Queued> {
        if is_full_pack(length) { &mut self.full } else { &mut self.partial }
    }

    pub(super) fn push(&mut self, pack: PackId, length: u64) {
        self.of(length).push_back(Queued { pack, length });
    }

    /// Removes all packs but those that stay.
    pub(super) fn retain(&mut self, stays: impl Fn(PackId) -> bool) {
        self.full.retain(|queued| stays(queued.pack));
        self.partial.retain(|queued| stays(queued.pack));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.partial.is_empty()
    }

    /// Takes the next pack to send. The first partial one comes first, if it has at most `most` bytes and no other
    /// is in flight, so that a small file does not wait behind a long stream. Otherwise the first full one, if it
    /// has at most `most_full`.
    pub(super) fn take(&mut self, most: u64, most_full: u64) -> Option<PackId> {
        let fits = |queue: &VecDeque<Queued>, most| queue.front().is_some_and(|p| p.length <= most);
        let taken = if !self.partial_in_flight && fits(&self.partial, most) {
            self.partial_in_flight = true;
            self.partial.pop_front()
        } else if fits(&self.full, most_full) {
            self.full.pop_front()
        } else {
            None
        };
        taken.map(|queued| queued.pack)
    }

    /// The pack is no longer in flight: if it was partial, the next partial one may go.
    pub(super) fn landed(&mut self, job: PackJob) {
        if !job.is_full() {
            self.partial_in_flight = false;
        }
    }

    /// Puts a pack that was not sent back at the head of its queue.
    pub(super) fn put_back(&mut self, job: PackJob) {
        self.of(job.length).push_front(Queued { pack: job.pack, length: job.length });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> PackId {
        PackId([n; 16])
    }

    #[test]
    fn small_packs_go_one_at_a_time_and_full_ones_beside_them() {
        let mut queue = SendQueue::default();
        let full = crate::types::MIB;
        for (n, length) in [(1, 10), (2, full), (3, 20), (4, full)] {
            queue.push(id(n), length);
        }
        assert_eq!(
            queue.take(full, full),
            Some(id(1)),
            "a small one does not wait behind a stream"
        );
        assert_eq!(queue.take(full, full - 1), None, "the full one has no room");
        assert_eq!(queue.take(full, full), Some(id(2)));
        let job = PackJob { pack: id(1), length: 10 };
        queue.landed(job);
        queue.put_back(job);
        assert_eq!(queue.take(5, 0), None, "it is first again, and too large");
        assert_eq!(queue.take(10, 0), Some(id(1)));
        queue.retain(|pack| pack != id(4));
        queue.landed(job);
        assert_eq!(queue.take(full, full), Some(id(3)));
        assert!(queue.is_empty());
    }
}
