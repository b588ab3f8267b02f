//! What the disk tier holds: the byte ranges of each object, in the order of use. Pure bookkeeping: `disk_tier.rs` does
//! the I/O.

use std::ops::Range;
use std::sync::Arc;

use lru::LruCache;

/// The most ranges, over all objects. This bounds the memory of the table (about 150 bytes each, so 10 MiB), and the
/// time to list the directory when the cache is opened (well under a second).
pub(super) const RANGES_MAX: usize = 1 << 16;
/// The most ranges of one object: a look-up walks through them.
const RANGES_OF_ONE: usize = 1024;
/// The file system's allocation unit.
const FS_BLOCK: u64 = 4096;

/// A range of an object, stored in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CachedRange {
    /// The object's name in the bucket.
    pub object: Arc<str>,
    /// Which bytes of the object; never empty.
    pub range: Range<u64>,
    /// Whether these are all of the object's bytes.
    pub whole: bool,
}

impl CachedRange {
    fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.range)
    }
}

fn disk_bytes(range: &Range<u64>) -> u64 {
    (range.end - range.start).next_multiple_of(FS_BLOCK)
}

#[derive(Debug, Default)]
struct Stored {
    /// Ranges, and whether each is the whole object. Sorted by start, then by end; none contains another.
    parts: Vec<(Range<u64>, bool)>,
}

/// The table. The least recently used *object* leaves first, with all of its ranges.
#[derive(Debug)]
pub(super) struct RangeTable {
    content: LruCache<Arc<str>, Stored>,
    pages: LruCache<Arc<str>, Stored>,
    bytes: u64,
    page_bytes: u64,
    count: usize,
    budget: u64,
}

/// Whether an object is a pack. Pages, manifests and commits are needed to find anything at all, so they go last.
fn is_content(object: &str) -> bool {
    object.starts_with("pack/")
}

impl RangeTable {
    pub(super) fn new(budget: u64) -> Self {
        let (content, pages) = (LruCache::unbounded(), LruCache::unbounded());
        Self { content, pages, bytes: 0, page_bytes: 0, count: 0, budget }
    }

    fn table(&mut self, object: &str) -> &mut LruCache<Arc<str>, Stored> {
        if is_content(object) { &mut self.content } else { &mut self.pages }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The cached ranges that together hold `range`, in order, each with the bytes of the object to take from it; `None`
    /// when a byte is missing. Counts as a use of the object.
    pub(super) fn cover(
        &mut self,
        object: &str,
        range: &Range<u64>,
    ) -> Option<Vec<(CachedRange, Range<u64>)>> {
        let (name, stored) = self.table(object).get_key_value(object)?;
        let mut found = Vec::with_capacity(1);
        let mut at = range.start;
        while at < range.end {
            // Of the ranges that begin at or before `at`, the last reaches furthest, because none contains another.
            let until = stored.parts.partition_point(|(part, _)| part.start <= at);
            let (part, whole) = stored.parts[..until].last().filter(|(part, _)| part.end > at)?;
            let to = part.end.min(range.end);
            let part = CachedRange { object: name.clone(), range: part.clone(), whole: *whole };
            found.push((part, at..to));
            at = to;
        }
        Some(found)
    }

    /// Whether `cover` would find all of `range`. Not a use of the object.
    pub(super) fn covers(&self, object: &str, range: &Range<u64>) -> bool {
        let table = if is_content(object) { &self.content } else { &self.pages };
        let Some(stored) = table.peek(object) else { return false };
        let mut at = range.start;
        while at < range.end {
            let until = stored.parts.partition_point(|(part, _)| part.start <= at);
            match stored.parts[..until].last() {
                Some((part, _)) if part.end > at => at = part.end,
                _ => return false,
            }
        }
        true
    }

    /// The range that is known to be the whole object, if there is one.
    pub(super) fn whole(&mut self, object: &str) -> Option<CachedRange> {
        let stored = self.table(object).get(object)?;
        let range = stored.parts.iter().find(|(_, whole)| *whole)?.0.clone();
        Some(CachedRange { object: Arc::from(object), range, whole: true })
    }

    /// Notes a range whose file exists now. Returns the ranges whose files may go: those that it covers, and those that
    /// exceed the budget.
    pub(super) fn insert(&mut self, new: &CachedRange) -> Vec<CachedRange> {
        let object = &new.object;
        let stored = self.table(object).get_or_insert_mut(object.clone(), Stored::default);
        let contains = |outer: &Range<u64>, inner: &Range<u64>| {
            outer.start <= inner.start && inner.end <= outer.end
        };
        if stored.parts.iter().any(|(part, _)| *part != new.range && contains(part, &new.range)) {
            return vec![new.clone()];
        }
        let covered: Vec<_> =
            stored.parts.extract_if(.., |(part, _)| contains(&new.range, part)).collect();
        let at = stored.parts.partition_point(|(part, _)| part.start < new.range.start);
        stored.parts.insert(at, (new.range.clone(), new.whole));
        let crowded = stored.parts.len() > RANGES_OF_ONE;
        let part = |(range, whole)| CachedRange { object: object.clone(), range, whole };
        let mut gone: Vec<_> = covered.into_iter().map(part).collect();
        for part in &gone {
            self.subtract(part);
        }
        self.add(new);
        // The same range has the same file, which stays.
        gone.retain(|part| part != new);
        if crowded {
            gone.extend(self.forget(object));
        }
        gone.extend(self.shrink());
        gone
    }

    /// The budget in bytes.
    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// Sets the budget; returns the ranges that exceed it.
    pub(super) fn limit(&mut self, budget: u64) -> Vec<CachedRange> {
        self.budget = budget;
        self.shrink()
    }

    fn shrink(&mut self) -> Vec<CachedRange> {
        let mut gone = Vec::new();
        while self.bytes > self.budget || self.count > RANGES_MAX {
            match self.evict() {
                Some(parts) => gone.extend(parts),
                None => break,
            }
        }
        gone
    }

    fn add(&mut self, part: &CachedRange) {
        self.bytes += part.disk_bytes();
        self.count += 1;
        if !is_content(&part.object) {
            self.page_bytes += part.disk_bytes();
        }
    }

    fn subtract(&mut self, part: &CachedRange) {
        self.bytes -= part.disk_bytes();
        self.count -= 1;
        if !is_content(&part.object) {
            self.page_bytes -= part.disk_bytes();
        }
    }

    /// Drops the least recently used object; returns its ranges.
    pub(super) fn evict(&mut self) -> Option<Vec<CachedRange>> {
        let from_pages = self.page_bytes > self.budget / 2 || self.content.is_empty();
        let table = if from_pages { &mut self.pages } else { &mut self.content };
        let (object, stored) = table.pop_lru()?;
        Some(self.leave(&object, stored))
    }

    /// Drops an object; returns its ranges.
    pub(super) fn forget(&mut self, object: &str) -> Vec<CachedRange> {
        match self.table(object).pop(object) {
            Some(stored) => self.leave(&Arc::from(object), stored),
            None => Vec::new(),
        }
    }

    fn leave(&mut self, object: &Arc<str>, stored: Stored) -> Vec<CachedRange> {
        let part = |(range, whole)| CachedRange { object: object.clone(), range, whole };
        let parts: Vec<_> = stored.parts.into_iter().map(part).collect();
        for part in &parts {
            self.subtract(part);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(object: &str, range: Range<u64>) -> CachedRange {
        CachedRange { object: Arc::from(object), range, whole: false }
    }

    #[test]
    fn the_object_used_least_recently_leaves_first_and_pages_last() {
        let mut table = RangeTable::new(4 * FS_BLOCK);
        for object in ["page/1/a", "pack/aa/a", "pack/bb/b", "pack/cc/c"] {
            assert_eq!(table.insert(&part(object, 0..4096)), []);
        }
        assert!(table.cover("pack/aa/a", &(0..4096)).is_some());
        let gone = table.insert(&part("pack/dd/d", 0..4096));
        assert_eq!(gone, [part("pack/bb/b", 0..4096)]);
        assert!(table.cover("page/1/a", &(5..9)).is_some());
    }

    #[test]
    fn a_part_published_twice_is_counted_once_and_its_file_stays() {
        let mut table = RangeTable::new(1 << 20);
        assert_eq!(table.insert(&part("pack/aa/a", 0..100)), []);
        assert_eq!(table.insert(&part("pack/aa/a", 0..100)), []);
        assert_eq!((table.bytes(), table.count()), (4096, 1));
        // A range that is already covered need not stay.
        assert_eq!(table.insert(&part("pack/aa/a", 10..20)), [part("pack/aa/a", 10..20)]);
        assert_eq!(table.insert(&part("pack/aa/a", 0..200)), [part("pack/aa/a", 0..100)]);
        assert_eq!((table.bytes(), table.count()), (4096, 1));
    }

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        /// Against a model that knows each byte of each object.
        #[test]
        fn cover_finds_exactly_what_is_there(
            parts in prop::collection::vec((0..3_usize, 0..200_u64, 1..60_u64), 1..40),
            asked in (0..3_usize, 0..200_u64, 1..80_u64),
        ) {
            let names = ["pack/aa/a", "pack/bb/b", "page/0/c"];
            let mut table = RangeTable::new(1 << 30);
            let mut model = vec![[false; 300]; 3];
            let mut files = std::collections::HashSet::new();
            for (which, start, length) in parts {
                let new = part(names[which], start..start + length);
                files.insert(new.clone());
                for gone in table.insert(&new) {
                    files.remove(&gone);
                }
                (start..start + length).for_each(|at| model[which][usize::try_from(at).unwrap()] = true);
            }
            prop_assert_eq!(table.count(), files.len());
            prop_assert_eq!(table.bytes(), files.iter().map(CachedRange::disk_bytes).sum::<u64>());
            let (which, start, length) = asked;
            let range = start..start + length;
            let there = range.clone().all(|at| model[which][usize::try_from(at).unwrap()]);
            prop_assert_eq!(table.covers(names[which], &range), there);
            match table.cover(names[which], &range) {
                None => prop_assert!(!there),
                Some(pieces) => {
                    prop_assert!(there);
                    let mut at = range.start;
                    for (part, piece) in pieces {
                        prop_assert!(files.contains(&part));
                        prop_assert!(part.range.start <= piece.start && piece.end <= part.range.end);
                        prop_assert_eq!(piece.start, at);
                        at = piece.end;
                    }
                    prop_assert_eq!(at, range.end);
                }
            }
        }
    }
}
