//! AES-256-GCM for chunks, the one cipher that all bytes of files pass.
//!
//! It is ring's (which TLS brings anyway): where the processor has VAES it takes a third of the CPU of `aes-gcm`, which
//! was a quarter of what a large read took in all. ring wipes no keys, so that is done here.

use std::sync::LazyLock;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// What a key is overwritten with.
static BLANK: LazyLock<LessSafeKey> = LazyLock::new(|| expanded(&[0; 32]));

/// The cipher under one message's key: in one place in memory, so that moving it leaves no copy; wiped when dropped.
pub(super) struct ChunkCipher(Box<LessSafeKey>);

impl ChunkCipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(Box::new(expanded(key)))
    }

    /// Seals `bytes` where they are, and returns the tag.
    pub(super) fn seal(&self, nonce: [u8; 12], bytes: &mut [u8]) -> [u8; 16] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut tag = [0; 16];
        // AES-GCM refuses only what is longer than 64 GiB.
        #[allow(clippy::expect_used)]
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), bytes);
        #[allow(clippy::expect_used)]
        tag.copy_from_slice(sealed.expect("a chunk is short").as_ref());
        tag
    }

    /// Opens `bytes` where they are. `false`: they are not what was sealed; then they are zeros.
    pub(super) fn open(&self, nonce: [u8; 12], tag: [u8; 16], bytes: &mut [u8]) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place_separate_tag(nonce, Aad::empty(), tag.into(), bytes, 0..).is_ok()
    }

    fn wipe(&mut self) {
        (*self.0).clone_from(&BLANK);
        // Else the compiler may leave out what nobody reads.
        std::hint::black_box(&mut *self.0);
    }
}

impl Drop for ChunkCipher {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn expanded(key: &[u8; 32]) -> LessSafeKey {
    // Only a key of another length is refused.
    #[allow(clippy::expect_used)]
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("it takes 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wiped_is_no_key_any_more() {
        let sealed = |cipher: &ChunkCipher| {
            let mut bytes = *b"some bytes";
            (cipher.seal([1; 12], &mut bytes), bytes)
        };
        let (mut cipher, blank) = (ChunkCipher::new(&[7; 32]), ChunkCipher::new(&[0; 32]));
        assert_ne!(sealed(&cipher), sealed(&blank));
        cipher.wipe();
        assert_eq!(sealed(&cipher), sealed(&blank));
    }
}
