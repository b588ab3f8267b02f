//! What a deletion did, and what it left, for people and for `status`.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

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
    /// What the user should know of the bucket.
    pub trouble: Vec<String>,
    /// Why the store did not delete all that was to go, if so.
    pub refused: Option<String>,
}

impl Reclaimed {
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
        self.retained.objects + self.young.objects > 0 || self.refused.is_some()
    }
}
