//! The background rewrite of what has come to consist of too many pieces.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::file::{Message, Publication};
use super::stream::OpenExtent;
use super::writes::STREAM_MIN;
use super::{Error, File, Overlay, Result, extents};
use crate::types::{EXTENT_MAX, MIB};

/// Bytes that are read, and sealed, at a time: the memory that a rewrite takes, twice.
const STEP: u64 = MIB;

impl File {
    /// Rewrites a range of a fragmented window (`extents::fragmented`), in this order: `seal` (from here on nothing
    /// else publishes or cuts the file); this, with a function that reads a part of the range under an overlay of it;
    /// then the transaction, and `published`. The bytes are sealed and take the place of the publication's pieces
    /// there; readers see no change, and mtime stays. `Ok(false)`: somebody wrote to the file meanwhile; drop the
    /// publication, and try later.
    ///
    /// # Errors
    /// `Full` at once if there is no room: nobody waits for it, and others wait for the publication. What `read` says.
    pub async fn rewrite<R>(
        &self,
        publication: &mut Publication,
        range: Range<u64>,
        read: impl Fn(Range<u64>, Overlay) -> R,
    ) -> Result<bool>
    where
        R: Future<Output = Result<Bytes>>,
    {
        let room = self.sealing.staging.try_reserve(range.end - range.start)?;
        let _room = room.ok_or(Error::Staging(crate::upload::Error::Full))?;
        let mut pieces = Vec::new();
        let mut start = range.start;
        while start < range.end {
            // As a stream's: an extent ends with its window.
            let end = range.end.min((start / EXTENT_MAX + 1) * EXTENT_MAX);
            let Some(message) = self.seal_anew(publication, start..end, &read).await? else {
                return Ok(false);
            };
            pieces.push((start, message.extent(0, end - start)));
            publication.holds.push(message);
            start = end;
        }
        let edits = extents::publish(&publication.pieces, &pieces);
        publication.pieces = extents::apply(&publication.pieces, &edits);
        publication.end = publication.end.max(range.end);
        Ok(true)
    }

    /// Into one extent: in the shared pack if it is small, else in a pack of its own.
    async fn seal_anew<R>(
        &self,
        publication: &Publication,
        range: Range<u64>,
        read: impl Fn(Range<u64>, Overlay) -> R,
    ) -> Result<Option<Arc<Message>>>
    where
        R: Future<Output = Result<Bytes>>,
    {
        let (to, who) = (&*self.sealing, self.origin());
        // What it is as long as the publication lives; `None` if somebody has written.
        let part = async |part: Range<u64>| {
            let overlay = self.overlay(part.clone())?;
            if !publication.covers(&overlay) {
                return Ok(None);
            }
            let data = read(part.clone(), overlay).await?;
            Ok::<_, Error>((data.len() as u64 == part.end - part.start).then_some(data))
        };
        if range.end - range.start <= STREAM_MIN {
            let Some(data) = part(range.clone()).await? else { return Ok(None) };
            return to.seal(&who, range.start, &[&data], data.len() as u64).map(Some);
        }
        let mut extent = OpenExtent::begin(&to.keys, &to.staging, range.start)?;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + STEP);
            let Some(data) = part(at..end).await? else { return Ok(None) };
            extent.push(&data)?;
            at = end;
        }
        extent.finish(&to.keys, &who).map(Some)
    }
}
