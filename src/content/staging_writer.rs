//! What every file of a vault needs to bring its bytes into staging.

use std::sync::Arc;

use super::budget::Budget;
use super::footer::Origin;
use super::packer::Packer;
use super::staged_extent::StagedExtent;
use super::stream::seal_alone;
use super::{Limits, Result};
use crate::crypto::Keys;
use crate::types::MIB;
use crate::upload::Staging;

/// Up to here a file is only a buffer; what runs on beyond it streams into packs of its own.
pub(super) const STREAM_MIN: u64 = MIB;

/// Keys, budgets and packs, shared by all files.
pub(super) struct StagingWriter {
    pub keys: Keys,
    pub staging: Staging,
    pub packer: Packer,
    pub budget: Budget,
    pub limits: Limits,
}

impl StagingWriter {
    /// Seals up to `EXTENT_MAX` bytes that are in memory as one extent: into the shared pack, or, where they would have
    /// been a stream if they had come in order, into one of their own.
    pub(super) fn seal(
        &self,
        who: &Origin,
        offset: u64,
        parts: &[&[u8]],
        length: u64,
    ) -> Result<Arc<StagedExtent>> {
        if length <= STREAM_MIN {
            Ok(Arc::new(self.packer.add(who, offset, parts)?))
        } else {
            seal_alone(&self.keys, &self.staging, who, offset, parts)
        }
    }
}
