//! A read in progress: what of its range is on this machine, in which form, and how to make plaintext of it.

use std::ops::Range;

use bytes::Bytes;

use super::chunks;
use super::seal::ExtentOpener;
use super::{Error, Result};
use crate::cache::{BlockId, Cache};
use crate::crypto::{Keys, layout};
use crate::os::{Buffers, Filling};
use crate::types::{Extent, Reference};

/// The length of a full chunk with its tag.
#[allow(clippy::cast_possible_truncation, reason = "16,400")]
const SEALED_CHUNK: usize = (layout::CHUNK + layout::TAG) as usize;

/// What a read has found so far.
pub(super) struct PartialRead {
    pub length: usize,
    pub spans: Vec<PartialSpan>,
    /// The reader is sequential: chunks that it uses whole are not worth keeping in memory.
    pub scan: bool,
}

/// A part of the range.
pub(super) enum PartialSpan {
    Hole(u64),
    Plain(Bytes),
    Sealed(Extent, Vec<ChunkRun>),
}

/// Consecutive chunks of an extent that are in the same form.
pub(super) enum ChunkRun {
    /// The plaintext of one chunk.
    Open(u64, Bytes),
    /// Sealed bytes that are here.
    Sealed { chunks: Range<u64>, bytes: Bytes, asked_again: bool },
    /// Not on this machine.
    Missing(Range<u64>),
}

/// Why the bytes of a read cannot be assembled.
pub(super) enum Obstacle {
    /// This run of this span does not open, or is missing.
    Run(usize, usize),
    /// An error that other bytes would not cure.
    Error(Error),
}

impl PartialRead {
    /// The runs of all sealed spans.
    pub(super) fn runs(&mut self) -> impl Iterator<Item = (&Reference, &mut ChunkRun)> {
        self.spans.iter_mut().flat_map(|span| {
            let (extent, runs) = match span {
                PartialSpan::Sealed(extent, runs) => (Some(&extent.reference), &mut runs[..]),
                _ => (None, &mut [][..]),
            };
            extent.into_iter().flat_map(std::iter::repeat).zip(runs)
        })
    }

    /// Returns all bytes of the range, each chunk verified. Puts chunks that are worth it into the cache.
    pub(super) fn assemble(
        &self,
        keys: &Keys,
        cache: &Cache,
        answers: &Buffers,
    ) -> std::result::Result<Bytes, Obstacle> {
        // The most common small reads need no copy.
        match &self.spans[..] {
            [PartialSpan::Plain(bytes)] => return Ok(bytes.clone()),
            [PartialSpan::Sealed(extent, runs)] => {
                if let [ChunkRun::Open(index, block)] = &runs[..] {
                    return cut(extent, *index, block).ok_or(Obstacle::Run(0, 0));
                }
            }
            _ => {}
        }
        let missing = |run: &ChunkRun| matches!(run, ChunkRun::Missing(_));
        for (at, span) in self.spans.iter().enumerate() {
            if let PartialSpan::Sealed(_, runs) = span
                && let Some(run) = runs.iter().position(missing)
            {
                return Err(Obstacle::Run(at, run));
            }
        }
        let mut out = answers.take(self.length);
        for (at, span) in self.spans.iter().enumerate() {
            match span {
                // The sum of all spans is the length, which fits.
                #[allow(clippy::cast_possible_truncation)]
                PartialSpan::Hole(length) => out.push_zeros(*length as usize),
                PartialSpan::Plain(bytes) => out.push(bytes),
                PartialSpan::Sealed(extent, runs) => {
                    let mut span =
                        SpanOpener { keys, cache, extent, scan: self.scan, opener: None };
                    for (number, run) in runs.iter().enumerate() {
                        match span.open(run, &mut out) {
                            Ok(Some(())) => {}
                            Ok(None) => return Err(Obstacle::Run(at, number)),
                            Err(error) => return Err(Obstacle::Error(error)),
                        }
                    }
                }
            }
        }
        Ok(out.freeze())
    }
}

/// Opens the runs of one span.
struct SpanOpener<'a> {
    keys: &'a Keys,
    cache: &'a Cache,
    extent: &'a Extent,
    scan: bool,
    /// Made for the first sealed run.
    opener: Option<ExtentOpener>,
}

impl SpanOpener<'_> {
    /// Appends the bytes of a run; `None` if they are missing, or do not open.
    fn open(&mut self, run: &ChunkRun, out: &mut Filling) -> Result<Option<()>> {
        match run {
            ChunkRun::Open(index, block) => {
                let part = cut(self.extent, *index, block);
                Ok(part.map(|part| out.push(&part)))
            }
            ChunkRun::Missing(_) => Ok(None),
            ChunkRun::Sealed { chunks, bytes, .. } => {
                let opener = match self.opener.take() {
                    Some(opener) => opener,
                    None => ExtentOpener::new(self.keys, &self.extent.reference)?,
                };
                let opened = self.open_sealed(&opener, chunks, bytes, out);
                self.opener = Some(opener);
                Ok(opened)
            }
        }
    }

    fn open_sealed(
        &self,
        opener: &ExtentOpener,
        range: &Range<u64>,
        bytes: &Bytes,
        out: &mut Filling,
    ) -> Option<()> {
        let Reference { plain_length, extent: id, .. } = self.extent.reference;
        let expected = chunks::in_pack(&self.extent.reference, range);
        if bytes.len() as u64 != expected.end - expected.start {
            return None;
        }
        let sealed = bytes.chunks(SEALED_CHUNK);
        for (index, sealed) in range.clone().zip(sealed) {
            let part = chunks::part_of_chunk(self.extent, index);
            if self.scan && part.len() as u64 == layout::chunk_length(index, plain_length) {
                // Opens it straight into the reply.
                let open = |place: &mut _| opener.open_chunk_to(index, plain_length, sealed, place);
                out.push_with(part.len(), open).ok()?;
                continue;
            }
            let mut block = Vec::with_capacity(sealed.len());
            opener.open_chunks(index, plain_length, sealed, &mut block).ok()?;
            out.push(block.get(part)?);
            self.cache.insert_block(BlockId::Extent(id, index), block.into());
        }
        Some(())
    }
}

/// The part of a chunk's plaintext that belongs to the extent's part.
fn cut(extent: &Extent, index: u64, block: &Bytes) -> Option<Bytes> {
    let part = chunks::part_of_chunk(extent, index);
    (part.end <= block.len()).then(|| block.slice(part))
}
