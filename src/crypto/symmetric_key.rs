//! One key of 32 bytes: how it is held, and how HKDF makes it.

use std::ops::{Deref, DerefMut};

use hkdf::Hkdf;
use sha2::Sha512;
use zeroize::Zeroizing;

use super::labels::Label;
use crate::types::KeyEpoch;

/// 32 bytes in one place in memory, so that moving them leaves no copy; wiped when dropped.
pub(super) struct SymmetricKey(Box<Zeroizing<[u8; 32]>>);

impl SymmetricKey {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(Box::new(Zeroizing::new(bytes)))
    }
}

impl Clone for SymmetricKey {
    fn clone(&self) -> Self {
        Self::new(**self.0)
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

/// One 32-byte key from an HKDF that was extracted.
pub(super) fn expand(hkdf: &Hkdf<Sha512>, label: Label, epoch: KeyEpoch) -> SymmetricKey {
    let mut key = SymmetricKey::new([0; 32]);
    // HKDF refuses only what is longer than 255 hashes.
    #[allow(clippy::expect_used)]
    hkdf.expand(&label.info(epoch), &mut key[..]).expect("32 bytes can be expanded");
    key
}
