//! A range of the map, merged from its layers (J9): for each key, the newest layer that has it
//! counts.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;

use super::layers::Layers;
use super::memtable::DeltaRecord;
use super::{Error, Result};
use crate::checkpoint::{Miss, Pins};

/// A merged record, or the page that is needed to go on.
pub(super) enum MergeStep {
    Record(Vec<u8>, Bytes),
    Miss(Miss),
    End,
}

/// The records of one layer in the map's order; `None`: deleted there.
type LayerRows<'a> = Peekable<Box<dyn Iterator<Item = Result<(Vec<u8>, Option<Bytes>)>> + 'a>>;

/// The records of `from..to`, in order. Both bounds must be in one table, and of one inode if the
/// table's keys begin with an inode.
pub(super) struct RangeMerge<'a> {
    /// The draft and the layers above the base, newest first.
    sources: Vec<LayerRows<'a>>,
    base: crate::checkpoint::Scan,
    /// The base's next record, once it is read.
    base_head: Option<(Bytes, Bytes)>,
    is_base_read: bool,
    pins: &'a Pins,
}

impl<'a> RangeMerge<'a> {
    pub(super) fn new(
        layers: &'a Layers,
        draft: &'a BTreeMap<Vec<u8>, Option<Bytes>>,
        pins: &'a Pins,
        from: &[u8],
        to: &[u8],
    ) -> Result<Self> {
        let end = to.to_vec();
        let records = |row: (&Vec<u8>, &DeltaRecord)| Ok((row.0.clone(), row.1.value.clone()));
        let within = move |key: &[u8]| key < end.as_slice();
        let mut sources: Vec<LayerRows<'a>> = Vec::with_capacity(4);
        let in_draft = within.clone();
        let drafted = draft
            .range(from.to_vec()..)
            .take_while(move |(key, _)| in_draft(key))
            .map(|(key, value)| Ok((key.clone(), value.clone())));
        sources.push(boxed(drafted));
        for memory in [&layers.active].into_iter().chain(layers.draining.as_deref()) {
            let within = within.clone();
            sources.push(boxed(
                memory.range(from).take_while(move |(key, _)| within(key)).map(records),
            ));
        }
        let rows = layers.sled.scan(from, to)?.take_while(move |row| match row {
            Ok((key, _)) => within(key),
            Err(_) => true,
        });
        sources.push(boxed(rows.map(|row| row.map(|(key, record)| (key, record.value)))));
        let base = layers.base.range(Bound::Included(from), Bound::Excluded(to));
        Ok(Self { sources, base, base_head: None, is_base_read: false, pins })
    }

    /// The next record.
    pub(super) fn step(&mut self) -> Result<MergeStep> {
        loop {
            if !self.is_base_read {
                match self.base.next(self.pins) {
                    Ok(head) => self.base_head = head,
                    Err(miss) => return Ok(MergeStep::Miss(miss)),
                }
                self.is_base_read = true;
            }
            let mut least = self.base_head.as_ref().map(|(key, _)| key.to_vec());
            for source in &mut self.sources {
                let head = match source.peek() {
                    None => continue,
                    Some(Ok((key, _))) => key,
                    Some(Err(_)) => return Err(taken_error(source.next())),
                };
                if least.as_ref().is_none_or(|least| head < least) {
                    least = Some(head.clone());
                }
            }
            let Some(key) = least else { return Ok(MergeStep::End) };
            if let Some(value) = self.take(&key)? {
                return Ok(MergeStep::Record(key, value));
            }
        }
    }

    /// Takes `key` from every source, and returns the value of the newest that has it.
    fn take(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        let mut newest = None;
        for source in &mut self.sources {
            let has = |row: &Result<(Vec<u8>, Option<Bytes>)>| match row {
                Ok((found, _)) => found == key,
                Err(_) => false,
            };
            if let Some(row) = source.next_if(has) {
                let (_, value) = row?;
                newest = newest.or(Some(value));
            }
        }
        if let Some((_, value)) = self.base_head.take_if(|(found, _)| found == key) {
            self.is_base_read = false;
            newest = newest.or(Some(Some(value)));
        }
        Ok(newest.flatten())
    }
}

fn boxed<'a>(rows: impl Iterator<Item = Result<(Vec<u8>, Option<Bytes>)>> + 'a) -> LayerRows<'a> {
    (Box::new(rows) as Box<dyn Iterator<Item = _> + 'a>).peekable()
}

fn taken_error<T>(row: Option<Result<T>>) -> Error {
    match row {
        Some(Err(error)) => error,
        _ => Error::Damaged("a row went away while it was read".into()),
    }
}
