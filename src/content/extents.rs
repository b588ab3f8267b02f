//! Pure arithmetic over a file's records of extents: lists of (offset in the file, extent), sorted by offset and
//! disjoint; what lies between them is a hole.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::types::{EXTENT_MAX, Extent};

/// A window with more records than this is to be rewritten.
pub const WINDOW_RECORDS: usize = 64;

/// A change of one record of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The record at this offset becomes this.
    Put(u64, Extent),
    /// There is no record at this offset any more.
    Delete(u64),
}

/// The edits that lay `new` over `old`; records that stay the same get none. `old` holds at least every record that
/// overlaps a new piece. If it also holds their neighbours, records that continue each other in one message are merged.
pub fn publish(old: &[(u64, Extent)], new: &[(u64, Extent)]) -> Vec<Edit> {
    let mut list = subtract(old, new.iter().map(range));
    list.extend(new.iter().cloned());
    list.sort_unstable_by_key(|(offset, _)| *offset);
    difference(old, &merge(list))
}

/// The edits that cut the file to `size` bytes. `old` holds every record that ends beyond `size`.
pub fn truncate(old: &[(u64, Extent)], size: u64) -> Vec<Edit> {
    punch(old, size..u64::MAX)
}

/// The edits that make a hole of `range`. `old` holds every record that overlaps it.
pub fn punch(old: &[(u64, Extent)], range: Range<u64>) -> Vec<Edit> {
    difference(old, &subtract(old, std::iter::once(range)))
}

/// The parts of the records that lie in `range`.
pub fn clip(list: &[(u64, Extent)], range: Range<u64>) -> Vec<(u64, Extent)> {
    let part = |(offset, extent): &(u64, Extent)| {
        let from = range.start.max(*offset);
        let to = range.end.min(offset + extent.length);
        (from < to).then(|| (from, extent.part(from - offset, to - offset)))
    };
    list.iter().filter_map(part).collect()
}

/// The list after the edits.
pub fn apply(old: &[(u64, Extent)], edits: &[Edit]) -> Vec<(u64, Extent)> {
    let mut map: BTreeMap<u64, Extent> = old.iter().cloned().collect();
    for edit in edits {
        match edit {
            Edit::Put(offset, extent) => _ = map.insert(*offset, extent.clone()),
            Edit::Delete(offset) => _ = map.remove(offset),
        }
    }
    map.into_iter().collect()
}

/// The first aligned 16 MiB window that more than `WINDOW_RECORDS` records reach into. It is to be rewritten, since
/// reading it may cost that many requests.
pub fn fragmented(list: &[(u64, Extent)]) -> Option<Range<u64>> {
    let (mut window, mut count) = (0, 0);
    for (offset, extent) in list.iter().filter(|(_, extent)| extent.length > 0) {
        // A record that reaches into the next window counts there too.
        for touched in offset / EXTENT_MAX..=(offset + extent.length - 1) / EXTENT_MAX {
            if touched != window {
                (window, count) = (touched, 0);
            }
            count += 1;
            if count > WINDOW_RECORDS {
                return Some(window * EXTENT_MAX..(window + 1) * EXTENT_MAX);
            }
        }
    }
    None
}

fn range((offset, extent): &(u64, Extent)) -> Range<u64> {
    *offset..offset + extent.length
}

/// `list` without the bytes of `holes` (sorted, disjoint).
fn subtract(list: &[(u64, Extent)], holes: impl Iterator<Item = Range<u64>>) -> Vec<(u64, Extent)> {
    let holes: Vec<_> = holes.filter(|hole| !hole.is_empty()).collect();
    let mut left = Vec::with_capacity(list.len() + holes.len() + 1);
    for record in list {
        let Range { start, end } = range(record);
        let mut at = start;
        let first = holes.partition_point(|hole| hole.end <= start);
        for hole in holes[first..].iter().take_while(|hole| hole.start < end) {
            if hole.start > at {
                left.push((at, record.1.part(at - start, hole.start - start)));
            }
            at = hole.end;
        }
        if at < end {
            left.push((at, record.1.part(at - start, end - start)));
        }
    }
    left
}

/// Makes one record of neighbours that continue each other both in the file and in one message.
fn merge(list: Vec<(u64, Extent)>) -> Vec<(u64, Extent)> {
    let mut merged: Vec<(u64, Extent)> = Vec::with_capacity(list.len());
    for (offset, extent) in list {
        match merged.last_mut() {
            Some((before, last))
                if *before + last.length == offset
                    && last.skip + last.length == extent.skip
                    && last.reference == extent.reference =>
            {
                last.length += extent.length;
            }
            _ => merged.push((offset, extent)),
        }
    }
    merged
}

/// The edits that turn `old` into `new`.
fn difference(old: &[(u64, Extent)], new: &[(u64, Extent)]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return edits,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.0.cmp(&new.0),
        };
        let gone = if order.is_le() { old.next() } else { None };
        let come = if order.is_ge() { new.next() } else { None };
        match (gone, come) {
            (gone, Some((offset, extent))) if gone.is_none_or(|(_, before)| before != extent) => {
                edits.push(Edit::Put(*offset, extent.clone()));
            }
            (Some((offset, _)), None) => edits.push(Edit::Delete(*offset)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Reference;

    const SIZE: usize = 64;
    /// For each byte of a file, the message that it is in, and its place in that.
    type Model = [Option<(u8, u64)>; SIZE];

    fn extent(id: u8, skip: u64, length: u64) -> Extent {
        Extent { skip, length, reference: Reference::made_up(id, 1 << 20) }
    }

    fn model(list: &[(u64, Extent)]) -> Model {
        let mut model: Model = [None; SIZE];
        let mut end = 0;
        for (offset, extent) in list {
            assert!(*offset >= end && extent.length > 0, "sorted, disjoint, not empty: {list:?}");
            end = offset + extent.length;
            for i in 0..extent.length {
                model[usize::try_from(offset + i).unwrap()] =
                    Some((extent.reference.extent.0[0], extent.skip + i));
            }
        }
        model
    }

    #[derive(Clone, Debug)]
    enum Op {
        Publish(Vec<(u64, u64)>),
        /// Copies a range of the file's records elsewhere (reflink).
        Copy(u64, u64, u64),
        Truncate(u64),
        Punch(u64, u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let at = 0..SIZE as u64;
        prop_oneof![
            4 => prop::collection::vec((0..20u64, 1..12u64), 1..4).prop_map(Op::Publish),
            2 => (at.clone(), at.clone(), 1..30u64).prop_map(|(a, b, c)| Op::Copy(a, b, c)),
            1 => at.clone().prop_map(Op::Truncate),
            1 => (at, 1..30u64).prop_map(|(a, b)| Op::Punch(a, b)),
        ]
    }

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn edits_agree_with_a_byte_array(ops in prop::collection::vec(op(), 1..30)) {
            let mut list: Vec<(u64, Extent)> = Vec::new();
            let mut bytes: Model = [None; SIZE];
            for (id, op) in ops.into_iter().enumerate() {
                let id = u8::try_from(id).unwrap();
                let edits = match op {
                    Op::Publish(gaps) => {
                        let (mut at, mut new) = (0, Vec::new());
                        for (gap, length) in gaps {
                            let end = (at + gap + length).min(SIZE as u64);
                            if at + gap < end {
                                new.push((at + gap, extent(id, at, end - at - gap)));
                            }
                            at = end;
                        }
                        for (byte, piece) in bytes.iter_mut().zip(model(&new)) {
                            *byte = piece.or(*byte);
                        }
                        publish(&list, &new)
                    }
                    Op::Copy(from, to, length) => {
                        let length = length.min(SIZE as u64 - from.max(to));
                        let mut new = clip(&list, from..from + length);
                        new.iter_mut().for_each(|(offset, _)| *offset = *offset - from + to);
                        for (byte, piece) in bytes.iter_mut().zip(model(&new)) {
                            *byte = piece.or(*byte);
                        }
                        publish(&list, &new)
                    }
                    Op::Truncate(size) => {
                        bytes[usize::try_from(size).unwrap()..].fill(None);
                        truncate(&list, size)
                    }
                    Op::Punch(from, length) => {
                        let to = (from + length).min(SIZE as u64);
                        bytes[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(None);
                        punch(&list, from..to)
                    }
                };
                for edit in &edits {
                    let there = |offset| list.iter().find(|(at, _)| *at == offset).map(|(_, e)| e);
                    match edit {
                        Edit::Put(offset, extent) => prop_assert_ne!(there(*offset), Some(extent)),
                        Edit::Delete(offset) => prop_assert!(there(*offset).is_some()),
                    }
                }
                list = apply(&list, &edits);
                prop_assert_eq!(model(&list), bytes);
                let (from, to) = (SIZE as u64 / 4, SIZE as u64 / 2);
                let mut inside = bytes;
                inside[..SIZE / 4].fill(None);
                inside[SIZE / 2..].fill(None);
                prop_assert_eq!(model(&clip(&list, from..to)), inside);
            }
        }
    }

    #[test]
    fn parts_that_continue_each_other_are_one_record() {
        let old = [(0, extent(1, 0, 10)), (20, extent(1, 20, 10))];
        let edits = publish(&old, &[(10, extent(1, 10, 10))]);
        assert_eq!(edits, [Edit::Put(0, extent(1, 0, 30)), Edit::Delete(20)]);
        let edits =
            publish(&[], &[(0, extent(1, 0, 4)), (4, extent(1, 4, 4)), (8, extent(2, 8, 4))]);
        assert_eq!(edits, [Edit::Put(0, extent(1, 0, 8)), Edit::Put(8, extent(2, 8, 4))]);
    }

    #[test]
    fn only_a_window_of_many_records_is_rewritten() {
        let step = EXTENT_MAX / WINDOW_RECORDS as u64;
        let pieces = |count: u64| -> Vec<_> {
            (0..count).map(|i| (EXTENT_MAX + i * step / 2, extent(1, 0, 1))).collect()
        };
        assert_eq!(fragmented(&pieces(WINDOW_RECORDS as u64)), None);
        assert_eq!(fragmented(&pieces(65)), Some(EXTENT_MAX..2 * EXTENT_MAX));
        let even: Vec<_> = (0..500).map(|i| (i * step, extent(1, 0, step))).collect();
        assert_eq!(fragmented(&even), None);
        let mut long = pieces(64);
        long.insert(0, (0, extent(2, 0, EXTENT_MAX + 1)));
        assert_eq!(fragmented(&long), Some(EXTENT_MAX..2 * EXTENT_MAX));
    }
}
