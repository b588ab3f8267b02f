//! Counts how often the kernel was told of each inode. It may know millions, mostly with neighbouring numbers: those
//! created, or listed, one after the other. So neighbours share a row with a byte for each count; the few inodes of
//! which the kernel was told more often have their counts in a separate table.

use std::collections::HashMap;

use crate::types::InodeNo;

/// How many neighbours are in a row. A row with a single inode takes little more than an entry of its own would.
const ROW: u64 = 16;
/// The value in a row that says that the count is in `many`.
const MANY: u8 = u8::MAX;
/// The capacity in rows from which on it is worth shrinking the table.
const WORTH_SHRINKING: usize = 4096;

#[derive(Default)]
pub(super) struct LookupCounts {
    rows: HashMap<u64, [u8; ROW as usize]>,
    /// Counts of `MANY` and more. A count that reaches its maximum stays there: the inode is known until the mount
    /// ends.
    many: HashMap<InodeNo, u32>,
}

fn place(ino: InodeNo) -> (u64, usize) {
    (ino.0 / ROW, (ino.0 % ROW) as usize)
}

impl LookupCounts {
    /// Whether the kernel knows the inode.
    pub(super) fn has(&self, ino: InodeNo) -> bool {
        let (row, at) = place(ino);
        self.rows.get(&row).is_some_and(|row| row[at] > 0)
    }

    /// The kernel was told of the inode once more.
    pub(super) fn add(&mut self, ino: InodeNo) {
        let (row, at) = place(ino);
        let count = &mut self.rows.entry(row).or_default()[at];
        if *count < MANY {
            *count += 1;
        }
        if *count == MANY {
            let many = self.many.entry(ino).or_insert(u32::from(MANY) - 1);
            *many = many.saturating_add(1);
        }
    }

    /// The kernel forgets `times` of the times that it was told.
    pub(super) fn take(&mut self, ino: InodeNo, times: u64) {
        let (number, at) = place(ino);
        let Some(row) = self.rows.get_mut(&number) else { return };
        let before = match row[at] {
            MANY => self.many.get(&ino).copied().unwrap_or(MANY.into()),
            few => few.into(),
        };
        if before == u32::MAX {
            return;
        }
        let left = before.saturating_sub(u32::try_from(times).unwrap_or(u32::MAX));
        match u8::try_from(left) {
            Ok(few) if few < MANY => {
                row[at] = few;
                self.many.remove(&ino);
            }
            _ => _ = self.many.insert(ino, left),
        }
        if row.iter().all(|count| *count == 0) {
            self.rows.remove(&number);
            self.give_back();
        }
    }

    /// The kernel knows nothing any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// So that a kernel which has forgotten a million inodes takes no memory for them here.
    fn give_back(&mut self) {
        let (used, room) = (self.rows.len(), self.rows.capacity());
        if room > WORTH_SHRINKING && used < room / 8 {
            self.rows.shrink_to(used * 2);
        }
    }

    /// The inodes that the kernel knows.
    pub(super) fn known(&self) -> impl Iterator<Item = InodeNo> {
        let known = |(row, counts): (&u64, &[u8; ROW as usize])| {
            let first = *row * ROW;
            let told = (0..).zip(*counts).filter(|(_, count)| *count > 0);
            told.map(move |(at, _)| InodeNo(first + at))
        };
        self.rows.iter().flat_map(known)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Told {
        Add(u64, u16),
        Take(u64, u64),
    }

    fn told() -> impl Strategy<Value = Told> {
        let ino = prop_oneof![0..40_u64, Just(u64::MAX)];
        prop_oneof![
            (ino.clone(), 1..300_u16).prop_map(|(ino, times)| Told::Add(ino, times)),
            (ino, prop_oneof![1..600_u64, Just(u64::MAX)])
                .prop_map(|(ino, times)| Told::Take(ino, times)),
        ]
    }

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn v3_they_are_counted_as_one_by_one(steps in prop::collection::vec(told(), 0..60)) {
            let (mut counts, mut model) = (LookupCounts::default(), HashMap::<u64, u64>::new());
            for step in steps {
                match step {
                    Told::Add(ino, times) => {
                        (0..times).for_each(|_| counts.add(InodeNo(ino)));
                        *model.entry(ino).or_default() += u64::from(times);
                    }
                    Told::Take(ino, times) => {
                        counts.take(InodeNo(ino), times);
                        let count = model.entry(ino).or_default();
                        *count = count.saturating_sub(times);
                    }
                }
                model.retain(|_, count| *count > 0);
                let mut known: Vec<_> = counts.known().map(|ino| ino.0).collect();
                known.sort_unstable();
                let mut expected: Vec<_> = model.keys().copied().collect();
                expected.sort_unstable();
                prop_assert_eq!(known, expected);
                let many = model.values().filter(|count| **count >= u64::from(MANY)).count();
                prop_assert_eq!(counts.many.len(), many);
            }
        }
    }

    #[test]
    fn v3_a_count_at_its_end_stays() {
        let (mut counts, ino) = (LookupCounts::default(), InodeNo(7));
        (0..255).for_each(|_| counts.add(ino));
        counts.many.insert(ino, u32::MAX - 1);
        (0..3).for_each(|_| counts.add(ino));
        counts.take(ino, u64::MAX);
        assert!(counts.has(ino) && !counts.has(InodeNo(8)));
        counts.clear();
        assert!(!counts.has(ino));
    }

    #[test]
    fn two_million_neighbours_take_a_few_mebibytes_and_none_once_they_are_forgotten() {
        let mut counts = LookupCounts::default();
        let inodes = 1_000..2_001_000;
        inodes.clone().for_each(|ino| counts.add(InodeNo(ino)));
        let of_a_row = size_of::<(u64, [u8; ROW as usize])>() + 1;
        // A table that is just more than 7/8 full doubles.
        let room = counts.rows.capacity() * 8 / 7 * of_a_row;
        assert!(room <= 7 << 20, "{room}");
        inodes.for_each(|ino| counts.take(InodeNo(ino), 1));
        assert!(counts.rows.capacity() <= 2 * WORTH_SHRINKING);
    }
}
