//! A pack that is to be sent, and the proof that the bucket has it (C5).

use super::pack_names::pack_object;
use super::referred_parts::ReferredParts;
use crate::store::Uploaded;
use crate::types::{MIB, PackId};

/// From this length on a pack has earned a request of its own; of smaller ones one is in flight at a time, so that
/// what comes meanwhile goes together (natural batching). A stream of over 1 MiB has a pack of its own.
const FULL: u64 = MIB;

/// Whether a pack of this length is one of those that go side by side.
pub(super) fn is_full_pack(length: u64) -> bool {
    length >= FULL
}

/// A pack that the uploader may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackJob {
    pub(super) pack: PackId,
    pub(super) length: u64,
}

impl PackJob {
    /// Whether it is one of those that go side by side.
    pub(super) fn is_full(&self) -> bool {
        is_full_pack(self.length)
    }
}

/// Proof that the bucket has a pack: from the store's verified word, or from comparing bytes, and from nothing else.
#[derive(Debug)]
pub(super) struct InBucket {
    job: PackJob,
    same: bool,
}

impl InBucket {
    /// The store took it: `None` if what it took is not this pack.
    pub(super) fn put(job: PackJob, uploaded: &Uploaded) -> Option<Self> {
        let is_it = uploaded.name() == pack_object(job.pack) && uploaded.length() == job.length;
        is_it.then_some(Self { job, same: true })
    }

    /// The store holds `theirs` under the pack's name: `None` unless the extents that are referred to are in it, each byte
    /// in its place. It may be longer than what is here, end in another footer, or differ between them (J7).
    pub(super) fn compared(
        job: PackJob,
        parts: Option<&ReferredParts>,
        ours: &[u8],
        theirs: &[u8],
    ) -> Option<Self> {
        let same = theirs == ours;
        let holds = |parts: &ReferredParts| parts.are_same_in(ours, theirs);
        (same || parts.is_some_and(holds)).then_some(Self { job, same })
    }

    pub(super) fn job(&self) -> PackJob {
        self.job
    }

    /// Whether it is byte for byte the file that is here; else its extents are, and more or other bytes follow (J7).
    pub(super) fn is_same(&self) -> bool {
        self.same
    }
}
