//! A scan of a range of the base, record by record.

use std::ops::Bound;

use bytes::Bytes;

use super::Error;
use super::base::{Base, BlockSpan, Miss, Pins, read_index, within};
use super::page::Records;
use crate::records::Tag;

/// Goes over the records of a range. After a [`Miss`] is fetched, `next` continues where it was.
#[derive(Debug)]
pub struct Scan {
    base: Base,
    from: Bound<Bytes>,
    to: Bound<Vec<u8>>,
    at: At,
}

#[derive(Debug)]
enum At {
    /// Before the first block, at the place that `from` gives.
    Start,
    /// At the beginning of a block.
    Block {
        page: usize,
        block: usize,
    },
    /// In a block of `blocks`.
    Records {
        page: usize,
        block: usize,
        blocks: usize,
        records: Records,
    },
    End,
}

impl Base {
    /// The records between two keys, in order.
    pub fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Scan {
        Scan::new(self, from, to)
    }

    /// The first record between two keys.
    #[cfg(test)]
    pub fn next(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        pins: &Pins,
    ) -> Result<Option<(Bytes, Bytes)>, Miss> {
        self.range(from, to).next(pins)
    }
}

impl Scan {
    fn new(base: &Base, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Self {
        let from = from.map(Bytes::copy_from_slice);
        let to = to.map(<[u8]>::to_vec);
        let mut scan = Self { base: base.clone(), from, to, at: At::Start };
        if scan.is_beyond_its_table() {
            scan.at = At::End;
        }
        scan
    }

    /// Whether the range is in one table, after that table's last record.
    fn is_beyond_its_table(&self) -> bool {
        let Some(manifest) = self.base.manifest() else { return true };
        let (Bound::Included(from) | Bound::Excluded(from)) = &self.from else { return false };
        let Some(tag) = Tag::of(from) else { return false };
        let in_one_table = match &self.to {
            Bound::Unbounded => false,
            Bound::Included(to) => Tag::of(to) == Some(tag),
            Bound::Excluded(to) => Tag::of(to) == Some(tag) || **to == tag.end(),
        };
        let bound = manifest.table(tag).map(|table| table.bound.as_slice());
        in_one_table && bound.is_none_or(|bound| &from[..] > bound)
    }

    /// The next record.
    pub fn next(&mut self, pins: &Pins) -> Result<Option<(Bytes, Bytes)>, Miss> {
        loop {
            let At::Records { page, block, blocks, records } = &mut self.at else {
                if !self.enter(pins)? {
                    return Ok(None);
                }
                continue;
            };
            match records.next() {
                Ok(Some((key, value))) => {
                    if !within(&key, self.to.as_ref().map(Vec::as_slice)) {
                        self.at = At::End;
                        return Ok(None);
                    }
                    self.from = Bound::Excluded(key.clone());
                    return Ok(Some((key, value)));
                }
                Ok(None) if *block + 1 < *blocks => {
                    self.at = At::Block { page: *page, block: *block + 1 };
                }
                Ok(None) => self.at = At::Block { page: *page + 1, block: 0 },
                Err(error) => {
                    let page = *page;
                    return Err(self.miss(page).flawed(&error));
                }
            }
        }
    }

    /// Enters the next block; `false` at the end.
    fn enter(&mut self, pins: &Pins) -> Result<bool, Miss> {
        let base = self.base.clone();
        let (Some(opened), false) = (&base.0, matches!(self.at, At::End)) else { return Ok(false) };
        let at = match self.at {
            At::Block { page, .. } => page,
            _ => opened.page_of(self.start()).unwrap_or(0),
        };
        let to = self.to.as_ref().map(Vec::as_slice);
        let Some(page) = opened.manifest.pages.get(at).filter(|p| within(&p.first_key, to)) else {
            self.at = At::End;
            return Ok(false);
        };
        let bytes = opened.index(page, pins).ok_or_else(|| self.miss(at))?;
        let flawed = |error: Error| self.miss(at).flawed(&error);
        let index = read_index(page, &bytes).map_err(flawed)?;
        let block = match self.at {
            At::Block { block, .. } => block,
            _ => index.block_of(self.start()),
        };
        if block > 0 && !within(index.first_key(block), to) {
            self.at = At::End;
            return Ok(false);
        }
        let part = BlockSpan::of(&index, block);
        let content = opened.block(page, part, pins).ok_or_else(|| self.miss(at))?;
        let mut records = Records::of(content);
        match &self.from {
            Bound::Unbounded => {}
            Bound::Included(from) => records.seek(from, false).map_err(flawed)?,
            Bound::Excluded(from) => records.seek(from, true).map_err(flawed)?,
        }
        self.at = At::Records { page: at, block, blocks: index.len(), records };
        Ok(true)
    }

    fn start(&self) -> &[u8] {
        match &self.from {
            Bound::Included(from) | Bound::Excluded(from) => from,
            Bound::Unbounded => &[],
        }
    }

    fn miss(&self, page: usize) -> Miss {
        self.base.miss(page, self.start(), Some(&self.to))
    }
}
