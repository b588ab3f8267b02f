//! The plaintext of a page: a run of the sorted map, in blocks that can be read one by one.
//!
//! ```text
//! page  := block* index                   one Cobblestone message, about 1 MiB
//! block := CBOR [_ key, value, key, value, ...] zeros     whole chunks of 16 KiB, mostly one
//! index := CBOR [first key, first chunk, ...]             one pair for each block; to the end
//! ```
//!
//! Every block begins at a chunk, so it can be read with one ranged GET of whole sealed chunks. So can the index, whose
//! place the manifest gives.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use minicbor::{Decoder, Encoder};

use super::{Error, Result};
use crate::crypto::layout;
use crate::types::MIB;

/// Plaintext bytes of a chunk.
const CHUNK: usize = 16 << 10;
const _: () = assert!(CHUNK as u64 == layout::CHUNK);

/// Where chunk `number` begins in a plaintext. Saturates: no page is that long.
pub(super) fn chunk_at(number: u64) -> usize {
    usize::try_from(number).map_or(usize::MAX, |number| number.saturating_mul(CHUNK))
}

/// The most plaintext bytes of a page: a page of the usual size and one record of a whole transaction.
pub(super) const PAGE_MAX: u64 = 8 * MIB;

/// How large the parts of a checkpoint become. Only tests deviate from the default.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of records in a block, at most a chunk. A larger record has a block of its own.
    pub block: usize,
    /// The target of bytes of records in a page. A page has between half and one and a half of it; the last may be
    /// smaller.
    pub page: usize,
    /// Bytes of changed records that one pass over the commits holds in memory.
    pub pass: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        // A block is a chunk, less the padding after its last record. 32 MiB hold 100,000 changed inodes, so a usual
        // checkpoint reads the commits once.
        Self { block: CHUNK, page: 1 << 20, pass: 32 << 20 }
    }
}

const ARRAY: u8 = 0x9f;
const BREAK: u8 = 0xff;

#[derive(Debug)]
struct Block {
    first_key: Vec<u8>,
    content: Vec<u8>,
    records: u64,
}

/// The plaintext of a page, ready to be sealed.
#[derive(Debug)]
pub(super) struct PlainPage {
    pub(super) first_key: Vec<u8>,
    pub(super) plain: Vec<u8>,
    pub(super) index_offset: u64,
    pub(super) records: u64,
}

/// Collects records, in order, into pages.
#[derive(Debug)]
pub(super) struct PageBuilder {
    sizes: Sizes,
    blocks: VecDeque<Block>,
    bytes: usize,
}

impl PageBuilder {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self { sizes, blocks: VecDeque::new(), bytes: 0 }
    }

    /// Takes the next record. Its key must be above those before.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        let length = string_length(key) + string_length(value);
        // One byte opens the array, one closes it.
        let fits = |block: &Block| block.content.len() + length < self.sizes.block.min(CHUNK);
        if !self.blocks.back().is_some_and(fits) {
            let mut content = Vec::with_capacity(self.sizes.block.min(CHUNK).max(length + 2));
            content.push(ARRAY);
            self.blocks.push_back(Block { first_key: key.to_vec(), content, records: 0 });
        }
        if let Some(block) = self.blocks.back_mut() {
            put_string(&mut block.content, key);
            put_string(&mut block.content, value);
            block.records += 1;
        }
        self.bytes += length;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether the pending records would make a page of less than half the usual size.
    pub(super) fn is_small(&self) -> bool {
        !self.is_empty() && self.bytes < self.sizes.page / 2
    }

    /// A page of the usual size, once enough records are pending to leave another one.
    pub(super) fn full(&mut self) -> Option<PlainPage> {
        (self.bytes >= 2 * self.sizes.page).then(|| self.take(self.sizes.page))
    }

    /// All pending records: no page, one page, or two halves.
    pub(super) fn flush(&mut self) -> Vec<PlainPage> {
        let mut pages = Vec::new();
        while !self.is_empty() {
            let most = self.sizes.page + self.sizes.page / 2;
            let share = if self.bytes > most { self.bytes / 2 } else { usize::MAX };
            pages.push(self.take(share));
        }
        pages
    }

    /// Takes blocks of about `target` bytes, at least one block.
    fn take(&mut self, target: usize) -> PlainPage {
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        while bytes < target {
            let Some(block) = self.blocks.pop_front() else { break };
            bytes += block.content.len() - 1;
            blocks.push(block);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.blocks.is_empty() {
            self.bytes = 0;
        }
        compose(blocks)
    }
}

fn compose(blocks: Vec<Block>) -> PlainPage {
    let mut index = Encoder::new(Vec::with_capacity(64 * blocks.len()));
    let mut plain = Vec::with_capacity(blocks.len() * CHUNK + CHUNK);
    let mut records = 0;
    let first_key = blocks.first().map(|block| block.first_key.clone()).unwrap_or_default();
    // Writing into a Vec has no errors.
    let _ = index.array(2 * blocks.len() as u64);
    for block in blocks {
        let _ = index.bytes(&block.first_key).and_then(|e| e.u64((plain.len() / CHUNK) as u64));
        plain.extend_from_slice(&block.content);
        plain.push(BREAK);
        plain.resize(plain.len().next_multiple_of(CHUNK), 0);
        records += block.records;
    }
    let index_offset = plain.len() as u64;
    plain.extend_from_slice(index.writer());
    PlainPage { first_key, plain, index_offset, records }
}

/// Length of a CBOR byte string, including its head.
fn string_length(bytes: &[u8]) -> usize {
    let head = match bytes.len() {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
    };
    head + bytes.len()
}

fn put_string(into: &mut Vec<u8>, bytes: &[u8]) {
    let [a, b, c, d] = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    match bytes.len() {
        0..24 => into.push(0x40 | d),
        24..0x100 => into.extend([0x58, d]),
        0x100..0x1_0000 => into.extend([0x59, c, d]),
        _ => into.extend([0x5a, a, b, c, d]),
    }
    into.extend_from_slice(bytes);
}

fn malformed(why: &str) -> Error {
    Error::malformed("a page of a checkpoint", why)
}

/// The range of the byte string whose head is at `at`.
fn string_at(block: &[u8], at: usize) -> Result<Range<usize>> {
    let bad = || malformed("a block does not read");
    let head = *block.get(at).ok_or_else(bad)?;
    let width = match head {
        0x40..=0x57 => 0,
        0x58 => 1,
        0x59 => 2,
        0x5a => 4,
        _ => return Err(bad()),
    };
    let digits = block.get(at + 1..at + 1 + width).ok_or_else(bad)?;
    let length = match width {
        0 => usize::from(head & 0x1f),
        _ => digits.iter().fold(0, |n, &digit| n << 8 | usize::from(digit)),
    };
    let start = at + 1 + width;
    let end = start.checked_add(length).filter(|&end| end <= block.len()).ok_or_else(bad)?;
    Ok(start..end)
}

/// The records of one block, in order.
#[derive(Clone, Debug)]
pub(super) struct Records {
    block: Bytes,
    at: usize,
}

impl Records {
    pub(super) fn of(block: Bytes) -> Self {
        Self { block, at: 0 }
    }

    /// The next record's key and value, as ranges of the block; `None` at its end.
    fn read(&mut self) -> Result<Option<(Range<usize>, Range<usize>)>> {
        if self.at == 0 {
            if self.block.first() != Some(&ARRAY) {
                return Err(malformed("a block does not begin"));
            }
            self.at = 1;
        }
        if self.block.get(self.at) == Some(&BREAK) {
            return Ok(None);
        }
        let key = string_at(&self.block, self.at)?;
        let value = string_at(&self.block, key.end)?;
        self.at = value.end;
        Ok(Some((key, value)))
    }

    /// The next record; both slices share the block's memory.
    pub(super) fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        Ok(self.read()?.map(|(key, value)| (self.block.slice(key), self.block.slice(value))))
    }

    /// The value of `key`, if the block has it.
    pub(super) fn find(mut self, key: &[u8]) -> Result<Option<Bytes>> {
        while let Some((at, value)) = self.read()? {
            match self.block[at].cmp(key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some(self.block.slice(value))),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// Skips the records below `key` (with `after`, also the one at it).
    pub(super) fn seek(&mut self, key: &[u8], after: bool) -> Result<()> {
        loop {
            let before = self.at;
            let Some((at, _)) = self.read()? else { return Ok(()) };
            let found = &self.block[at];
            if found > key || (found == key && !after) {
                self.at = before;
                return Ok(());
            }
        }
    }
}

/// The entries of a block index in order: first key and first chunk of each block.
struct IndexEntries<'a> {
    decoder: Decoder<'a>,
    left: u64,
    before: Option<(&'a [u8], u64)>,
    end: u64,
}

impl<'a> IndexEntries<'a> {
    fn of(bytes: &'a [u8], end: u64) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let left = decoder.array().map_err(|error| malformed(&error.to_string()))?.unwrap_or(0) / 2;
        Ok(Self { decoder, left, before: None, end })
    }

    fn next(&mut self) -> Result<Option<(&'a [u8], u64)>> {
        let bad = |error: minicbor::decode::Error| malformed(&error.to_string());
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let key = self.decoder.bytes().map_err(bad)?;
        let chunk = self.decoder.u64().map_err(bad)?;
        let follows = match self.before {
            Some((before, from)) => before < key && from < chunk,
            None => chunk == 0,
        };
        if !follows || chunk >= self.end {
            return Err(malformed("its block index is not in order"));
        }
        self.before = Some((key, chunk));
        Ok(self.before)
    }
}

/// A parsed block index of a page.
#[derive(Debug)]
pub(super) struct BlockIndex<'a> {
    blocks: Vec<(&'a [u8], u64)>,
    end: u64,
}

impl<'a> BlockIndex<'a> {
    /// Reads the index of a page whose blocks take the chunks before `end`.
    pub(super) fn read(bytes: &'a [u8], end: u64) -> Result<Self> {
        let mut entries = IndexEntries::of(bytes, end)?;
        let mut blocks = Vec::new();
        while let Some(entry) = entries.next()? {
            blocks.push(entry);
        }
        if blocks.is_empty() {
            return Err(malformed("its block index is empty"));
        }
        Ok(Self { blocks, end })
    }

    /// The block that holds `key` if any does (the first block, for a key before all), and its chunks. The same as
    /// [`BlockIndex::read`] and [`BlockIndex::block_of`], but for a single look-up: it keeps nothing and reads only as
    /// far as it has to.
    pub(super) fn find(bytes: &[u8], end: u64, key: &[u8]) -> Result<(usize, Range<u64>)> {
        let mut entries = IndexEntries::of(bytes, end)?;
        let first = entries.next()?.ok_or_else(|| malformed("its block index is empty"))?;
        let (mut block, mut from) = (0, first.1);
        while let Some((first_key, chunk)) = entries.next()? {
            if first_key > key {
                return Ok((block, from..chunk));
            }
            (block, from) = (block + 1, chunk);
        }
        Ok((block, from..end))
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The block that holds `key` if any does (the first block, for a key before all).
    pub(super) fn block_of(&self, key: &[u8]) -> usize {
        self.blocks.partition_point(|&(first, _)| first <= key).saturating_sub(1)
    }

    /// The first key of a block.
    pub(super) fn first_key(&self, block: usize) -> &'a [u8] {
        self.blocks[block].0
    }

    /// The chunks of a block.
    pub(super) fn chunks(&self, block: usize) -> Range<u64> {
        let end = self.blocks.get(block + 1).map_or(self.end, |&(_, chunk)| chunk);
        self.blocks[block].1..end
    }
}

/// Every record of a whole page in order; records out of order are an error.
#[derive(Debug)]
pub struct PageRecords {
    blocks: VecDeque<Bytes>,
    records: Records,
    last: Bytes,
}

impl PageRecords {
    /// `plain` is the whole plaintext; `index_offset` comes from the manifest.
    pub(super) fn of(plain: &Bytes, index_offset: u64) -> Result<Self> {
        let at = usize::try_from(index_offset).ok().filter(|&at| at <= plain.len());
        let at = at.ok_or_else(|| malformed("it ends before its block index"))?;
        let index = BlockIndex::read(&plain[at..], index_offset / layout::CHUNK)?;
        let bytes = |block| {
            let chunks = index.chunks(block);
            plain.slice(chunk_at(chunks.start)..chunk_at(chunks.end))
        };
        let mut blocks: VecDeque<_> = (0..index.len()).map(bytes).collect();
        let records = Records::of(blocks.pop_front().unwrap_or_default());
        Ok(Self { blocks, records, last: Bytes::new() })
    }

    /// The next record.
    #[allow(clippy::should_implement_trait)] // it can fail
    pub fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        loop {
            if let Some((key, value)) = self.records.next()? {
                if key <= self.last {
                    return Err(malformed("its records are not in order"));
                }
                self.last = key.clone();
                return Ok(Some((key, value)));
            }
            match self.blocks.pop_front() {
                Some(block) => self.records = Records::of(block),
                None => return Ok(None),
            }
        }
    }
}
