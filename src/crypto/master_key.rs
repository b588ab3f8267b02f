//! The master key of one key epoch. Wiped when dropped.

use std::fmt;

use super::random;
use super::symmetric_key::SymmetricKey;

/// The 32 random bytes on which everything in a vault depends. Stored only in key slots and, once replaced, under a newer
/// epoch's key.
#[derive(Clone)]
pub struct MasterKey(SymmetricKey);

impl MasterKey {
    /// A new random one.
    pub fn generate() -> Self {
        Self::from_bytes(random())
    }

    /// A master key from a key slot.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SymmetricKey::new(bytes))
    }

    /// A master key that `fill` writes straight to its place, so that no copy is left elsewhere; `None` if `fill` returns
    /// `None`.
    pub fn written(fill: impl FnOnce(&mut [u8; 32]) -> Option<()>) -> Option<Self> {
        let mut key = SymmetricKey::new([0; 32]);
        fill(&mut key).map(|()| Self(key))
    }

    /// The bytes; only for a pipe to the daemon, never for a file or a log.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}
