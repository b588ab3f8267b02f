//! The read path: overlay over published extents, each byte verified before anyone sees it.
//!
//! 1. `chunks::pieces` says which extents (or buffers, or holes) make up the range.
//! 2. What is on this machine is taken at once: blocks in memory, sealed bytes in staging, in flights
//!    of read-ahead, on disk. If that is all, the read never waits.
//! 3. What is missing is fetched, all of it at the same time.
//! 4. The chunks are opened into the answer. Bytes that do not open are forgotten and fetched from
//!    the bucket once more; if those do not open either, the read fails.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::Mutex;

use super::chunks::{self, Fetch, Piece};
use super::readahead::{Holders, PerFile, Sources};
use super::seal::{self, ExtentOpener};
use super::{Content, Error, File, Inner, Overlay, Result};
use crate::cache::{BlockId, Use};
use crate::crypto::layout;
use crate::types::{Extent, InodeNo, Reference};
use crate::upload::pack_object;

/// Causes that are remembered as logged; beyond, the memory begins anew.
const REPORTED_MAX: usize = 1024;

/// A chunk with its tag.
#[allow(clippy::cast_possible_truncation, reason = "16,400")]
const SEALED_CHUNK: usize = (layout::CHUNK + layout::TAG) as usize;

/// What all reads of a vault share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    holders: Holders,
    /// Failures that were logged: each is logged once.
    reported: Mutex<HashSet<(InodeNo, String)>>,
}

/// What a read has gathered so far.
struct Answer {
    length: usize,
    parts: Vec<Part>,
    /// A sequential reader passes: blocks that it uses up whole are not worth keeping.
    scan: bool,
}

/// A part of the answer.
enum Part {
    Hole(u64),
    Plain(Bytes),
    Sealed(Extent, Vec<Slot>),
}

/// Chunks of an extent, and how far they have come.
enum Slot {
    /// Opened: the chunk's plaintext.
    Block(u64, Bytes),
    /// Here, sealed.
    Sealed { chunks: Range<u64>, bytes: Bytes, asked_again: bool },
    /// Not on this machine.
    Missing(Range<u64>),
}

/// Why an answer cannot be put together.
enum Stop {
    /// The bytes of this slot of this part do not open, or are not here.
    Bad(usize, usize),
    /// Other bytes would not help.
    Error(Error),
}

impl Content {
    /// The bytes of `range`, cut at `size`: the overlay over the published extents, zeros where there is neither.
    /// Ready at the first poll when all of it is on this machine. `published` holds at least the extents of `range`;
    /// with those of `File::window` the read-ahead knows what to fetch. Within a tokio runtime.
    ///
    /// # Errors
    /// `Seal` when bytes are not what they must be, `Cache` when the bucket fails, `Deadline`.
    pub async fn read(
        &self,
        file: &File,
        range: Range<u64>,
        overlay: Overlay,
        published: Vec<(u64, Extent)>,
        size: u64,
    ) -> Result<Bytes> {
        let inner = &*self.inner;
        let read = inner.read_range(&file.reads, range, overlay, &published, size).await;
        read.inspect_err(|error| match error {
            Error::Removed(_) => {} // the caller looks again
            error => inner.readers.report(file.ino(), error),
        })
    }
}

impl Inner {
    /// `Content::read`, with what the file remembers of its reads.
    pub(super) async fn read_range(
        &self,
        reads: &PerFile,
        range: Range<u64>,
        overlay: Overlay,
        published: &[(u64, Extent)],
        size: u64,
    ) -> Result<Bytes> {
        let range = range.start..range.end.min(size);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let scan = reads.continues(&range);
        let mut answer = self.gather(&range, overlay, published, scan)?;
        let sources =
            Sources { cache: &self.cache, staging: &self.staging, holders: &self.readers.holders };
        // After the local look-up and before waiting: it is under way meanwhile.
        reads.advance(&range, published, size, sources);
        match self.assemble(&answer) {
            Ok(bytes) => return Ok(bytes),
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Bad(..)) => {}
        }
        let complete = self.complete(&mut answer);
        tokio::time::timeout(self.limits.deadline, complete).await.unwrap_or_else(|_| {
            self.cache.gave_up();
            Err(Error::Deadline)
        })
    }

    /// Everything of `range` that is on this machine. Never waits for the network.
    fn gather(
        &self,
        range: &Range<u64>,
        overlay: Overlay,
        published: &[(u64, Extent)],
        scan: bool,
    ) -> Result<Answer> {
        let mut parts = Vec::new();
        for piece in chunks::pieces(range, overlay.pieces, published) {
            parts.push(match piece {
                Piece::Hole(length) => Part::Hole(length),
                Piece::Plain(bytes) => Part::Plain(bytes),
                Piece::Sealed(extent) => {
                    seal::check(&self.keys, &extent)?;
                    let mut slots = Vec::with_capacity(1);
                    let how = if scan { Use::Once } else { Use::Again };
                    self.find(&extent.reference, chunks::chunks(&extent), how, &mut slots)?;
                    Part::Sealed(extent, slots)
                }
            });
        }
        let length = range.end - range.start;
        let length = usize::try_from(length).map_err(|_| Error::TooLarge)?;
        Ok(Answer { length, parts, scan })
    }

    /// Blocks from memory, and between them what is here sealed.
    fn find(
        &self,
        reference: &Reference,
        range: Range<u64>,
        how: Use,
        slots: &mut Vec<Slot>,
    ) -> Result<()> {
        let mut from = range.start;
        for index in range.clone() {
            let id = BlockId::Extent(reference.extent, index);
            if let Some(block) = self.cache.block(&id, how) {
                self.find_sealed(reference, from..index, slots)?;
                slots.push(Slot::Block(index, block));
                from = index + 1;
            }
        }
        self.find_sealed(reference, from..range.end, slots)
    }

    fn find_sealed(
        &self,
        reference: &Reference,
        range: Range<u64>,
        slots: &mut Vec<Slot>,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let sealed = chunks::in_pack(reference, &range);
        let staged = self.staging.read(reference.pack, sealed.clone())?;
        let object = pack_object(reference.pack);
        if let Some(bytes) = staged.or_else(|| self.cache.sealed_local(&object, sealed)) {
            slots.push(Slot::Sealed { chunks: range, bytes, asked_again: false });
        } else if self.staging.was_dropped(reference.pack) {
            return Err(Error::Removed(reference.pack));
        } else if range.end - range.start > 1 {
            // Perhaps a part of it is here: two fetches of read-ahead meet in the middle.
            let middle = range.start.midpoint(range.end);
            self.find_sealed(reference, range.start..middle, slots)?;
            self.find_sealed(reference, middle..range.end, slots)?;
        } else if let Some(Slot::Missing(last)) = slots.last_mut() {
            last.end = range.end;
        } else {
            slots.push(Slot::Missing(range));
        }
        Ok(())
    }

    /// Fetches what is missing, all at once, then opens it; what does not open is fetched again.
    async fn complete(&self, answer: &mut Answer) -> Result<Bytes> {
        let missing = answer.slots().filter_map(|(reference, slot)| match slot {
            Slot::Missing(range) => Some((reference, range.clone())),
            _ => None,
        });
        let fetches = chunks::fetches(missing);
        let got = try_join_all(fetches.iter().map(|fetch| self.fetch(fetch))).await?;
        for (reference, slot) in answer.slots() {
            let Slot::Missing(chunks) = slot else { continue };
            let range = chunks::in_pack(reference, chunks);
            let part = |(fetch, bytes)| Fetch::part(fetch, bytes, reference.pack, &range);
            if let Some(bytes) = fetches.iter().zip(&got).find_map(part) {
                *slot = Slot::Sealed { chunks: chunks.clone(), bytes, asked_again: false };
            }
        }
        loop {
            match self.assemble(answer) {
                Ok(bytes) => return Ok(bytes),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Bad(part, slot)) => self.ask_again(&mut answer.parts[part], slot).await?,
            }
        }
    }

    async fn fetch(&self, fetch: &Fetch) -> Result<Bytes> {
        let object = pack_object(fetch.pack);
        let range = fetch.range.clone();
        Ok(if fetch.shared {
            self.cache.sealed_and_neighbours(&object, range).await?
        } else {
            self.cache.sealed(&object, range).await?
        })
    }

    /// Bytes did not open: what is here of the pack is dropped, and the bucket asked; once.
    async fn ask_again(&self, part: &mut Part, slot: usize) -> Result<()> {
        let Part::Sealed(extent, slots) = part else { return Ok(()) };
        let reference = &extent.reference;
        let object = pack_object(reference.pack);
        let chunks = match &slots[slot] {
            Slot::Block(..) => return Ok(()),
            Slot::Sealed { asked_again: true, .. } => {
                self.cache.forget(&object);
                return Err(Error::Seal { extent: reference.extent });
            }
            Slot::Sealed { chunks, .. } | Slot::Missing(chunks) => chunks.clone(),
        };
        let bytes = self.cache.sealed_anew(&object, chunks::in_pack(reference, &chunks)).await?;
        slots[slot] = Slot::Sealed { chunks, bytes, asked_again: true };
        Ok(())
    }

    /// The answer, every chunk of it verified.
    fn assemble(&self, answer: &Answer) -> std::result::Result<Bytes, Stop> {
        // The commonest small reads need no copy.
        match &answer.parts[..] {
            [Part::Plain(bytes)] => return Ok(bytes.clone()),
            [Part::Sealed(extent, slots)] => {
                if let [Slot::Block(index, block)] = &slots[..] {
                    return cut(extent, *index, block).ok_or(Stop::Bad(0, 0));
                }
            }
            _ => {}
        }
        let missing = |slot: &Slot| matches!(slot, Slot::Missing(_));
        for (at, part) in answer.parts.iter().enumerate() {
            if let Part::Sealed(_, slots) = part
                && let Some(slot) = slots.iter().position(missing)
            {
                return Err(Stop::Bad(at, slot));
            }
        }
        let mut out = Vec::with_capacity(answer.length);
        for (at, part) in answer.parts.iter().enumerate() {
            match part {
                // The sum of all parts is the answer's length, which fits.
                #[allow(clippy::cast_possible_truncation)]
                Part::Hole(length) => out.resize(out.len() + *length as usize, 0),
                Part::Plain(bytes) => out.extend_from_slice(bytes),
                Part::Sealed(extent, slots) => self
                    .open(extent, slots, answer.scan, &mut out)
                    .map_err(|slot| slot.map_or_else(Stop::Error, |slot| Stop::Bad(at, slot)))?,
            }
        }
        Ok(out.into())
    }

    /// Appends an extent's part. `Err(Ok(slot))`: this slot does not open.
    fn open(
        &self,
        extent: &Extent,
        slots: &[Slot],
        scan: bool,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), std::result::Result<usize, Error>> {
        let reference = &extent.reference;
        let mut opener = None;
        for (at, slot) in slots.iter().enumerate() {
            match slot {
                Slot::Block(index, block) => {
                    out.extend_from_slice(&cut(extent, *index, block).ok_or(Ok(at))?);
                }
                Slot::Missing(_) => return Err(Ok(at)),
                Slot::Sealed { chunks, bytes, .. } => {
                    let opener = match &mut opener {
                        Some(opener) => opener,
                        none => none.insert(ExtentOpener::new(&self.keys, reference).map_err(Err)?),
                    };
                    self.open_slot(extent, chunks, bytes, opener, scan, out).ok_or(Ok(at))?;
                }
            }
        }
        Ok(())
    }

    fn open_slot(
        &self,
        extent: &Extent,
        range: &Range<u64>,
        bytes: &Bytes,
        opener: &ExtentOpener,
        scan: bool,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let Reference { plain_length, extent: id, .. } = extent.reference;
        let expected = chunks::in_pack(&extent.reference, range);
        if bytes.len() as u64 != expected.end - expected.start {
            return None;
        }
        let sealed = bytes.chunks(SEALED_CHUNK);
        for (index, sealed) in range.clone().zip(sealed) {
            let part = chunks::part_of_chunk(extent, index);
            if scan && part.len() as u64 == layout::chunk_length(index, plain_length) {
                opener.open_chunks(index, plain_length, sealed, out).ok()?;
                continue;
            }
            let mut block = Vec::with_capacity(sealed.len());
            opener.open_chunks(index, plain_length, sealed, &mut block).ok()?;
            out.extend_from_slice(block.get(part)?);
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

impl Answer {
    fn slots(&mut self) -> impl Iterator<Item = (&Reference, &mut Slot)> {
        self.parts.iter_mut().flat_map(|part| {
            let (extent, slots) = match part {
                Part::Sealed(extent, slots) => (Some(&extent.reference), &mut slots[..]),
                _ => (None, &mut [][..]),
            };
            extent.into_iter().flat_map(std::iter::repeat).zip(slots)
        })
    }
}

impl Shared {
    /// Logs why a file cannot be read: the inode and the object, never a name; each cause once.
    fn report(&self, ino: InodeNo, error: &Error) {
        let mut cause = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(error) = next {
            let text = error.to_string();
            if !cause.ends_with(&text) {
                cause = format!("{cause}: {text}");
            }
            next = error.source();
        }
        let mut reported = self.reported.lock();
        if reported.len() >= REPORTED_MAX {
            reported.clear();
        }
        if reported.insert((ino, cause.clone())) {
            drop(reported);
            tracing::error!(inode = ino.0, cause, "a read failed");
        }
    }
}
