//! A sealed extent that something unpublished refers to.

use crate::types::{Extent, Reference};
use crate::upload::PackHold;

/// A sealed extent that an unpublished write refers to; its pack stays in staging as long as this lives (C4).
#[derive(Debug)]
pub struct StagedExtent {
    reference: Reference,
    /// Only kept.
    _hold: PackHold,
}

impl StagedExtent {
    /// `hold` is of the pack that the reference names.
    pub(super) fn new(reference: Reference, hold: PackHold) -> Self {
        Self { reference, _hold: hold }
    }

    /// `length` bytes from byte `skip` of its plaintext.
    pub(super) fn part(&self, skip: u64, length: u64) -> Extent {
        Extent { skip, length, reference: self.reference.clone() }
    }
}
