//! The master key of one key epoch. Wiped when dropped.

use std::fmt;

use super::random;
use super::symmetric_key::SymmetricKey;

/// The 32 random bytes that everything in a vault hangs on. Never stored but in a key slot.
#[derive(Clone)]
pub struct MasterKey(SymmetricKey);

impl MasterKey {
    /// A new random one.
    pub fn generate() -> Self {
        Self::from_bytes(random())
    }

    /// One that came out of a key slot.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SymmetricKey::new(bytes))
    }

    /// One that `fill` writes where it is to lie, so that no copy is left elsewhere; `None` when it says that there is none.
    pub fn written(fill: impl FnOnce(&mut [u8; 32]) -> Option<()>) -> Option<Self> {
        let mut key = SymmetricKey::new([0; 32]);
        fill(&mut key).map(|()| Self(key))
    }

    /// The bytes; for a pipe to the daemon, never for a file or a log.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}
