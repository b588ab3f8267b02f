//! Buffers for packs on the wire, used again and again: a fresh 16 MiB for each pack costs 4,000 page faults, and what
//! malloc keeps of it afterwards is memory that no budget counts.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Free buffers, at most as many as packs are sent at once.
#[derive(Debug)]
pub(super) struct Bodies {
    free: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

/// A buffer on loan.
#[derive(Debug)]
pub(super) struct Body {
    buffer: Vec<u8>,
    length: usize,
    home: Arc<Bodies>,
}

impl Bodies {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), most })
    }

    /// A buffer of this length; what is in it is of no meaning.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Body {
        let mut buffer = {
            let mut free = self.free.lock();
            // The smallest that is large enough, else any: it grows once.
            let fits = (0..free.len()).filter(|n| free[*n].len() >= length);
            let best = fits.min_by_key(|n| free[*n].len()).or(free.len().checked_sub(1));
            best.map(|n| free.swap_remove(n)).unwrap_or_default()
        };
        if buffer.len() < length {
            buffer = vec![0; length]; // nothing of the old one is copied
        }
        Body { buffer, length, home: self.clone() }
    }

    /// Gives all memory back: nothing is on the wire.
    pub(super) fn clear(&self) {
        let freed = std::mem::take(&mut *self.free.lock());
        drop(freed);
    }
}

impl Body {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length]
    }

    /// The bytes, without a copy; the buffer comes home with the last clone.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut free = self.home.free.lock();
        if free.len() < self.home.most {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_home_with_their_last_clone_and_are_used_again() {
        let bodies = Bodies::new(2);
        let mut body = bodies.take(10);
        body.as_mut().fill(7);
        let bytes = body.into_bytes();
        let at = bytes.as_ptr();
        let clone = bytes.slice(2..4);
        drop(bytes);
        assert!(bodies.free.lock().is_empty(), "a clone is still out");
        assert_eq!(clone, [7, 7].as_slice());
        drop(clone);
        let shorter = bodies.take(3).into_bytes();
        assert_eq!((shorter.as_ptr(), shorter.len()), (at, 3));
        let more: Vec<_> = (0..4).map(|_| bodies.take(5)).collect();
        drop((more, shorter));
        assert_eq!(bodies.free.lock().len(), 2, "no more than so many are kept");
        bodies.clear();
        assert!(bodies.free.lock().is_empty());
    }
}
