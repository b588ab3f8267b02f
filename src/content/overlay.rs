//! The unpublished part of a range, as the reader lays it over the published extents.

use std::sync::Arc;

use bytes::Bytes;

use super::staged_extent::StagedExtent;
use crate::types::Extent;

/// The unpublished pieces of a range: sorted, disjoint, clipped to the range.
#[derive(Debug, Default)]
pub struct Overlay {
    /// The pieces.
    pub pieces: Vec<OverlayPiece>,
}

/// One piece of an overlay.
#[derive(Debug)]
pub struct OverlayPiece {
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// What is there.
    pub bytes: OverlayBytes,
}

/// Where the bytes of a piece are.
#[derive(Debug)]
pub enum OverlayBytes {
    /// In memory, as plaintext.
    Plain(Bytes),
    /// Sealed in staging (or, if published meanwhile, wherever published extents are).
    Sealed {
        /// The part of the extent.
        extent: Extent,
        /// Keeps its pack in staging while this overlay lives.
        #[allow(dead_code, reason = "only kept")]
        hold: Arc<StagedExtent>,
    },
}

impl OverlayPiece {
    /// Length in bytes.
    pub fn length(&self) -> u64 {
        match &self.bytes {
            OverlayBytes::Plain(bytes) => bytes.len() as u64,
            OverlayBytes::Sealed { extent, .. } => extent.length,
        }
    }
}
