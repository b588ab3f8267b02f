//! A pack that is to be sent, and the proof that the bucket has it (C5).

use super::pack_names::pack_object;
use super::referred_parts::ReferredParts;
use crate::store::Uploaded;
use crate::types::{MIB, PackId};

/// Packs of at least this length are sent side by side. Of smaller ones one is in flight at a time, so that what is
/// written meanwhile goes together (natural batching). A stream of over 1 MiB has a pack of its own.
const FULL: u64 = MIB;

/// Whether a pack of this length may be sent beside others.
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
    /// Whether it may be sent beside others.
    pub(super) fn is_full(&self) -> bool {
        is_full_pack(self.length)
    }
}

/// Proof that the bucket has a pack: made only from the store's verified reply, or by comparing bytes.
#[derive(Debug)]
pub(super) struct InBucket {
    job: PackJob,
    same: bool,
}

impl InBucket {
    /// From a verified put. `None` if what the store took is not this pack.
    pub(super) fn put(job: PackJob, uploaded: &Uploaded) -> Option<Self> {
        let is_it = uploaded.name() == pack_object(job.pack) && uploaded.length() == job.length;
        is_it.then_some(Self { job, same: true })
    }

    /// From `theirs`, what the store holds under the pack's name. `None` unless it has all referred extents, each byte in
    /// its place. It may be longer, have another footer, or differ between the extents (J7).
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

    /// Whether the object equals the local file. If not, it has its extents, and more or other bytes around them (J7).
    pub(super) fn is_same(&self) -> bool {
        self.same
    }
}
