//! The memory that write buffers take, over all files.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// A shared budget in bytes. Other threads may exceed it while one of them makes room.
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
    /// Held by the thread that makes room.
    turn: Mutex<()>,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0), turn: Mutex::new(()) }
    }

    /// A file's buffers now take `now` bytes instead of `before`.
    pub(super) fn charge(&self, before: u64, now: u64) {
        if now > before {
            self.used.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The turn to make room, if the caller has to. Up to a quarter above the budget it is enough that somebody else
    /// does; beyond that, writers wait for their turn.
    pub(super) fn turn_to_relieve(&self) -> Option<MutexGuard<'_, ()>> {
        let used = self.used();
        if used <= self.limit {
            return None;
        }
        if used <= self.limit + self.limit / 4 {
            return self.turn.try_lock();
        }
        let turn = self.turn.lock();
        (self.used() > self.limit).then_some(turn)
    }

    /// Whether enough room was made that the next writes need not make any.
    pub(super) fn is_relieved(&self) -> bool {
        self.used() <= self.limit / 4 * 3
    }
}
