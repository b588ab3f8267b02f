//! The memtable: records that changed a moment ago and are not yet in sled. The journal has them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::records::Change;

/// A record that changed since the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeltaRecord {
    /// The index's count of changes when the record last changed (J9).
    pub count: u64,
    /// `None`: a tombstone.
    pub value: Option<Bytes>,
}

/// Encoded inodes of the map by key; `None`: the map does not have it.
pub(super) type SeenInodes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Changed records by key, and the memory that they take.
#[derive(Default)]
pub(super) struct Memtable {
    records: BTreeMap<Vec<u8>, DeltaRecord>,
    bytes: usize,
}

/// What a record costs in memory besides its key and value.
const RECORD_OVERHEAD: usize = 96;

impl Memtable {
    pub(super) fn get(&self, key: &[u8]) -> Option<&DeltaRecord> {
        self.records.get(key)
    }

    pub(super) fn insert(&mut self, key: Vec<u8>, record: DeltaRecord) {
        let size = |record: &DeltaRecord| record.value.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&record);
        let key_bytes = key.len();
        match self.records.insert(key, record) {
            Some(old) => self.bytes -= size(&old),
            None => self.bytes += RECORD_OVERHEAD + key_bytes,
        }
    }

    pub(super) fn range<'a>(
        &'a self,
        from: &[u8],
    ) -> impl Iterator<Item = (&'a Vec<u8>, &'a DeltaRecord)> + use<'a> {
        self.records.range(from.to_vec()..)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &DeltaRecord)> {
        self.records.iter()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An upper bound of what these changes add to a memtable, in bytes.
    pub(super) fn bytes_of(changes: &[Change]) -> usize {
        let value = |change: &Change| change.value.as_ref().map_or(0, Bytes::len);
        let sizes = changes.iter().map(|change| change.key.len() + value(change));
        sizes.map(|size| size + RECORD_OVERHEAD).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn its_bytes_are_those_of_what_it_holds(
            puts in prop::collection::vec((0..20_u8, prop::option::of(0..500_usize)), 0..80),
        ) {
            let mut memtable = Memtable::default();
            for (key, length) in puts {
                let value = length.map(|length| vec![0; length].into());
                memtable.insert(vec![key; key.into()], DeltaRecord { count: 1, value });
            }
            let value = |record: &DeltaRecord| record.value.as_ref().map_or(0, Bytes::len);
            let sizes = memtable.iter().map(|(key, record)| key.len() + value(record));
            let expected: usize = sizes.map(|size| size + RECORD_OVERHEAD).sum();
            prop_assert_eq!(memtable.bytes(), expected);
        }
    }
}
