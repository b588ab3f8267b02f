//! Memory for large blocks of bytes: aligned to pages, and reused.
//!
//! Fresh memory is expensive: the kernel zeroes each page at its first touch, which took a sixth of the CPU time of a
//! cold read. And aligned memory can be read from and written to a disk without the page cache (`cache/disk_tier.rs`).

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The default of how many bytes of free buffers are kept. It is about what read-ahead has under way, so a running scan
/// takes no new memory.
const KEPT: usize = 48 << 20;
/// The allocator handles blocks below this well enough.
const LEAST: usize = 64 << 10;
/// Lengths are rounded up to this, so that blocks of similar lengths share buffers.
const STEP: usize = 64 << 10;

const PAGE: usize = 4096;

#[derive(Clone, FromBytes, Immutable, IntoBytes)]
#[repr(C, align(4096))]
struct MemoryPage([u8; PAGE]);

/// The free buffers. A clone shares them.
#[derive(Clone)]
pub struct Buffers(Arc<Mutex<Free>>);

#[derive(Default)]
struct Free {
    /// The most recently returned ones are at the end.
    pages: VecDeque<Vec<MemoryPage>>,
    bytes: usize,
    /// How many bytes of free buffers are kept.
    kept: usize,
}

impl Buffers {
    /// The buffers of this process.
    pub fn shared() -> Self {
        static SHARED: LazyLock<Buffers> = LazyLock::new(|| Buffers::keeping(KEPT));
        SHARED.clone()
    }

    fn keeping(kept: usize) -> Self {
        Self(Arc::new(Mutex::new(Free { kept, ..Free::default() })))
    }

    /// From now on keeps at most `bytes` of free buffers, and never more than 48 MiB.
    pub fn keep(&self, bytes: u64) {
        let mut free = self.0.lock();
        free.kept = usize::try_from(bytes).unwrap_or(KEPT).min(KEPT);
        let gone = free.too_much();
        drop(free);
        drop(gone); // frees memory: not under the lock
    }

    /// Room for a block of `length` bytes.
    pub fn take(&self, length: usize) -> Filling {
        if length < LEAST {
            return Filling(FillingBytes::Small(BytesMut::with_capacity(length)));
        }
        let mut free = self.0.lock();
        // Not a much larger one: a block's memory is accounted by its length.
        let fits =
            |pages: &Vec<MemoryPage>| (length..=length + length / 2).contains(&bytes_of(pages));
        let found = free.pages.iter().rposition(fits).and_then(|at| free.pages.remove(at));
        free.bytes -= found.as_deref().map_or(0, bytes_of);
        drop(free);
        let new = || vec![MemoryPage([0; PAGE]); length.next_multiple_of(STEP) / PAGE];
        let pages = found.unwrap_or_else(new);
        Filling(FillingBytes::Large(Filled { pages, length: 0, home: self.clone() }))
    }

    fn give_back(&self, pages: Vec<MemoryPage>) {
        let mut free = self.0.lock();
        free.bytes += bytes_of(&pages);
        free.pages.push_back(pages);
        let gone = free.too_much();
        drop(free);
        drop(gone); // frees memory: not under the lock
    }
}

impl Free {
    /// Takes out the oldest buffers that exceed what is kept.
    fn too_much(&mut self) -> Vec<Vec<MemoryPage>> {
        let mut gone = Vec::new();
        while self.bytes > self.kept
            && let Some(oldest) = self.pages.pop_front()
        {
            self.bytes -= bytes_of(&oldest);
            gone.push(oldest);
        }
        gone
    }
}

fn bytes_of(pages: &[MemoryPage]) -> usize {
    pages.len() * PAGE
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffers({} bytes free)", self.0.lock().bytes)
    }
}

/// A block that is being filled.
pub struct Filling(FillingBytes);

enum FillingBytes {
    Small(BytesMut),
    Large(Filled),
}

impl Filling {
    /// Appends a piece. All pieces together must not exceed the requested length.
    pub fn push(&mut self, piece: &[u8]) {
        match &mut self.0 {
            FillingBytes::Small(bytes) => bytes.extend_from_slice(piece),
            FillingBytes::Large(filled) => {
                filled.next_mut(piece.len()).copy_from_slice(piece);
                filled.length += piece.len();
            }
        }
    }

    /// Lets `write` put a piece of `length` bytes in its place, overwriting what is there. The piece counts if `write`
    /// succeeds.
    pub fn push_with<E>(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match &mut self.0 {
            FillingBytes::Small(bytes) => {
                let at = bytes.len();
                bytes.resize(at + length, 0);
                write(&mut bytes[at..]).inspect_err(|_| bytes.truncate(at))
            }
            FillingBytes::Large(filled) => {
                write(filled.next_mut(length))?;
                filled.length += length;
                Ok(())
            }
        }
    }

    /// Appends `length` zeros.
    pub fn push_zeros(&mut self, length: usize) {
        let zeros = |place: &mut [u8]| {
            place.fill(0);
            Ok(())
        };
        let Ok(()) = self.push_with::<std::convert::Infallible>(length, zeros);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        match &self.0 {
            FillingBytes::Small(bytes) => bytes.len(),
            FillingBytes::Large(filled) => filled.length,
        }
    }

    /// The filled block. Its memory is returned when the last part of it is dropped.
    pub fn freeze(self) -> Bytes {
        match self.0 {
            FillingBytes::Small(bytes) => bytes.freeze(),
            FillingBytes::Large(filled) => Bytes::from_owner(filled),
        }
    }
}

/// Pages whose first `length` bytes are filled.
struct Filled {
    pages: Vec<MemoryPage>,
    length: usize,
    home: Buffers,
}

impl Filled {
    fn all(&self) -> &[u8] {
        self.pages.as_bytes()
    }

    /// The next bytes to fill.
    fn next_mut(&mut self, length: usize) -> &mut [u8] {
        &mut self.pages.as_mut_bytes()[self.length..][..length]
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
        let buffers = Buffers::keeping(KEPT);
        let first = answer(&buffers, 4_198_400, 1);
        let part = first.slice(4_198_000..);
        let at = first.as_ptr();
        assert_eq!((at as usize % PAGE, first.len()), (0, 4_198_400));
        drop(first);
        // A slice keeps the memory.
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
        let buffers = Buffers::keeping(KEPT);
        let at = answer(&buffers, 8 << 20, 1).as_ptr();
        assert_ne!(answer(&buffers, 1 << 20, 2).as_ptr(), at);
        assert_eq!(answer(&buffers, 1000, 3), vec![3; 1000]);
    }

    #[test]
    fn what_was_there_before_is_not_seen() {
        let buffers = Buffers::keeping(KEPT);
        for length in [100, 1 << 20] {
            drop(answer(&buffers, length, 7));
            let mut filling = buffers.take(length);
            filling.push(&[1; 10]);
            let written = filling.push_with(20, |place| {
                place[..5].fill(2);
                Err("not all came")
            });
            assert_eq!((written, filling.len()), (Err("not all came"), 10));
            filling.push_zeros(30);
            let write = |place: &mut [u8]| {
                place.fill(3);
                Ok::<_, ()>(())
            };
            filling.push_with(length - 40, write).unwrap();
            let mut expected = [vec![1; 10], vec![0; 30]].concat();
            expected.resize(length, 3);
            assert!(filling.freeze() == expected);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::keeping(KEPT);
        drop((0..10).map(|n| answer(&buffers, 8 << 20, n)).collect::<Vec<_>>());
        assert!(buffers.0.lock().bytes <= KEPT);
        // What was used last replaces what was used before.
        let at = answer(&buffers, 1 << 20, 1).as_ptr();
        assert_eq!(answer(&buffers, 1 << 20, 2).as_ptr(), at);
        assert!(buffers.0.lock().bytes <= KEPT);
        buffers.keep(4 << 20);
        assert!(buffers.0.lock().bytes <= 4 << 20);
        drop((0..10).map(|n| answer(&buffers, 1 << 20, n)).collect::<Vec<_>>());
        assert_eq!(buffers.0.lock().bytes, 4 << 20);
    }
}
