//! SHA-256, in one piece or streamed.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::types::Hash;

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

/// A SHA-256 of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// A hash of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything added.
    pub fn finish(self) -> Hash {
        Hash(self.0.finalize().into())
    }
}

impl std::fmt::Debug for Sha256Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256Stream(..)")
    }
}

/// Whether two hashes are equal, in constant time.
pub fn same(a: &Hash, b: &Hash) -> bool {
    a.0.ct_eq(&b.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streamed_hash_is_the_hash() {
        let mut stream = Sha256Stream::new();
        stream.update(b"ab");
        stream.update(b"");
        stream.update(b"c");
        let whole = sha256(b"abc");
        assert_eq!(stream.finish(), whole);
        assert_eq!(
            whole.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_same_is_the_same() {
        let hash = sha256(b"a");
        assert!(same(&hash, &sha256(b"a")) && !same(&hash, &sha256(b"b")));
        for place in 0..32 {
            let mut other = hash;
            other.0[place] ^= 1;
            assert!(!same(&hash, &other));
        }
    }
}
