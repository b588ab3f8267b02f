//! Sealed extents in staging.

use crate::types::{Extent, Reference};
use crate::upload::PackHold;

/// A sealed extent that an unpublished write refers to; its pack stays in staging while this lives (C4).
#[derive(Debug)]
pub struct StagedExtent {
    reference: Reference,
    /// Only held, never used.
    _hold: PackHold,
}

impl StagedExtent {
    /// `hold` must be of the pack in the reference.
    pub(super) fn new(reference: Reference, hold: PackHold) -> Self {
        Self { reference, _hold: hold }
    }

    /// The part of `length` bytes from byte `skip` of its plaintext.
    pub(super) fn part(&self, skip: u64, length: u64) -> Extent {
        Extent { skip, length, reference: self.reference.clone() }
    }
}
