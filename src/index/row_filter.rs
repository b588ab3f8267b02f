//! Which rows sled may have. Most look-ups are of records that have not changed since the base: they are answered without
//! asking sled, which would read its file for it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard, RwLock};

/// Words of a filter: 1 MiB. Of names that were not added it takes one in 10,000 for added after 200,000 rows, and one in 40
/// after a million.
const WORDS: usize = 1 << 17;
/// How many bits a name sets in its word.
const BITS: u32 = 4;

/// A Bloom filter of names, in which each name has one word.
struct RowFilter {
    words: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl RowFilter {
    fn new() -> Self {
        let words = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words, hasher: RandomState::new() }
    }

    /// A name's word, and its bits in it.
    fn place(&self, name: &[u8]) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(name);
        // The low bits choose the word, the high bits those in it.
        let word = usize::try_from(hash % WORDS as u64).unwrap_or(0);
        let bits = (0..BITS).fold(0, |bits, n| bits | 1 << (hash >> (64 - 6 * (n + 1)) & 63));
        (&self.words[word], bits)
    }

    fn add(&self, name: &[u8]) {
        let (word, bits) = self.place(name);
        word.fetch_or(bits, Relaxed);
    }

    fn may_have(&self, name: &[u8]) -> bool {
        let (word, bits) = self.place(name);
        word.load(Relaxed) & bits == bits
    }
}

/// What is known of the rows of one database. A filter forgets nothing, so it is made anew whenever rows were dropped.
pub(super) struct KnownRows {
    /// Of all rows; `None`: they were not looked through yet. A leaf lock.
    filter: RwLock<Option<Arc<RowFilter>>>,
    /// What the look through the rows that is under way has found so far. It is held while rows are added, from before a filter
    /// has them until sled has: a look that begins later finds them in sled. Taken before `filter`; look-ups do not take it.
    looking: Mutex<Option<Arc<RowFilter>>>,
}

impl KnownRows {
    /// Of a new database.
    pub(super) fn none() -> Self {
        Self { filter: RwLock::new(Some(Arc::new(RowFilter::new()))), looking: Mutex::default() }
    }

    /// Of a database that was there before: it may have every row.
    pub(super) fn unknown() -> Self {
        Self { filter: RwLock::default(), looking: Mutex::default() }
    }

    /// Whether there may be a row of this name, or one that was added under it.
    pub(super) fn may_have(&self, name: &[u8]) -> bool {
        self.filter.read().as_ref().is_none_or(|filter| filter.may_have(name))
    }

    /// Begins to add rows. Hold it until sled has them.
    pub(super) fn adding(&self) -> AddingRows<'_> {
        let looking = self.looking.lock();
        AddingRows { filter: self.filter.read().clone(), looking }
    }

    /// Begins to look through all rows: tell it of each that stays. Of two at once, the later one counts.
    pub(super) fn look_through(&self) -> RowLook<'_> {
        let found = Arc::new(RowFilter::new());
        *self.looking.lock() = Some(found.clone());
        RowLook { known: self, found }
    }
}

/// Rows on their way into the database.
pub(super) struct AddingRows<'a> {
    filter: Option<Arc<RowFilter>>,
    looking: MutexGuard<'a, Option<Arc<RowFilter>>>,
}

impl AddingRows<'_> {
    pub(super) fn add(&self, name: &[u8]) {
        for filter in [&self.filter, &*self.looking].into_iter().flatten() {
            filter.add(name);
        }
    }
}

/// A look through all rows. If it is dropped before its end, what was known before stays.
pub(super) struct RowLook<'a> {
    known: &'a KnownRows,
    found: Arc<RowFilter>,
}

impl RowLook<'_> {
    pub(super) fn add(&self, name: &[u8]) {
        self.found.add(name);
    }

    /// It came to the end.
    pub(super) fn ended(self) {
        let looking = self.known.looking.lock();
        if self.is_under_way(looking.as_ref()) {
            *self.known.filter.write() = Some(self.found.clone());
        }
    }

    fn is_under_way(&self, looking: Option<&Arc<RowFilter>>) -> bool {
        looking.is_some_and(|found| Arc::ptr_eq(found, &self.found))
    }
}

impl Drop for RowLook<'_> {
    fn drop(&mut self) {
        let mut looking = self.known.looking.lock();
        if self.is_under_way(looking.as_ref()) {
            *looking = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> [u8; 8] {
        n.to_be_bytes()
    }

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let known = KnownRows::none();
        let adding = known.adding();
        (0..200_000).for_each(|n| adding.add(&name(n)));
        assert!((0..200_000).all(|n| known.may_have(&name(n))));
        let wrong = (200_000..300_000).filter(|n| known.may_have(&name(*n))).count();
        assert!(wrong < 100, "{wrong} of 100,000"); // about 10
    }

    #[test]
    fn before_the_first_look_there_may_be_everything() {
        let known = KnownRows::unknown();
        known.adding().add(&name(1));
        assert!(known.may_have(&name(1)) && known.may_have(&name(2)));
        // A look that does not come to its end changes nothing.
        drop(known.look_through());
        assert!(known.may_have(&name(2)));
        known.look_through().ended();
        assert!(!known.may_have(&name(1)));
    }

    #[test]
    fn what_is_added_while_a_look_goes_on_is_known_afterwards() {
        let known = KnownRows::none();
        known.adding().add(&name(1)); // and is dropped
        known.adding().add(&name(2));
        let look = known.look_through();
        look.add(&name(2));
        known.adding().add(&name(3));
        assert!([1, 2, 3].iter().all(|n| known.may_have(&name(*n))));
        look.ended();
        assert!(!known.may_have(&name(1)));
        assert!([2, 3].iter().all(|n| known.may_have(&name(*n))));
        assert!(known.looking.lock().is_none());
    }

    #[test]
    fn of_two_looks_the_later_one_counts() {
        let known = KnownRows::unknown();
        let first = known.look_through();
        let second = known.look_through();
        known.adding().add(&name(1)); // after the first one came by
        first.ended();
        assert!(known.may_have(&name(2)), "still unknown");
        second.ended();
        assert!(known.may_have(&name(1)) && !known.may_have(&name(2)));
    }
}
