//! The order of a listing, the cursors of its pages, and the choice of the best entries in bounded memory.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::HttpProblem;
use super::errors::Result;
use super::s3_key::escape;
use crate::vfs::TreeEntry;

/// What a listing is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// The path, byte by byte.
    Name,
    /// Smallest first.
    Size,
    /// Oldest first.
    Time,
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) sort: Sort,
    pub(super) is_descending: bool,
    /// Whether directories come before everything else.
    pub(super) directories_first: bool,
}

/// The sort key of an entry; unique, since paths are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SortKey {
    order: Order,
    is_last: bool,
    rank: i128,
    path: Vec<u8>,
}

impl Ord for SortKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_rank = (self.rank, &self.path).cmp(&(other.rank, &other.path));
        let by_rank = if self.order.is_descending { by_rank.reverse() } else { by_rank };
        self.is_last.cmp(&other.is_last).then(by_rank)
    }
}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Order {
    /// The sort key of an entry. An order by size or time needs the entry's attributes.
    pub(super) fn sort_key(self, found: &TreeEntry) -> SortKey {
        let rank = match (self.sort, &found.attributes) {
            (Sort::Name, _) | (_, None) => 0,
            (Sort::Size, Some(seen)) => seen.size.into(),
            (Sort::Time, Some(seen)) => {
                i128::from(seen.mtime.seconds) * 1_000_000_000 + i128::from(seen.mtime.nanos)
            }
        };
        let is_last = self.directories_first && !found.is_directory();
        SortKey { order: self, is_last, rank, path: found.path.clone() }
    }

    /// Parses what [`SortKey::cursor`] made.
    pub(super) fn parse(self, cursor: &[u8]) -> Result<SortKey> {
        let bad = || {
            HttpProblem::bad_request(
                "The cursor is not one of this listing. Use `next` as it came, with the same sort, order and filters.",
            )
        };
        let text = std::str::from_utf8(cursor).map_err(|_| bad())?;
        let mut parts = text.splitn(4, '.');
        let [Some(how), Some(last), Some(rank), Some(path)] =
            [parts.next(), parts.next(), parts.next(), parts.next()]
        else {
            return Err(bad());
        };
        let is_last = matches!(last, "1");
        if how != self.word() || !matches!(last, "0" | "1") {
            return Err(bad());
        }
        let rank = rank.parse().map_err(|_| bad())?;
        Ok(SortKey { order: self, is_last, rank, path: percent_decode_str(path).collect() })
    }

    fn word(self) -> &'static str {
        match (self.sort, self.is_descending) {
            (Sort::Name, false) => "n",
            (Sort::Name, true) => "nd",
            (Sort::Size, false) => "s",
            (Sort::Size, true) => "sd",
            (Sort::Time, false) => "t",
            (Sort::Time, true) => "td",
        }
    }
}

impl SortKey {
    /// The cursor that a client sends to get what follows.
    pub(super) fn cursor(&self) -> String {
        let last = u8::from(self.is_last);
        format!("{}.{last}.{}.{}", self.order.word(), self.rank, escape(&self.path))
    }
}

/// The first entries in an order, after a given position, of all that [`Best::show`] is given.
pub(super) struct Best {
    order: Order,
    after: Option<SortKey>,
    room: usize,
    kept: BTreeMap<SortKey, TreeEntry>,
}

impl Best {
    /// Keeps `limit` entries and one more, which tells whether there are more.
    pub(super) fn new(order: Order, after: Option<SortKey>, limit: usize) -> Self {
        Self { order, after, room: limit + 1, kept: BTreeMap::new() }
    }

    pub(super) fn show(&mut self, found: TreeEntry) {
        let key = self.order.sort_key(&found);
        if self.after.as_ref().is_some_and(|after| key <= *after) {
            return;
        }
        if self.kept.len() == self.room {
            if self.kept.last_key_value().is_some_and(|(worst, _)| key > *worst) {
                return;
            }
            self.kept.pop_last();
        }
        self.kept.insert(key, found);
    }

    /// Whether an entry below this directory could still be kept. The directory's path tells that only in an order by
    /// path.
    pub(super) fn may_hold(&self, directory: &[u8]) -> bool {
        if self.order.sort != Sort::Name || self.order.directories_first {
            return true;
        }
        let mut below = directory.to_vec();
        below.push(b'/');
        // All paths below the directory begin with it and stand together in the order.
        let is_before = |key: &SortKey| !key.path.starts_with(&below) && below < key.path;
        let is_after = |key: &SortKey| !key.path.starts_with(&below) && below > key.path;
        let worst = (self.kept.len() == self.room).then(|| self.kept.last_key_value()).flatten();
        let (after, worst) = (self.after.as_ref(), worst.map(|(worst, _)| worst));
        match self.order.is_descending {
            false => !after.is_some_and(is_before) && !worst.is_some_and(is_after),
            true => !after.is_some_and(is_after) && !worst.is_some_and(is_before),
        }
    }

    /// The kept entries in order, and the key after which the next page begins, if there is more.
    pub(super) fn finish(mut self) -> (Vec<TreeEntry>, Option<SortKey>) {
        let has_more = self.kept.len() == self.room;
        if has_more {
            self.kept.pop_last();
        }
        let next = self.kept.last_key_value().filter(|_| has_more).map(|(key, _)| key.clone());
        (self.kept.into_values().collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{InodeNo, Timestamp};
    use crate::vfs::Attributes;

    fn found(path: &str, size: u64, kind: u32) -> TreeEntry {
        let time = Timestamp { seconds: -size.cast_signed(), nanos: 5 };
        let attributes = Attributes {
            ino: InodeNo(2),
            mode: 0,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            created: time,
        };
        TreeEntry {
            parent: InodeNo(1),
            path: path.into(),
            name_length: path.rsplit('/').next().map_or(0, str::len),
            kind,
            ino: InodeNo(2),
            attributes: Some(attributes),
        }
    }

    fn pages(order: Order, all: &[TreeEntry], limit: usize) -> Vec<String> {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let mut best = Best::new(order, after, limit);
            all.iter().for_each(|found| best.show(found.clone()));
            let (page, next) = best.finish();
            assert!(page.len() <= limit);
            listed
                .extend(page.iter().map(|found| String::from_utf8_lossy(&found.path).into_owned()));
            let Some(next) = next else { return listed };
            // The cursor makes the round trip through the client.
            after = Some(order.parse(next.cursor().as_bytes()).unwrap());
            assert_eq!(after, Some(next));
        }
    }

    #[test]
    fn pages_of_any_length_are_the_whole_in_order() {
        let all: Vec<_> = [("b", 3), ("a/x", 1), ("a", 3), ("ä .%", 2), ("c/d/e", 0), ("a.b", 3)]
            .map(|(path, size)| found(path, size, libc::S_IFREG))
            .to_vec();
        let expected: [(Sort, [&str; 6]); 3] = [
            (Sort::Name, ["a", "a.b", "a/x", "b", "c/d/e", "ä .%"]),
            (Sort::Size, ["c/d/e", "a/x", "ä .%", "a", "a.b", "b"]),
            (Sort::Time, ["a", "a.b", "b", "ä .%", "a/x", "c/d/e"]),
        ];
        for (sort, mut paths) in expected {
            for is_descending in [false, true] {
                let order = Order { sort, is_descending, directories_first: false };
                for limit in 1..8 {
                    assert_eq!(pages(order, &all, limit), paths, "{order:?} by {limit}");
                }
                paths.reverse();
            }
        }
    }

    #[test]
    fn directories_come_first_in_either_order() {
        let all = [
            found("a", 1, libc::S_IFREG),
            found("b", 1, libc::S_IFDIR),
            found("c", 1, libc::S_IFREG),
            found("d", 1, libc::S_IFDIR),
        ];
        let order = Order { sort: Sort::Name, is_descending: false, directories_first: true };
        assert_eq!(pages(order, &all, 1), ["b", "d", "a", "c"]);
        assert_eq!(pages(Order { is_descending: true, ..order }, &all, 3), ["d", "b", "c", "a"]);
    }

    #[test]
    fn what_cannot_be_on_the_page_is_not_entered() {
        let order = Order { sort: Sort::Name, is_descending: false, directories_first: false };
        let after = Some(order.sort_key(&found("m/n", 0, libc::S_IFREG)));
        let mut best = Best::new(order, after.clone(), 1);
        assert!(!best.may_hold(b"a") && best.may_hold(b"m") && best.may_hold(b"z"));
        best.show(found("p/q", 0, libc::S_IFREG));
        best.show(found("r", 0, libc::S_IFREG));
        assert!(best.may_hold(b"p") && best.may_hold(b"n") && !best.may_hold(b"s"));
        let down = Order { is_descending: true, ..order };
        let after = Some(down.sort_key(&found("m/n", 0, libc::S_IFREG)));
        let mut best = Best::new(down, after, 1);
        assert!(best.may_hold(b"a") && best.may_hold(b"m") && !best.may_hold(b"z"));
        best.show(found("k", 0, libc::S_IFREG));
        best.show(found("c/d", 0, libc::S_IFREG));
        assert!(!best.may_hold(b"a") && best.may_hold(b"c") && best.may_hold(b"e"));
        let by_size = Order { sort: Sort::Size, ..order };
        assert!(Best::new(by_size, None, 1).may_hold(b"a"));
    }

    #[test]
    fn a_cursor_of_another_listing_is_refused() {
        let order = Order { sort: Sort::Name, is_descending: false, directories_first: false };
        for bad in ["", "n", "n.0.0", "s.0.0.a", "nd.0.0.a", "n.2.0.a", "n.0.x.a", "\u{fc}"] {
            assert!(order.parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(order.parse(b"n.0.0.a%2eb%FF.c").unwrap().path, b"a.b\xff.c");
    }
}
