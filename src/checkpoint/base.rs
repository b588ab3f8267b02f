//! The base of the index (rule J9): a verified manifest, and its pages, read block by block.
//!
//! Look-ups are synchronous and never wait for the network: what is neither in memory nor on the
//! local disk is a [`Miss`]. The caller fetches it and looks again, with [`Pins`]. They keep what
//! was fetched until the operation is done, however small the cache is.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::manifest::{Manifest, PageRef};
use super::page::{BlockIndex, Records, chunk_at};
use super::{Error, Result};
use crate::cache::{BlockId, Cache, PagePart, Reuse};
use crate::crypto::Keys;
use crate::crypto::layout;
use crate::records::Tag;
use crate::types::{KIB, PageId};

/// Pages up to this sealed length are fetched whole. That takes one GET instead of two, and the
/// second would bring a sixth of the page anyway.
pub(super) const WHOLE_PAGE: u64 = 128 * KIB;
/// The most blocks that a scan fetches in one GET: 256 KiB take hardly longer than 16.
const SCAN_BLOCKS: usize = 16;

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The record's value.
    Value(Bytes),
    /// The map has no such record.
    Absent,
}

/// Blocks that stay at hand until an operation is done.
#[derive(Debug, Default)]
pub struct Pins(HashMap<BlockId, Bytes>);

impl Pins {
    /// No blocks yet.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A part of the base that a look-up needs and that is not on this machine.
#[derive(Debug)]
pub struct Miss {
    base: Base,
    page: usize,
    from: Vec<u8>,
    /// The end of a scan; `None` for a look-up of one key.
    to: Option<Bound<Vec<u8>>>,
    /// Why the page is malformed, if it is not missing: a fetch returns this as an error.
    flaw: Option<String>,
}

/// A part of a page, and the chunks that it takes.
#[derive(Clone, Copy)]
pub(super) struct BlockSpan {
    which: PagePart,
    first: u64,
    end: u64,
}

/// A manifest, and what is needed to read its pages.
pub(super) struct OpenBase {
    pub(super) manifest: Manifest,
    /// The block indexes that the manifest holds.
    indexes: HashMap<PageId, Bytes>,
    pub(super) keys: Keys,
    pub(super) cache: Cache,
}

/// The map as of one checkpoint. A clone is another handle to the same base.
#[derive(Clone)]
pub struct Base(pub(super) Option<Arc<OpenBase>>);

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(opened) => write!(f, "Base({})", opened.manifest.commit),
            None => f.write_str("Base(empty)"),
        }
    }
}

impl Base {
    /// The base before the first checkpoint: no records.
    pub fn empty() -> Self {
        Self(None)
    }

    /// The map that a verified manifest describes.
    pub fn new(manifest: Manifest, keys: Keys, cache: Cache) -> Self {
        let index = |page: &PageRef| Some((page.id, Bytes::copy_from_slice(page.index.as_ref()?)));
        let indexes = manifest.pages.iter().filter_map(index).collect();
        Self(Some(Arc::new(OpenBase { manifest, indexes, keys, cache })))
    }

    /// The manifest, unless the base is empty.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.0.as_deref().map(|opened| &opened.manifest)
    }

    /// How many records a table has.
    pub fn records(&self, tag: Tag) -> u64 {
        self.manifest().map_or(0, |manifest| manifest.records(tag))
    }

    /// The record of `key`, from memory or local disk.
    pub fn get(&self, key: &[u8], pins: &Pins) -> Result<Found, Miss> {
        let Some(opened) = &self.0 else { return Ok(Found::Absent) };
        let Some(at) = opened.page_of(key).filter(|_| opened.may_hold(key)) else {
            return Ok(Found::Absent);
        };
        let missing = || self.miss(at, key, None);
        let page = &opened.manifest.pages[at];
        let bytes = opened.index(page, pins).ok_or_else(missing)?;
        let end = page.index_offset / layout::CHUNK;
        let found = BlockIndex::find(&bytes, end, key).map_err(|e| missing().flawed(&e))?;
        let which = PagePart::Block(found.0 as u64);
        let part = BlockSpan { which, first: found.1.start, end: found.1.end };
        let block = opened.block(page, part, pins).ok_or_else(missing)?;
        match Records::of(block).find(key).map_err(|e| missing().flawed(&e))? {
            Some(value) => Ok(Found::Value(value)),
            None => Ok(Found::Absent),
        }
    }

    /// Fetches what a look-up missed, and, for a scan, what it will need next.
    ///
    /// # Errors
    /// An error of the store; a seal that does not open; a malformed page.
    pub async fn fetch(&self, miss: &Miss, pins: &mut Pins) -> Result<()> {
        // The miss names its own base: this one may have been replaced since (rebase).
        let Some(opened) = &miss.base.0 else { return Ok(()) };
        let page = &opened.manifest.pages[miss.page];
        if let Some(why) = &miss.flaw {
            return Err(Error::malformed(page.name(), why));
        }
        if page.sealed_length <= WHOLE_PAGE || miss.wants_all() {
            return opened.fetch_whole(page, pins).await;
        }
        let bytes = match opened.index(page, pins) {
            Some(bytes) => bytes,
            None => opened.fetch_index(page, pins).await?,
        };
        let index = read_index(page, &bytes)?;
        let parts = miss.parts(&index, |part| opened.block(page, part, pins).is_some());
        opened.fetch_blocks(page, &parts, pins).await
    }

    pub(super) fn miss(&self, page: usize, from: &[u8], to: Option<&Bound<Vec<u8>>>) -> Miss {
        Miss { base: self.clone(), page, from: from.to_vec(), to: to.cloned(), flaw: None }
    }
}

impl BlockSpan {
    pub(super) fn of(index: &BlockIndex<'_>, block: usize) -> Self {
        let chunks = index.chunks(block);
        Self { which: PagePart::Block(block as u64), first: chunks.start, end: chunks.end }
    }
}

impl Miss {
    pub(super) fn flawed(mut self, error: &Error) -> Self {
        self.flaw = Some(error.to_string());
        self
    }

    /// The base in which it was missed.
    pub(super) fn base(&self) -> Option<&Arc<OpenBase>> {
        self.base.0.as_ref()
    }

    /// The page's index in the manifest.
    pub(super) fn page(&self) -> usize {
        self.page
    }

    /// The key that was looked for, or where the scan goes on.
    pub(super) fn key(&self) -> &[u8] {
        &self.from
    }

    /// Whether the page is missing, not malformed.
    pub(super) fn is_sound(&self) -> bool {
        self.flaw.is_none()
    }

    /// Whether a scan covers the whole page, so that one GET of it is best.
    fn wants_all(&self) -> bool {
        let (Some(to), Some(manifest)) = (&self.to, self.base.manifest()) else { return false };
        let starts = self.from <= manifest.pages[self.page].first_key;
        starts
            && manifest.pages.get(self.page + 1).map_or(matches!(to, Bound::Unbounded), |next| {
                within(&next.first_key, to.as_ref().map(Vec::as_slice))
            })
    }

    /// The blocks to fetch in one GET: a run of missing blocks from the first one on, at most
    /// [`SCAN_BLOCKS`].
    fn parts(&self, index: &BlockIndex<'_>, here: impl Fn(BlockSpan) -> bool) -> Vec<BlockSpan> {
        let first = index.block_of(&self.from);
        let last = match &self.to {
            None => first,
            Some(Bound::Unbounded) => index.len() - 1,
            Some(Bound::Included(to) | Bound::Excluded(to)) => index.block_of(to).max(first),
        };
        let parts = (first..=last).map(|block| BlockSpan::of(index, block));
        let missing = parts.skip_while(|&part| here(part));
        missing.take_while(|&part| !here(part)).take(SCAN_BLOCKS).collect()
    }
}

impl OpenBase {
    /// The page whose range holds `key`; `None` if the key is before all pages.
    pub(super) fn page_of(&self, key: &[u8]) -> Option<usize> {
        let pages = &self.manifest.pages;
        pages.partition_point(|page| page.first_key.as_slice() <= key).checked_sub(1)
    }

    /// Whether a table can hold `key`. This tells without reading a page that a new inode has no
    /// records.
    fn may_hold(&self, key: &[u8]) -> bool {
        let table = Tag::of(key).and_then(|tag| self.manifest.table(tag));
        table.is_some_and(|table| key <= table.bound.as_slice())
    }

    fn index_part(page: &PageRef) -> BlockSpan {
        let first = page.index_offset / layout::CHUNK;
        let end = layout::chunk_count(page.plain_length);
        BlockSpan { which: PagePart::BlockIndex, first, end }
    }

    pub(super) fn index(&self, page: &PageRef, pins: &Pins) -> Option<Bytes> {
        if let Some(index) = self.indexes.get(&page.id) {
            return Some(index.clone());
        }
        self.block(page, Self::index_part(page), pins)
    }

    /// A part of a page, from memory, the pins or the local disk.
    pub(super) fn block(&self, page: &PageRef, part: BlockSpan, pins: &Pins) -> Option<Bytes> {
        let id = BlockId::Page(page.id, part.which);
        if let Some(block) =
            self.cache.block(&id, Reuse::Expected).or_else(|| pins.0.get(&id).cloned())
        {
            return Some(block);
        }
        let name = page.name();
        let range = layout::sealed_range(&(part.first..part.end), page.plain_length);
        let sealed = self.cache.sealed_local(&name, range)?;
        match self.open(page, &sealed, &(part.first..part.end)) {
            Ok(plain) => {
                let block = Bytes::from(plain);
                self.cache.insert_block(id, block.clone());
                Some(block)
            }
            Err(error) => {
                tracing::warn!(object = name, %error, "the local copy is bad: fetching it again");
                self.cache.forget(&name);
                None
            }
        }
    }

    /// Opens chunks of a page; `sealed` holds exactly these chunks.
    fn open(&self, page: &PageRef, sealed: &[u8], chunks: &Range<u64>) -> Result<Vec<u8>> {
        let range = layout::sealed_range(chunks, page.plain_length);
        if sealed.len() as u64 != range.end - range.start {
            return Err(Error::malformed(page.name(), "it is shorter than it must be"));
        }
        let opener = self.keys.opener(page.place(), &page.salt, &page.commitment);
        let mut plain = Vec::new();
        opener
            .and_then(|o| o.open_chunks(chunks.start, page.plain_length, sealed, &mut plain))
            .map_err(|error| Error::seal(page.name())(error))?;
        Ok(plain)
    }

    /// Fetches a range of chunks and opens it. A bad copy on the local disk is fetched anew.
    async fn fetch_chunks(&self, page: &PageRef, chunks: Range<u64>) -> Result<Bytes> {
        let name = page.name();
        let range = layout::sealed_range(&chunks, page.plain_length);
        let sealed = self.cache.sealed(&name, range.clone()).await?;
        if let Ok(plain) = self.open(page, &sealed, &chunks) {
            return Ok(plain.into());
        }
        // Up to two more fetches: the first copy may have been bad on this disk, and the second may
        // have changed on its way.
        let sealed = self.cache.sealed_anew(&name, range.clone()).await?;
        if let Ok(plain) = self.open(page, &sealed, &chunks) {
            return Ok(plain.into());
        }
        let sealed = self.cache.sealed_anew(&name, range).await?;
        self.open(page, &sealed, &chunks).map(Bytes::from)
    }

    fn keep(&self, page: &PageRef, part: PagePart, bytes: &[u8], pins: &mut Pins) -> Bytes {
        // A copy: a slice would keep everything fetched with it in memory, uncounted.
        let id = BlockId::Page(page.id, part);
        let bytes = Bytes::copy_from_slice(bytes);
        self.cache.insert_block(id, bytes.clone());
        pins.0.insert(id, bytes.clone());
        bytes
    }

    pub(super) async fn fetch_index(&self, page: &PageRef, pins: &mut Pins) -> Result<Bytes> {
        let part = Self::index_part(page);
        let bytes = self.fetch_chunks(page, part.first..part.end).await?;
        Ok(self.keep(page, part.which, &bytes, pins))
    }

    pub(super) async fn fetch_blocks(
        &self,
        page: &PageRef,
        parts: &[BlockSpan],
        pins: &mut Pins,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(()) };
        let bytes = self.fetch_chunks(page, first.first..last.end).await?;
        for part in parts {
            let (from, to) = (part.first - first.first, part.end - first.first);
            self.keep(page, part.which, &bytes[chunk_at(from)..chunk_at(to)], pins);
        }
        Ok(())
    }

    pub(super) async fn fetch_whole(&self, page: &PageRef, pins: &mut Pins) -> Result<()> {
        let last = Self::index_part(page);
        // The header is not fetched: the manifest has salt and commitment.
        let bytes = self.fetch_chunks(page, 0..last.end).await?;
        let index = self.keep(page, last.which, &bytes[chunk_at(last.first)..], pins);
        let index = read_index(page, &index)?;
        for block in 0..index.len() {
            let part = BlockSpan::of(&index, block);
            let bytes = &bytes[chunk_at(part.first)..chunk_at(part.end)];
            self.keep(page, part.which, bytes, pins);
        }
        Ok(())
    }
}

/// Whether `key` is not beyond the upper bound `to`.
pub(super) fn within(key: &[u8], to: Bound<&[u8]>) -> bool {
    match to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
    }
}

pub(super) fn read_index<'a>(page: &PageRef, bytes: &'a [u8]) -> Result<BlockIndex<'a>> {
    BlockIndex::read(bytes, page.index_offset / layout::CHUNK)
}
