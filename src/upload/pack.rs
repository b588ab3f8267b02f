//! One staged pack: what refers to it, and how much of it is durable.

use std::sync::Arc;

use super::referred_parts::ReferredParts;
use crate::os::DiskFile;
use crate::types::{PackId, Seq};

/// How far a pack is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Takes extents.
    Open,
    /// Waits for the uploader.
    Closed,
    /// On the wire.
    Sending,
    /// The bucket has it; it stays here until what refers to it is confirmed (C4).
    InBucket,
    /// Being given to the cache.
    Leaving,
    /// Nothing refers to it any more, and it was not sent. It goes once the journal says so durably (J3).
    Dropped,
}

/// How far a pack in staging is on its way, for status reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagedState {
    /// It is not sent yet.
    Waits,
    /// It is on the wire, or the bucket has it.
    IsSent,
}

#[derive(Debug)]
pub(super) struct StagedPack {
    pub(super) stage: Stage,
    /// Made by this process, so nothing confirmed refers to it before it is in the bucket.
    pub(super) made_here: bool,
    pub(super) length: u64,
    /// The first and last transaction known to this process that refers to it.
    pub(super) refs: Option<(Seq, Seq)>,
    /// Unpublished writes that refer to it.
    pub(super) holds: u32,
    /// How far, in bytes, transactions may refer into it, and how far it is durable.
    pub(super) referred: u64,
    pub(super) synced: u64,
    /// Whether its name in the directory is durable, and whether that is `<id>.pack`.
    pub(super) named: bool,
    pub(super) renamed: bool,
    /// If it was recovered after a crash: the parts that are needed. Elsewhere the bucket's bytes may differ
    /// (J7).
    pub(super) parts: Option<Arc<ReferredParts>>,
    /// The bucket's object equals the file byte for byte.
    pub(super) same: bool,
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

/// A pack that a barrier must fsync (J2).
#[derive(Debug)]
pub(super) struct PackToSync {
    pub(super) pack: PackId,
    pub(super) length: u64,
    pub(super) renamed: bool,
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

impl StagedPack {
    /// An open pack to which nothing refers yet.
    pub(super) fn new(length: u64, file: Option<Arc<dyn DiskFile>>, renamed: bool) -> Self {
        Self {
            stage: Stage::Open,
            made_here: false,
            length,
            refs: None,
            holds: 0,
            referred: 0,
            synced: 0,
            named: false,
            renamed,
            parts: None,
            same: false,
            file,
        }
    }

    /// Whether nothing here needs this pack, which is in the bucket, once everything up to `confirmed` is
    /// settled (C4).
    pub(super) fn may_leave(&self, confirmed: Seq) -> bool {
        self.holds == 0 && self.refs.is_none_or(|(_, last)| last <= confirmed)
    }

    /// Whether the bucket does not have it yet, and is to get it.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Closed | Stage::Sending)
    }
}
