//! What is brought back without moving its bytes: by references to packs that the old state holds in the bucket (V4).

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::crypto::Keys;
use crate::index::{self, Draft};
use crate::store::{self, Bucket};
use crate::types::{CommitNo, Extent, MIB, PackId};
use crate::upload::pack_object;
use crate::vault::Result;

/// Shorter ones are copied: they lie in packs with much else, which could never be emptied for the sake of one of them, as
/// a pack's footer knows only the files that it was written for.
const WORTH_IT: u64 = MIB;
/// Packs that are asked for at once.
const PARALLEL: usize = 16;
/// Packs that are remembered to be there.
const KNOWN: usize = 1 << 16;

/// How references of one state are taken over.
pub(in crate::vault) struct Sharing {
    bucket: Bucket,
    commit: CommitNo,
    keys: Keys,
    /// How long packs are; `None`: it is not there.
    packs: HashMap<PackId, Option<u64>>,
    /// It is not promised any more, or packs of it are just deleted: from now on bytes are copied.
    is_over: bool,
}

impl Sharing {
    /// Of the state after this commit.
    pub(in crate::vault) fn of(bucket: Bucket, keys: Keys, commit: CommitNo) -> Self {
        Self { bucket, commit, keys, packs: HashMap::new(), is_over: false }
    }

    /// A transaction was refused.
    pub(in crate::vault) fn end(&mut self) {
        self.is_over = true;
    }

    /// Those of these records that can be shared: the packs are there. It asks for each pack once: a reference to what
    /// somebody deleted would be found out only when it is read, and by then the file may have replaced a good one.
    pub(in crate::vault) async fn choose(
        &mut self,
        list: &[(u64, Extent)],
    ) -> Result<Vec<(u64, Extent)>> {
        if self.is_over {
            return Ok(Vec::new());
        }
        // What an older key opens is sealed anew: a rotation is to come to an end.
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

    /// V4, asked in the transaction: the state is promised still. The horizon counts as appended, so this holds until a run of
    /// K5 freezes what it dooms, and the append is refused if it has.
    pub(in crate::vault) fn may(&self, draft: &Draft<'_>) -> index::Result<bool> {
        let passed = draft.horizon()?.map_or(CommitNo(0), |horizon| horizon.commit);
        Ok(passed <= self.commit || draft.pins()?.iter().any(|(_, pin)| pin.commit == self.commit))
    }
}
