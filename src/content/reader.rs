//! (helper `reader`)  The read path.

use std::ops::Range;

use bytes::Bytes;

use super::{Content, File, Limits, Overlay, Result};
use crate::types::Extent;

/// What all reads of a vault share.
pub(super) struct Shared;

/// What the reads of one file remember (read-ahead).
#[derive(Debug, Default)]
pub(super) struct PerFile;

impl Shared {
    pub(super) fn new(_limits: &Limits) -> Self {
        Self
    }
}

impl Content {
    /// The bytes of `range`, cut at `size`: the overlay over the published extents, zeros where there is neither.
    /// Ready at the first poll when all of it is on this machine.
    pub async fn read(
        &self,
        _file: &File,
        _range: Range<u64>,
        _overlay: Overlay,
        _published: Vec<(u64, Extent)>,
        _size: u64,
    ) -> Result<Bytes> {
        todo!()
    }
}
