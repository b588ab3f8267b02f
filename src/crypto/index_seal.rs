//! Seals of the local index: values under AES-256-GCM, inode numbers in keys through a PRP.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{Array, BlockCipherEncrypt};
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Tag};
use hkdf::Hkdf;
use parking_lot::Mutex;
use sha2::Sha512;

use super::Error;
use super::labels::Label;
use super::symmetric_key::{SymmetricKey, expand};
use crate::types::KeyEpoch;

/// How much longer a sealed value is than its plaintext: session (32), counter (8), tag (16).
const OVERHEAD: usize = 32 + 8 + 16;
const TAG_BYTES: usize = 16;

/// How many ciphers of earlier sessions are kept. A database may hold values of more sessions (each open makes
/// one); those are just slower to read.
const SESSIONS_KEPT: usize = 64;

/// The keys of the local index. A clone shares them.
#[derive(Clone)]
pub struct IndexKeys(Arc<Inner>);

struct Inner {
    values: SymmetricKey,
    numbers: Aes256,
}

impl IndexKeys {
    pub(super) fn new(values: SymmetricKey, numbers: &SymmetricKey) -> Self {
        let numbers: &[u8; 32] = numbers;
        Self(Arc::new(Inner { values, numbers: Aes256::new(numbers.into()) }))
    }

    /// What replaces an inode number in the index's keys: one AES block, so no two numbers share one.
    pub fn prf_ino(&self, ino: u64) -> [u8; 16] {
        let mut block = Array::from([0; 16]);
        block[8..].copy_from_slice(&ino.to_be_bytes());
        self.0.numbers.encrypt_block(&mut block);
        block.into()
    }

    /// Seals and opens values for one open of the database. `random` are 32 bytes drawn for it. No two sessions
    /// may share them, because the nonces count from 0 in each.
    pub fn session(&self, random: [u8; 32]) -> IndexSession {
        IndexSession {
            keys: self.clone(),
            cipher: self.cipher(&random),
            random,
            counter: AtomicU64::new(0),
            earlier: Mutex::default(),
        }
    }

    fn cipher(&self, random: &[u8; 32]) -> Aes256Gcm {
        let hkdf = Hkdf::<Sha512>::new(Some(random), &self.0.values[..]);
        let key = expand(&hkdf, Label::IndexValues, KeyEpoch(0));
        let key: &[u8; 32] = &key;
        Aes256Gcm::new(key.into())
    }
}

impl fmt::Debug for IndexKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IndexKeys(..)")
    }
}

/// Seals values of the index, and opens those of this and earlier sessions (each value names its session).
pub struct IndexSession {
    keys: IndexKeys,
    random: [u8; 32],
    cipher: Aes256Gcm,
    counter: AtomicU64,
    earlier: Mutex<HashMap<[u8; 32], Arc<Aes256Gcm>>>,
}

impl IndexSession {
    /// Seals a value; `aad` is the table and key that it belongs to.
    ///
    /// # Panics
    /// After 2^64 values.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        assert_ne!(counter, u64::MAX, "the counter of nonces is used up");
        let mut value = Vec::with_capacity(plain.len() + OVERHEAD);
        value.extend_from_slice(&self.random);
        value.extend_from_slice(&counter.to_be_bytes());
        value.extend_from_slice(plain);
        let nonce = nonce(counter);
        let sealed = self.cipher.encrypt_inout_detached(
            &nonce.into(),
            aad,
            InOutBuf::from(&mut value[40..]),
        );
        // AES-GCM refuses only plaintext longer than 64 GiB.
        #[allow(clippy::expect_used)]
        value.extend_from_slice(&sealed.expect("a value is short"));
        value
    }

    /// Opens a value that belongs to the table and key `aad`.
    pub fn open(&self, aad: &[u8], value: &[u8]) -> Result<Vec<u8>, Error> {
        let wrong = Error::Length { length: value.len() as u64 };
        let (random, rest) = value.split_first_chunk::<32>().ok_or_else(|| wrong.clone())?;
        let (counter, rest) = rest.split_first_chunk::<8>().ok_or_else(|| wrong.clone())?;
        let (sealed, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(wrong)?;
        let nonce = nonce(u64::from_be_bytes(*counter)).into();
        let mut plain = sealed.to_vec();
        let (buffer, tag) = (InOutBuf::from(&mut plain[..]), Tag::from(*tag));
        let opened = if *random == self.random {
            self.cipher.decrypt_inout_detached(&nonce, aad, buffer, &tag)
        } else {
            self.earlier(random).decrypt_inout_detached(&nonce, aad, buffer, &tag)
        };
        opened.map_err(|_| Error::Tag { index: 0 })?;
        Ok(plain)
    }

    fn earlier(&self, random: &[u8; 32]) -> Arc<Aes256Gcm> {
        let mut earlier = self.earlier.lock();
        if let Some(cipher) = earlier.get(random) {
            return cipher.clone();
        }
        if earlier.len() >= SESSIONS_KEPT {
            earlier.clear();
        }
        let cipher = Arc::new(self.keys.cipher(random));
        earlier.insert(*random, cipher.clone());
        cipher
    }
}

impl fmt::Debug for IndexSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IndexSession(..)")
    }
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{FIRST_EPOCH, Keys, MasterKey, random};
    use crate::types::VaultId;

    fn keys() -> IndexKeys {
        Keys::derive(&MasterKey::from_bytes([7; 32]), VaultId([1; 16]), FIRST_EPOCH).index()
    }

    #[test]
    fn values_open_after_a_reopen_and_only_at_their_key() {
        let first = keys().session(random());
        let values: Vec<_> = (0..100u8).map(|n| first.seal(&[n], &[n; 50])).collect();
        let second = keys().session(random());
        for (n, value) in (0..100u8).zip(&values) {
            assert_eq!(second.open(&[n], value), Ok(vec![n; 50]));
            assert_eq!(first.open(&[n], value), Ok(vec![n; 50]));
            assert!(second.open(&[n + 1], value).is_err());
        }
        assert_ne!(first.seal(b"k", b"v"), first.seal(b"k", b"v"), "a nonce of its own");
    }

    #[test]
    fn more_sessions_than_are_kept_still_open() {
        let last = keys().session(random());
        for _ in 0..SESSIONS_KEPT * 2 {
            let value = keys().session(random()).seal(b"k", b"v");
            assert_eq!(last.open(b"k", &value), Ok(b"v".to_vec()));
        }
        assert!(last.earlier.lock().len() <= SESSIONS_KEPT);
    }

    #[test]
    fn numbers_are_hidden_and_distinct() {
        let keys = keys();
        let all: std::collections::HashSet<_> = (0..1000).map(|ino| keys.prf_ino(ino)).collect();
        assert_eq!(all.len(), 1000);
        assert_eq!(keys.prf_ino(5), super::tests::keys().prf_ino(5));
    }

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn arbitrary_values_do_not_open(value: Vec<u8>) {
            prop_assert!(keys().session([1; 32]).open(b"k", &value).is_err());
        }

        #[test]
        fn changed_values_do_not_open(at in 0usize..OVERHEAD + 20, bit in 0u8..8) {
            let session = keys().session([1; 32]);
            let mut value = session.seal(b"k", &[9; 20]);
            value[at] ^= 1 << bit;
            prop_assert!(session.open(b"k", &value).is_err());
        }
    }
}
