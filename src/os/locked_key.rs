//! Keys in memory that is neither swapped nor dumped.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use zeroize::Zeroize;

use super::syscalls;

/// One key.
type Slot = [u8; 32];

/// Unused slots. Their pages are kept for the life of the process.
static FREE: Mutex<Vec<&'static mut [Slot]>> = Mutex::new(Vec::new());

/// 32 bytes in a page that holds only keys, is locked (mlock(2)) and is left out of core dumps (`MADV_DONTDUMP`); wiped when
/// dropped. If this user may not lock memory (`ulimit -l`), the page can be swapped like any other, and the log says so.
pub struct LockedKey(&'static mut [Slot]);

impl LockedKey {
    /// A key of zeros.
    #[allow(clippy::new_without_default, reason = "a key of zeros is nothing to begin with")]
    pub fn zeroed() -> Self {
        let mut free = FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if free.is_empty() {
            free.extend(syscalls::secret_page().chunks_mut(1));
        }
        Self(free.pop().unwrap_or_default())
    }
}

impl Deref for LockedKey {
    type Target = Slot;
    fn deref(&self) -> &Slot {
        &self.0[0]
    }
}

impl DerefMut for LockedKey {
    fn deref_mut(&mut self) -> &mut Slot {
        &mut self.0[0]
    }
}

impl Drop for LockedKey {
    fn drop(&mut self) {
        self.zeroize();
        let slot = std::mem::take(&mut self.0);
        FREE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_wiped_and_used_again_and_no_two_keys_share_one() {
        let mut keys: Vec<_> = (0..300).map(|_| LockedKey::zeroed()).collect();
        keys.iter_mut().enumerate().for_each(|(n, key)| key.fill(u8::try_from(n % 251).unwrap()));
        assert!(
            keys.iter()
                .enumerate()
                .all(|(n, key)| key.iter().all(|byte| usize::from(*byte) == n % 251))
        );
        drop(keys);
        assert_eq!(*LockedKey::zeroed(), [0; 32]);
    }
}
