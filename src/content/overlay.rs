//! The unpublished part of a range, as the reader lays it over the published extents.

use std::sync::Arc;

use bytes::Bytes;

use super::file::Message;
use crate::types::Extent;

/// The unpublished pieces of a range: sorted, disjoint, clipped to it.
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
    /// Its bytes.
    pub source: Source,
}

/// Where the bytes of a piece are.
#[derive(Debug)]
pub enum Source {
    /// Here: plaintext.
    Bytes(Bytes),
    /// Sealed in staging (or, when it was published meanwhile, wherever published extents are).
    Sealed {
        /// The part.
        extent: Extent,
        /// Keeps its pack in staging while this overlay lives.
        #[allow(dead_code, reason = "only kept")]
        hold: Arc<Message>,
    },
}

impl OverlayPiece {
    /// Length in bytes.
    pub fn length(&self) -> u64 {
        match &self.source {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Sealed { extent, .. } => extent.length,
        }
    }
}
