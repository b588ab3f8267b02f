//! Reused buffers for packs on the wire. A fresh 16 MiB for each pack costs 4,000 page faults, and what malloc keeps
//! of it afterwards is memory that no budget counts.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// The buffers of the packs that are being sent.
#[derive(Debug)]
pub(super) struct BufferPool {
    state: Mutex<State>,
    /// How many free buffers are kept at most.
    most: usize,
    /// Bytes of all buffers, on loan or free, beyond which free ones are given up for a new one.
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Vec<u8>>,
    /// Bytes of all buffers.
    total: usize,
}

/// A buffer on loan.
#[derive(Debug)]
pub(super) struct PooledBuffer {
    buffer: Vec<u8>,
    length: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    pub(super) fn new(most: usize, bytes: u64) -> Arc<Self> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Arc::new(Self { state: Mutex::default(), most, bytes })
    }

    /// A buffer of this length; its content is arbitrary.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> PooledBuffer {
        let mut given_up = Vec::new();
        let found = {
            let mut state = self.state.lock();
            let free = &state.free;
            // A large buffer is left for a large pack: while on loan it cannot be given up.
            let is_fit = |n: &usize| (length..=length.saturating_mul(4)).contains(&free[*n].len());
            let fits = (0..free.len()).filter(is_fit);
            let best = fits.min_by_key(|n| free[*n].len());
            let found = best.map(|n| state.free.swap_remove(n));
            if found.is_none() {
                while state.total + length > self.bytes
                    && let Some(buffer) = state.free.pop()
                {
                    state.total -= buffer.len();
                    given_up.push(buffer);
                }
                state.total += length;
            }
            found
        };
        drop(given_up);
        let buffer = found.unwrap_or_else(|| vec![0; length]);
        PooledBuffer { buffer, length, pool: self.clone() }
    }

    /// Frees all unused memory: nothing is on the wire.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        let freed = std::mem::take(&mut state.free);
        state.total -= freed.iter().map(Vec::len).sum::<usize>();
        drop(state);
        drop(freed);
    }
}

impl PooledBuffer {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length]
    }

    /// The bytes, without a copy; the buffer returns to the pool with the last clone.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        if state.free.len() < self.pool.most {
            state.free.push(std::mem::take(&mut self.buffer));
        } else {
            state.total -= self.buffer.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_home_with_their_last_clone_and_are_used_again() {
        let pool = BufferPool::new(2, 100);
        let mut buffer = pool.take(10);
        buffer.as_mut().fill(7);
        let bytes = buffer.into_bytes();
        let at = bytes.as_ptr();
        let clone = bytes.slice(2..4);
        drop(bytes);
        assert!(pool.state.lock().free.is_empty(), "a clone is still out");
        assert_eq!(clone, [7, 7].as_slice());
        drop(clone);
        let shorter = pool.take(3).into_bytes();
        assert_eq!((shorter.as_ptr(), shorter.len()), (at, 3));
        let more: Vec<_> = (0..4).map(|_| pool.take(5)).collect();
        assert_eq!(pool.state.lock().total, 30);
        drop((more, shorter));
        assert_eq!(pool.state.lock().free.len(), 2, "no more than so many are kept");
        pool.clear();
        assert_eq!(pool.state.lock().total, 0);
    }

    #[test]
    fn free_buffers_make_room_for_one_that_none_of_them_can_be() {
        let pool = BufferPool::new(6, 100);
        drop([pool.take(30), pool.take(40)]);
        let large = pool.take(60);
        assert_eq!(pool.state.lock().total, 100 - 10, "the one of 40 went");
        let larger = pool.take(90);
        assert_eq!(pool.state.lock().total, 150, "what is on loan stays");
        drop((large, larger));
        assert_eq!(pool.state.lock().free.len(), 2);
    }
}
