//! One key of 32 bytes: how it is held, and how HKDF derives it.

use std::ops::{Deref, DerefMut};

use hkdf::Hkdf;
use sha2::Sha512;
use zeroize::Zeroize;

use super::labels::Label;
use crate::os::LockedKey;
use crate::types::KeyEpoch;

/// 32 bytes in a locked page of memory. Moving the key leaves no copy; it is wiped when dropped.
pub(super) struct SymmetricKey(LockedKey);

impl SymmetricKey {
    /// Takes the bytes, and wipes this function's copy. The caller wipes its own.
    pub(super) fn new(mut bytes: [u8; 32]) -> Self {
        let mut key = LockedKey::zeroed();
        key.copy_from_slice(&bytes);
        bytes.zeroize();
        Self(key)
    }
}

impl Clone for SymmetricKey {
    fn clone(&self) -> Self {
        let mut key = LockedKey::zeroed();
        key.copy_from_slice(&self[..]);
        Self(key)
    }
}

impl Deref for SymmetricKey {
    type Target = [u8; 32];
    fn deref(&self) -> &[u8; 32] {
        &self.0
    }
}

impl DerefMut for SymmetricKey {
    fn deref_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

/// Derives one 32-byte key from an extracted HKDF.
pub(super) fn expand(hkdf: &Hkdf<Sha512>, label: Label, epoch: KeyEpoch) -> SymmetricKey {
    let mut key = SymmetricKey::new([0; 32]);
    // HKDF refuses only output longer than 255 hashes.
    #[allow(clippy::expect_used)]
    hkdf.expand(&label.info(epoch), &mut key[..]).expect("32 bytes can be expanded");
    key
}
