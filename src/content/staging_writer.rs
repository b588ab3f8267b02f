//! What all files of a vault share to bring their bytes into staging.

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
    /// Seals up to `EXTENT_MAX` bytes from memory as one extent: into the shared pack, or, if they are so many that
    /// they would have been a stream had they come in order, into a pack of their own. `before`: bytes of the file just
    /// before them that are in full packs of their own.
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
