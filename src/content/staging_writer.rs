//! What every file of a vault needs to bring its bytes into staging.

use std::sync::Arc;

use super::budget::Budget;
use super::footer::{Origin, STREAM_MIN};
use super::packer::Packer;
use super::staged_extent::StagedExtent;
use super::stream::seal_alone;
use super::{Limits, Result};
use crate::crypto::Keys;
use crate::upload::Staging;

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
    /// been a stream if they had come in order, into one of their own. `before`: what of the file fills packs just before them.
    pub(super) fn seal(
        &self,
        who: &Origin,
        (offset, before): (u64, u64),
        parts: &[&[u8]],
        length: u64,
    ) -> Result<Arc<StagedExtent>> {
        if length <= STREAM_MIN {
            Ok(Arc::new(self.packer.add(who, (offset, before), parts)?))
        } else {
            seal_alone(&self.keys, &self.staging, who, (offset, before), parts)
        }
    }
}
