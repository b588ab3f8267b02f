//! A file that is written sequentially: sealed chunk by chunk as the bytes come, each extent into a pack of its own.
//! The pack is closed and uploaded as soon as its extent is full.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::footer::{Footer, Origin, seal_footer};
use super::seal::ExtentSealer;
use super::staged_extent::StagedExtent;
use super::{Error, Result, in_memory};
use crate::crypto::{Keys, layout, random};
use crate::types::{EXTENT_MAX, KIB, PackId};
use crate::upload::{OpenPack, PackHold, Staging};

/// The size of the batches in which sealed bytes are written to staging.
const BATCH: usize = 64 * KIB as usize;

/// An extent that is being filled.
pub(super) struct OpenExtent {
    start: u64,
    /// The most plaintext that it will hold.
    most: u64,
    sealer: ExtentSealer,
    /// Sealed bytes that are not in the pack yet.
    out: Vec<u8>,
    // Dropped in this order: without the hold, a pack that is dropped open is removed.
    hold: PackHold,
    pack: OpenPack,
}

impl OpenExtent {
    /// Begins an extent at byte `start` of a file. It is full at the next multiple of 16 MiB in the file, so that
    /// rewriting such a window replaces whole extents.
    pub(super) fn begin(keys: &Keys, staging: &Staging, start: u64) -> Result<Self> {
        let pack = staging.create(PackId(random()))?;
        let hold = staging.hold(pack.id());
        let mut out = Vec::with_capacity(2 * BATCH);
        let sealer = ExtentSealer::begin(keys, &mut out);
        Ok(Self { start, most: EXTENT_MAX - start % EXTENT_MAX, sealer, out, hold, pack })
    }

    /// Plaintext taken so far.
    pub(super) fn length(&self) -> u64 {
        self.sealer.plain_length()
    }

    /// How much more it takes.
    pub(super) fn room(&self) -> u64 {
        self.most - self.length()
    }

    /// The bytes of the file that it holds.
    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.start + self.length()
    }

    /// About how much memory it takes.
    pub(super) fn memory(&self) -> u64 {
        self.out.capacity() as u64 + layout::CHUNK
    }

    /// Takes the next bytes, at most `room`.
    pub(super) fn push(&mut self, plain: &[u8]) -> Result<()> {
        for part in plain.chunks(BATCH) {
            self.sealer.update(part, &mut self.out);
            if self.out.len() >= BATCH {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            self.pack.append(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Ends the extent. When this returns, the extent and its pack's footer are in staging, and the pack is in the
    /// upload queue. `before`: bytes of the file just before it that are in full packs of their own.
    pub(super) fn finish(
        mut self,
        keys: &Keys,
        origin: &Origin,
        before: u64,
    ) -> Result<Arc<StagedExtent>> {
        let extent = self.sealer.finish(&mut self.out);
        self.pack.append(&self.out)?;
        let reference = extent.at(self.pack.id(), 0);
        let footer = Footer { entries: vec![origin.entry(reference.clone(), self.start)] };
        let footer = seal_footer(keys, self.pack.id(), &footer, self.pack.length(), before);
        self.pack.close(&footer)?;
        Ok(Arc::new(StagedExtent::new(reference, self.hold)))
    }

    /// Bytes of the still open extent; `range` counts from its first byte. Full chunks are read back from the pack.
    pub(super) fn read(
        &mut self,
        keys: &Keys,
        staging: &Staging,
        range: Range<u64>,
    ) -> Result<Bytes> {
        let pending_from = self.length() - self.sealer.pending().len() as u64;
        let mut plain = Vec::new();
        let whole = range.start..range.end.min(pending_from);
        let chunks = layout::chunks_of(&whole);
        if !chunks.is_empty() {
            let opener = self.sealer.opener(keys)?;
            let sealed = layout::sealed_range(&chunks, pending_from);
            self.flush()?;
            let pack = self.pack.id();
            let sealed = staging.read(pack, sealed)?.ok_or(Error::Staged(pack))?;
            // The message is not complete: none of these chunks is its last.
            opener.open_chunks(chunks.start, pending_from, &sealed, &mut plain)?;
            let skip = in_memory(range.start - chunks.start * layout::CHUNK);
            plain.truncate(skip + in_memory(whole.end - whole.start));
            plain.drain(..skip);
        }
        if range.end > pending_from {
            let from = in_memory(range.start.max(pending_from) - pending_from);
            plain.extend_from_slice(
                &self.sealer.pending()[from..in_memory(range.end - pending_from)],
            );
        }
        Ok(plain.into())
    }
}

/// Seals up to `EXTENT_MAX` bytes that are in memory into a pack of their own.
pub(super) fn seal_alone(
    keys: &Keys,
    staging: &Staging,
    origin: &Origin,
    (start, before): (u64, u64),
    parts: &[&[u8]],
) -> Result<Arc<StagedExtent>> {
    let mut extent = OpenExtent::begin(keys, staging, start)?;
    extent.most = EXTENT_MAX;
    parts.iter().try_for_each(|part| extent.push(part))?;
    extent.finish(keys, origin, before)
}
