//! What a deletion removed and what it left, for people and for `status`.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::checkpoint::PackInfo;
use crate::types::{KIB, PackId};

/// A count of objects, and their bytes in the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectTally {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ObjectTally {
    /// Counts one object of this length.
    pub(super) fn count(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl AddAssign for ObjectTally {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// A pack of which little is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparsePack {
    /// Its id.
    pub pack: PackId,
    /// The object's bytes.
    pub length: u64,
    /// Upper bound of its live bytes.
    pub live: u64,
}

impl SparsePack {
    /// From the row that the pack table has for an object of this length.
    pub(super) fn of(pack: PackId, length: u64, row: &PackInfo) -> Self {
        let overhead = row.references.saturating_mul(OVERHEAD);
        Self { pack, length, live: row.live.saturating_add(overhead) }
    }
}

/// Upper bound of what an extent takes in a pack besides its plaintext: its seal, and its entry in the footer.
const OVERHEAD: u64 = 512;

/// A pack with fewer dead bytes than this is left alone.
const WORTH_IT: u64 = 64 * KIB;

/// How many sparse packs one run hands over, at most.
const WORST: usize = 1000;

/// The result of a deletion; of a dry run, what would have been deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaimed {
    /// Nothing was deleted: this is what would have been.
    pub dry_run: bool,
    /// Packs that were deleted.
    pub packs: ObjectTally,
    /// Manifests and pages of checkpoints that were deleted.
    pub checkpoints: ObjectTally,
    /// Commits that were deleted.
    pub commits: ObjectTally,
    /// Old superblocks and probes that were deleted.
    pub others: ObjectTally,
    /// Packs that the newest state needs.
    pub live: ObjectTally,
    /// Packs that stay only for the retention.
    pub retained: ObjectTally,
    /// Packs that stay only for snapshots.
    pub pinned: ObjectTally,
    /// The bytes of `pinned` that a single snapshot holds, by its name.
    pub alone: BTreeMap<String, u64>,
    /// Packs that nothing refers to, younger than the retention: uploads under way, or broken off.
    pub young: ObjectTally,
    /// The oldest promised state; 0 is the first of all.
    pub oldest: u64,
    /// Live packs of which more than a third is dead; the bytes are the dead ones.
    pub sparse: ObjectTally,
    /// Bytes that were rewritten to empty such packs.
    pub rewritten: u64,
    /// The sparse packs most worth rewriting, the worst first.
    #[serde(skip)]
    pub worst: Vec<SparsePack>,
    /// It ended early because somebody waits for a run; the next one goes on.
    #[serde(skip)]
    pub gave_way: bool,
    /// What the user should know about the bucket.
    pub trouble: Vec<String>,
    /// Why the store did not delete all that was to go; `None` if it did.
    pub refused: Option<String>,
}

impl Reclaimed {
    /// Notes a live pack for rewriting, if less than two thirds of it is live. So a byte gained costs at most two bytes
    /// written, and the bucket holds at most one and a half times what is live.
    pub(super) fn weigh(&mut self, pack: SparsePack) {
        let dead = pack.length.saturating_sub(pack.live);
        if dead < WORTH_IT || pack.live.saturating_mul(3) >= pack.length.saturating_mul(2) {
            return;
        }
        self.sparse.count(dead);
        self.worst.push(pack);
        if self.worst.len() >= 2 * WORST {
            self.keep_worst();
        }
    }

    /// Keeps the packs with the smallest live part, smallest first.
    pub(super) fn keep_worst(&mut self) {
        self.worst.sort_by_key(|pack| pack.live.saturating_mul(1 << 20) / pack.length.max(1));
        self.worst.truncate(WORST);
    }

    /// All that was deleted.
    pub fn gone(&self) -> ObjectTally {
        let mut all = self.packs;
        all += self.checkpoints;
        all += self.commits;
        all += self.others;
        all
    }

    /// Whether something will go when it is old enough, without any further change.
    pub fn leaves_something(&self) -> bool {
        self.retained.objects + self.young.objects > 0 || self.refused.is_some() || self.gave_way
    }
}
