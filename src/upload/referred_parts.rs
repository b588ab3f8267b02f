//! The parts of a pack found after a crash that are still needed (J7). Pure bookkeeping, no I/O.

use std::collections::BTreeMap;
use std::ops::Range;

/// The extents of one pack that unsent transactions refer to; extents that touch are merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferredParts(BTreeMap<u64, u64>);

impl ReferredParts {
    /// Adds a part, which may be known already.
    pub fn add(&mut self, part: Range<u64>) {
        let Range { mut start, mut end } = part;
        while let Some((from, to)) = self.0.range(..=end).next_back().map(|(from, to)| (*from, *to))
            && to >= start
        {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    /// Where the last part ends.
    pub(super) fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Whether every byte of the parts is the same in both packs.
    pub(super) fn are_same_in(&self, ours: &[u8], theirs: &[u8]) -> bool {
        self.0.iter().all(|(from, to)| {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            range.is_some_and(|(from, to)| {
                ours.get(from..to).is_some_and(|part| theirs.get(from..to) == Some(part))
            })
        })
    }
}

impl FromIterator<Range<u64>> for ReferredParts {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(parts: T) -> Self {
        let mut all = Self::default();
        parts.into_iter().for_each(|part| all.add(part));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j7_parts_that_touch_are_one_and_what_lies_between_others_may_differ() {
        let parts: ReferredParts = [10..20, 40..50, 20..30, 10..20, 25..28].into_iter().collect();
        assert_eq!(parts.0, BTreeMap::from([(10, 30), (40, 50)]));
        assert_eq!((parts.end(), ReferredParts::default().end()), (50, 0));
        let ours = [1; 60];
        for at in 0..60 {
            let mut theirs = ours;
            theirs[at] = 2;
            let is_needed = (10..30).contains(&at) || (40..50).contains(&at);
            assert_eq!(parts.are_same_in(&ours, &theirs), !is_needed, "{at}");
        }
        assert!(parts.are_same_in(&ours, &ours[..50]) && !parts.are_same_in(&ours, &ours[..49]));
        assert!(!parts.are_same_in(&ours[..49], &ours));
    }
}
