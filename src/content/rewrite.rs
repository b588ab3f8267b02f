//! The background rewrite of ranges that consist of too many records.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::footer::STREAM_MIN;
use super::staged_extent::StagedExtent;
use super::stream::OpenExtent;
use super::{Error, File, Result};
use crate::types::{EXTENT_MAX, Extent, MIB};

/// How many bytes are read and sealed at a time. A rewrite takes twice this in memory.
const STEP: u64 = MIB;

/// A range of a file's published bytes, sealed anew into staging; nothing refers to it yet.
#[must_use]
pub struct Copied {
    /// The extents that can replace the records of the range: sorted, disjoint.
    pub pieces: Vec<(u64, Extent)>,
    /// Keeps the packs in staging until the transaction that refers to them is applied (C4).
    _holds: Vec<Arc<StagedExtent>>,
}

impl File {
    /// Seals the bytes of a range anew, in as few extents as possible. `read` returns the *published* bytes of a part
    /// of it, even if other bytes are written meanwhile. It may take as long as the network does, so no publishing turn
    /// is held here. Whoever puts the pieces must hold the turn, and check that the records of the range are still
    /// those that were read: equal records mean equal bytes.
    ///
    /// # Errors
    /// `Full` at once if staging has no room, as nobody waits for this; and errors of `read`.
    pub async fn copy_anew<R>(
        &self,
        range: Range<u64>,
        read: impl Fn(Range<u64>) -> R,
    ) -> Result<Copied>
    where
        R: Future<Output = Result<Bytes>>,
    {
        let room = self.writer.staging.try_reserve(range.end - range.start)?;
        let _room = room.ok_or(Error::Staging(crate::upload::Error::Full))?;
        let (mut pieces, mut holds) = (Vec::new(), Vec::new());
        let mut start = range.start;
        while start < range.end {
            // As in a stream, an extent ends with its window.
            let end = range.end.min((start / EXTENT_MAX + 1) * EXTENT_MAX);
            let extent = self.seal_anew(start..end, &read).await?;
            pieces.push((start, extent.part(0, end - start)));
            holds.push(extent);
            start = end;
        }
        Ok(Copied { pieces, _holds: holds })
    }

    /// Seals a range as one extent: in the shared pack if it is small, otherwise in a pack of its own.
    async fn seal_anew<R>(
        &self,
        range: Range<u64>,
        read: impl Fn(Range<u64>) -> R,
    ) -> Result<Arc<StagedExtent>>
    where
        R: Future<Output = Result<Bytes>>,
    {
        let (to, who) = (&*self.writer, self.origin());
        if range.end - range.start <= STREAM_MIN {
            let data = read(range.clone()).await?;
            return to.seal(&who, (range.start, 0), &[&data], data.len() as u64);
        }
        let mut extent = OpenExtent::begin(&to.keys, &to.staging, range.start)?;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + STEP);
            extent.push(&read(at..end).await?)?;
            at = end;
        }
        extent.finish(&to.keys, &who, 0)
    }
}
