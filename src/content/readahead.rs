//! (helper `reader`)  How far ahead of a sequential reader to fetch.

use std::ops::Range;

use super::File;

impl File {
    /// The range whose published extents the reader wants for a read of `range`: it, and what read-ahead will fetch.
    pub fn window(&self, _range: Range<u64>) -> Range<u64> {
        todo!()
    }
}
