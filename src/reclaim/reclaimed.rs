//! What a deletion did, and what it left, for people and for `status`.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::checkpoint::PackInfo;
use crate::types::{KIB, PackId};

/// Objects, and their bytes in the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectTally {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl ObjectTally {
    /// One object of this length.
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

/// A pack of which little lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparsePack {
    /// Its id.
    pub pack: PackId,
    /// The object's bytes.
    pub length: u64,
    /// Bytes of it that are needed, at most.
    pub live: u64,
}

impl SparsePack {
    /// Of what the table of packs says of an object of this length.
    pub(super) fn of(pack: PackId, length: u64, row: &PackInfo) -> Self {
        let overhead = row.references.saturating_mul(OVERHEAD);
        Self { pack, length, live: row.live.saturating_add(overhead) }
    }
}

/// What an extent takes in a pack besides its plaintext, at most: seal, and its line in the footer.
const OVERHEAD: u64 = 512;

/// Dead bytes of a pack below which it is left alone.
const WORTH_IT: u64 = 64 * KIB;

/// Sparse packs that one run hands over, at most.
const WORST: usize = 1000;

/// What a deletion came to. Of a dry one: what would have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaimed {
    /// Nothing was deleted: it was only asked what would be.
    pub dry_run: bool,
    /// Packs that went.
    pub packs: ObjectTally,
    /// Checkpoints: manifests and pages that went.
    pub checkpoints: ObjectTally,
    /// Commits that went.
    pub commits: ObjectTally,
    /// Old superblocks, probes.
    pub others: ObjectTally,
    /// Packs that the newest state needs.
    pub live: ObjectTally,
    /// Packs that stay for the retention alone.
    pub retained: ObjectTally,
    /// Packs that stay for snapshots, and would go otherwise.
    pub pinned: ObjectTally,
    /// Of these the bytes that one snapshot alone holds, by its name.
    pub alone: BTreeMap<String, u64>,
    /// Packs that nothing mentions, younger than the retention: uploads under way, or broken off.
    pub young: ObjectTally,
    /// The oldest state that is promised: 0 is the first.
    pub oldest: u64,
    /// Live packs of which more than a third is dead, and those dead bytes.
    pub sparse: ObjectTally,
    /// Bytes that were written anew to empty such packs.
    pub rewritten: u64,
    /// The packs among them that are worth it most, the worst first.
    #[serde(skip)]
    pub worst: Vec<SparsePack>,
    /// It ended early, as somebody waits for a run; the next one goes on.
    #[serde(skip)]
    pub gave_way: bool,
    /// What the user should know of the bucket.
    pub trouble: Vec<String>,
    /// Why the store did not delete all that was to go, if so.
    pub refused: Option<String>,
}

impl Reclaimed {
    /// Takes in a live pack: if less than two thirds of it live, it is worth writing those anew. To win a byte costs two
    /// then, at most; and what the bucket holds is at most one and a half of what lives.
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

    /// Those of which the least lives, first.
    pub(super) fn keep_worst(&mut self) {
        self.worst.sort_by_key(|pack| pack.live.saturating_mul(1 << 20) / pack.length.max(1));
        self.worst.truncate(WORST);
    }

    /// All that went.
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
