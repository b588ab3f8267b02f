//! The merge (rule K1): the previous checkpoint's pages and the changes since become the pages of
//! the next checkpoint, in one streaming run over the map.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::iter::Peekable;

use bytes::Bytes;

use super::changes::Changed;
use super::manifest::{PageRef, TableSummary};
use super::pack_rows::{PackDelta, PackDeltas, PackInfo, pack_share_of};
use super::page::{PageBuilder, PageRecords, Sizes};
use super::page_io::PageIo;
use super::{Error, Result};
use crate::records::{Key, decode_value, encode_value};

type SortedChanges = Peekable<IntoIter<Vec<u8>, Changed>>;

/// A page of the previous checkpoint whose records are being merged.
#[derive(Debug)]
struct OpenPage {
    records: PageRecords,
    next: Option<(Bytes, Bytes)>,
    /// Where the next page begins; `None`: this is the last.
    end: Option<Vec<u8>>,
}

/// The result of a merge.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) pages: Vec<PageRef>,
    pub(super) tables: Vec<TableSummary>,
    pub(super) live: i64,
}

/// The state of a merge between its passes.
pub(super) struct Merge<'a> {
    io: PageIo<'a>,
    previous: &'a [PageRef],
    /// The next page of `previous` that was neither opened nor shared.
    at: usize,
    open: Option<OpenPage>,
    pending: PageBuilder,
    pages: Vec<PageRef>,
    tables: BTreeMap<u8, TableSummary>,
    packs: PackDeltas,
    live: i64,
}

impl<'a> Merge<'a> {
    /// Merges onto `previous`, whose tables are `tables`.
    pub(super) fn new(
        io: PageIo<'a>,
        previous: &'a [PageRef],
        tables: &[TableSummary],
        sizes: Sizes,
    ) -> Self {
        Self {
            io,
            previous,
            at: 0,
            open: None,
            pending: PageBuilder::new(sizes),
            pages: Vec::new(),
            tables: tables.iter().map(|table| (table.tag, table.clone())).collect(),
            packs: PackDeltas::default(),
            live: 0,
        }
    }

    /// Merges all changes below `until` (`None`: to the end of the map). Passes must go upwards.
    pub(super) async fn pass(
        &mut self,
        changes: BTreeMap<Vec<u8>, Changed>,
        until: Option<&[u8]>,
    ) -> Result<()> {
        let mut changes = changes.into_iter().peekable();
        loop {
            if let Some(mut open) = self.open.take() {
                let done = self.merge_open(&mut open, &mut changes, until).await?;
                if !done {
                    self.open = Some(open);
                    return Ok(());
                }
            }
            let Some(page) = self.previous.get(self.at) else {
                return self.append_rest(changes).await;
            };
            let end = self.previous.get(self.at + 1).map(|next| next.first_key.clone());
            let touched = !self.io.may_share(page)
                || changes.peek().is_some_and(|(key, _)| is_below(key, end.as_deref()));
            if !touched && until.is_some_and(|until| is_below(until, end.as_deref())) {
                return Ok(()); // The next pass may have changes for it.
            }
            self.at += 1;
            if touched || self.pending.is_small() {
                let mut records = self.io.load(page).await?;
                let next = records.next()?;
                self.open = Some(OpenPage { records, next, end });
            } else {
                self.flush().await?;
                self.pages.push(page.clone());
            }
        }
    }

    /// Merges changes into an open page; `false` when more changes for it may come.
    async fn merge_open(
        &mut self,
        open: &mut OpenPage,
        changes: &mut SortedChanges,
        until: Option<&[u8]>,
    ) -> Result<bool> {
        loop {
            let change = changes.next_if(|(key, _)| match &open.next {
                Some((record, _)) => key[..] <= record[..],
                None => is_below(key, open.end.as_deref()),
            });
            if let Some((key, changed)) = change {
                let old = open.next.take_if(|(record, _)| record[..] == key[..]);
                if old.is_some() {
                    open.next = open.records.next()?;
                }
                self.apply(&key, old.map(|(_, value)| value), changed).await?;
                continue;
            }
            match open.next.take() {
                Some(record) if until.is_some_and(|until| record.0[..] >= *until) => {
                    open.next = Some(record);
                    return Ok(false);
                }
                Some((key, value)) => {
                    open.next = open.records.next()?;
                    self.emit(&key, &value).await?;
                }
                None => return Ok(!until.is_some_and(|u| is_below(u, open.end.as_deref()))),
            }
        }
    }

    /// Appends changes after the last page.
    async fn append_rest(&mut self, changes: SortedChanges) -> Result<()> {
        for (key, changed) in changes {
            self.apply(&key, None, changed).await?;
        }
        Ok(())
    }

    /// Puts one changed record in its place, and updates the counts.
    async fn apply(&mut self, key: &[u8], old: Option<Bytes>, changed: Changed) -> Result<()> {
        let new = match changed {
            Changed::Pack(delta) => Some(new_row(&delta, old.as_deref())?),
            Changed::Record { versions, last } => {
                let mut before =
                    old.as_deref().map(|old| pack_share_of(key, old)).transpose()?.flatten();
                for version in versions {
                    self.packs.note(before, version.part, version.commit);
                    before = version.part;
                }
                last
            }
        };
        self.count(key, old.is_some(), new.is_some())?;
        match new {
            Some(value) => self.emit(key, &value).await,
            None => Ok(()),
        }
    }

    fn count(&mut self, key: &[u8], before: bool, after: bool) -> Result<()> {
        let tag = Key::decode(key)?.tag().byte();
        let table = self
            .tables
            .entry(tag)
            .or_insert_with(|| TableSummary { tag, ..TableSummary::default() });
        let records = table.records + u64::from(after);
        table.records = records
            .checked_sub(u64::from(before))
            .ok_or_else(|| Error::malformed("the manifest before", "a table has more records"))?;
        if after && table.bound.as_slice() < key {
            table.bound = key.to_vec();
        }
        Ok(())
    }

    async fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.pending.push(key, value);
        while let Some(page) = self.pending.full() {
            self.pages.push(self.io.store(page).await?);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        for page in self.pending.flush() {
            self.pages.push(self.io.store(page).await?);
        }
        Ok(())
    }

    /// The changed rows of the table of packs, once everything that refers to packs is merged.
    pub(super) fn take_packs(&mut self) -> BTreeMap<Vec<u8>, Changed> {
        let packs = std::mem::take(&mut self.packs);
        self.live += packs.live();
        let row = |(id, delta)| (Key::Pack(id).encode(), Changed::Pack(delta));
        packs.into_rows().map(row).collect()
    }

    /// The new pages, once they are all in the bucket.
    pub(super) async fn finish(mut self) -> Result<Merged> {
        self.flush().await?;
        self.io.finish().await?;
        let tables = self.tables.into_values().filter(|table| table.records > 0).collect();
        Ok(Merged { pages: self.pages, tables, live: self.live })
    }
}

fn is_below(key: &[u8], end: Option<&[u8]>) -> bool {
    end.is_none_or(|end| key < end)
}

fn new_row(delta: &PackDelta, old: Option<&[u8]>) -> Result<Bytes> {
    let old = old.map(|old| decode_value::<PackInfo>("packs", old)).transpose()?;
    Ok(encode_value(&delta.apply(old.as_ref())?))
}
