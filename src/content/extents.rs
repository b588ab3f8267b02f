//! Pure arithmetic over a file's records of extents: lists of (offset in the file, extent), sorted by offset and
//! disjoint; what lies between them is a hole.

use std::ops::Range;

use crate::types::Extent;

/// A change of one record of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The record at this offset becomes this.
    Put(u64, Extent),
    /// There is no record at this offset any more.
    Delete(u64),
}

/// The fewest edits that lay `new` over `old`. `old` holds at least every record that overlaps a new piece (more is
/// allowed, and lets neighbours merge that continue each other in one message).
pub fn publish(_old: &[(u64, Extent)], _new: &[(u64, Extent)]) -> Vec<Edit> {
    todo!()
}

/// The edits that cut the file to `size` bytes. `old`: every record that ends beyond `size`.
pub fn truncate(_old: &[(u64, Extent)], _size: u64) -> Vec<Edit> {
    todo!()
}

/// The edits that make a hole of `range`. `old`: every record that overlaps it.
pub fn punch(_old: &[(u64, Extent)], _range: Range<u64>) -> Vec<Edit> {
    todo!()
}

/// The parts of the records that lie in `range`.
pub fn clip(_list: &[(u64, Extent)], _range: Range<u64>) -> Vec<(u64, Extent)> {
    todo!()
}

/// The list as it is after the edits.
pub fn apply(_old: &[(u64, Extent)], _edits: &[Edit]) -> Vec<(u64, Extent)> {
    todo!()
}

/// The first aligned 16 MiB window with more than 64 records: it is to be rewritten.
pub fn fragmented(_list: &[(u64, Extent)]) -> Option<Range<u64>> {
    todo!()
}
