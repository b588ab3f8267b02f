//! Brings back content without moving its bytes, by references to packs that the old state holds in the bucket (V4).

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::crypto::Keys;
use crate::index::{self, Draft};
use crate::store::{self, Bucket};
use crate::types::{CommitNo, Extent, MIB, PackId};
use crate::upload::pack_object;
use crate::vault::Result;

/// Shorter extents are copied. They share packs with much else, and such a pack could never be emptied, since its footer only
/// knows the files that it was written for.
const WORTH_IT: u64 = MIB;
/// How many packs are asked for at once.
const PARALLEL: usize = 16;
/// How many packs are remembered.
const KNOWN: usize = 1 << 16;

/// Decides which references of a state can be reused.
pub(in crate::vault) struct Sharing {
    bucket: Bucket,
    commit: CommitNo,
    keys: Keys,
    /// The length of each pack asked for; `None`: it is not there.
    packs: HashMap<PackId, Option<u64>>,
    /// The state is no longer promised, or packs of it are being deleted: from now on bytes are copied.
    is_over: bool,
}

impl Sharing {
    /// For the state after `commit`.
    pub(in crate::vault) fn of(bucket: Bucket, keys: Keys, commit: CommitNo) -> Self {
        Self { bucket, commit, keys, packs: HashMap::new(), is_over: false }
    }

    /// Stops sharing: a transaction was refused.
    pub(in crate::vault) fn end(&mut self) {
        self.is_over = true;
    }

    /// The records of `list` that can be shared because their packs are there. Each pack is asked for once: a reference to a
    /// deleted one would be noticed only when read, and by then the file may have replaced a good one.
    pub(in crate::vault) async fn choose(
        &mut self,
        list: &[(u64, Extent)],
    ) -> Result<Vec<(u64, Extent)>> {
        if self.is_over {
            return Ok(Vec::new());
        }
        // Extents of an older key are sealed anew, so that a rotation can be completed.
        let epoch = self.keys.epoch();
        let long = |(_, extent): &&(u64, Extent)| {
            extent.length >= WORTH_IT && extent.reference.epoch == epoch
        };
        if self.packs.len() > KNOWN {
            self.packs.clear();
        }
        let mut unknown: Vec<_> = list.iter().filter(long).map(|(_, e)| e.reference.pack).collect();
        unknown.retain(|pack| !self.packs.contains_key(pack));
        unknown.sort_unstable();
        unknown.dedup();
        let bucket = Arc::new(self.bucket.clone());
        let found: Vec<_> = stream::iter(unknown)
            .map(|pack| {
                let bucket = bucket.clone();
                async move {
                    match bucket.head(&pack_object(pack)).await {
                        Ok(head) => Ok((pack, Some(head.length))),
                        Err(store::Error::NotFound { .. }) => Ok((pack, None)),
                        Err(error) => Err(error),
                    }
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        self.packs.extend(found);
        let is_there = |(_, extent): &&(u64, Extent)| {
            let reference = &extent.reference;
            let end = reference.offset + reference.sealed_length;
            self.packs.get(&reference.pack).is_some_and(|length| length.is_some_and(|l| l >= end))
        };
        Ok(list.iter().filter(long).filter(is_there).cloned().collect())
    }

    /// V4, checked in the transaction: whether the state is still promised. The horizon counts as appended, so the answer
    /// holds until a run of K5 freezes packs, and then the append is refused.
    pub(in crate::vault) fn may(&self, draft: &Draft<'_>) -> index::Result<bool> {
        let passed = draft.horizon()?.map_or(CommitNo(0), |horizon| horizon.commit);
        Ok(passed <= self.commit || draft.pins()?.iter().any(|(_, pin)| pin.commit == self.commit))
    }
}
