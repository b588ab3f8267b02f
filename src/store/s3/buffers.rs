//! Memory for the bodies of large answers: aligned to pages, and used again.
//!
//! Fresh memory is dear: the kernel zeroes each page at its first touch, which was a sixth of the CPU of a
//! cold read. And what is aligned can go to disk past the page cache (`cache/disk_tier.rs`).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Answers below this are no trouble to the allocator.
const LEAST: usize = 256 << 10;
/// What is kept for the next answers, in bytes: about what read-ahead has under way, so that a scan takes no new
/// memory once it is going.
const KEPT: usize = 48 << 20;
/// Lengths are rounded up to this, so that answers of about one length share buffers.
const STEP: usize = 256 << 10;

const PAGE: usize = 4096;

#[derive(Clone, FromBytes, Immutable, IntoBytes)]
#[repr(C, align(4096))]
struct MemoryPage([u8; PAGE]);

/// The buffers of one store. A clone shares them.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Free>>);

#[derive(Default)]
struct Free {
    pages: Vec<Vec<MemoryPage>>,
    bytes: usize,
}

impl Buffers {
    /// Room for an answer of `length` bytes.
    pub(super) fn take(&self, length: usize) -> Filling {
        if length < LEAST {
            return Filling::Small(BytesMut::with_capacity(length));
        }
        let mut free = self.0.lock();
        // Not one much too large: the memory that an answer holds is counted by its length.
        let fits =
            |pages: &Vec<MemoryPage>| (length..=length + length / 2).contains(&bytes_of(pages));
        let found = free.pages.iter().position(fits).map(|at| free.pages.swap_remove(at));
        free.bytes -= found.as_deref().map_or(0, bytes_of);
        drop(free);
        let new = || vec![MemoryPage([0; PAGE]); length.next_multiple_of(STEP) / PAGE];
        let pages = found.unwrap_or_else(new);
        Filling::Large(Filled { pages, length: 0, home: self.clone() })
    }

    fn give_back(&self, pages: Vec<MemoryPage>) {
        let mut free = self.0.lock();
        let bytes = bytes_of(&pages);
        if free.bytes + bytes <= KEPT {
            free.bytes += bytes;
            free.pages.push(pages);
        }
    }
}

fn bytes_of(pages: &[MemoryPage]) -> usize {
    pages.len() * PAGE
}

/// An answer on its way into memory.
pub(super) enum Filling {
    Small(BytesMut),
    Large(Filled),
}

impl Filling {
    /// Appends a piece. The sum of all pieces is at most the length that was asked for.
    pub(super) fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Small(bytes) => bytes.extend_from_slice(piece),
            Self::Large(filled) => {
                let (from, end) = (filled.length, filled.length + piece.len());
                filled.all_mut()[from..end].copy_from_slice(piece);
                filled.length = end;
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Large(filled) => filled.length,
        }
    }

    /// The answer; the memory comes back when the last of it is dropped.
    pub(super) fn freeze(self) -> Bytes {
        match self {
            Self::Small(bytes) => bytes.freeze(),
            Self::Large(filled) => Bytes::from_owner(filled),
        }
    }
}

/// Pages of which the first `length` bytes are filled.
pub(super) struct Filled {
    pages: Vec<MemoryPage>,
    length: usize,
    home: Buffers,
}

impl Filled {
    fn all(&self) -> &[u8] {
        self.pages.as_bytes()
    }

    fn all_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut_bytes()
    }
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.all()[..self.length]
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.pages));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(buffers: &Buffers, length: usize, with: u8) -> Bytes {
        let mut filling = buffers.take(length);
        let piece = vec![with; 100_000];
        while filling.len() < length {
            let left = length - filling.len();
            filling.push(&piece[..left.min(piece.len())]);
        }
        filling.freeze()
    }

    #[test]
    fn memory_is_aligned_and_comes_back() {
        let buffers = Buffers::default();
        let first = answer(&buffers, 4_198_400, 1);
        let part = first.slice(4_198_000..);
        let at = first.as_ptr();
        assert_eq!((at as usize % PAGE, first.len()), (0, 4_198_400));
        drop(first);
        // A slice keeps it.
        let second = answer(&buffers, 4_198_400, 2);
        assert_ne!(second.as_ptr(), at);
        assert!(part.iter().all(|byte| *byte == 1));
        drop(part);
        let third = answer(&buffers, 4_100_000, 3);
        assert_eq!(third.as_ptr(), at);
        assert!(third.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn small_answers_and_much_smaller_ones_take_no_large_memory() {
        let buffers = Buffers::default();
        let at = answer(&buffers, 8 << 20, 1).as_ptr();
        assert_ne!(answer(&buffers, 1 << 20, 2).as_ptr(), at);
        assert_eq!(answer(&buffers, 1000, 3), vec![3; 1000]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::default();
        drop((0..10).map(|n| answer(&buffers, 8 << 20, n)).collect::<Vec<_>>());
        assert!(buffers.0.lock().bytes <= KEPT);
    }
}
