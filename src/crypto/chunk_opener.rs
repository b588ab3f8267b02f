//! AES-256-GCM for opening chunks: everything that is read passes here.
//!
//! The implementation is ring's, which TLS needs anyway. Where the processor has VAES, it takes a third of the CPU time
//! of `aes-gcm`, which was a quarter of all that a large read took. ring does not wipe keys, so this module does.

use std::sync::LazyLock;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// What a key is overwritten with.
static BLANK: LazyLock<LessSafeKey> = LazyLock::new(|| expanded(&[0; 32]));

/// The cipher under one message's key. It stays in one place in memory, so that moving it leaves no copy; it is wiped
/// when dropped.
pub(super) struct ChunkOpener(Box<LessSafeKey>);

impl ChunkOpener {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(Box::new(expanded(key)))
    }

    /// Opens `bytes` in place. `false`: they are not what was sealed; then they are zeros.
    pub(super) fn open(&self, nonce: [u8; 12], tag: [u8; 16], bytes: &mut [u8]) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place_separate_tag(nonce, Aad::empty(), tag.into(), bytes, 0..).is_ok()
    }

    fn wipe(&mut self) {
        (*self.0).clone_from(&BLANK);
        // Otherwise the compiler may drop the write, because nobody reads it.
        std::hint::black_box(&mut *self.0);
    }
}

impl Drop for ChunkOpener {
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
    use aes_gcm::aead::inout::InOutBuf;
    use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

    use super::*;

    #[test]
    fn what_is_wiped_is_no_key_any_more() {
        let (nonce, mut sealed) = ([1; 12], *b"some bytes");
        let cipher = Aes256Gcm::new(&[7; 32].into());
        let bytes = InOutBuf::from(&mut sealed[..]);
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &[], bytes).unwrap();
        let opened = |opener: &ChunkOpener| {
            let mut bytes = sealed;
            (opener.open(nonce, tag.into(), &mut bytes), bytes)
        };
        let mut opener = ChunkOpener::new(&[7; 32]);
        assert_eq!(opened(&opener), (true, *b"some bytes"));
        opener.wipe();
        assert_eq!(opened(&opener), (false, [0; 10]));
    }
}
