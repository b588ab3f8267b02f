//! Cobblestone-256: <https://c2sp.org/chunked-encryption> with HKDF-Expand-SHA-512 and AES-256-GCM.
//!
//! It passes every Wycheproof vector (tests beside this file). A message is sealed chunk by chunk as it comes, and any chunk
//! opens alone. No plaintext of a chunk is handed out before its tag is verified.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::chunk_opener::ChunkOpener;
use super::layout::{self, CHUNK, CHUNKS_MAX, TAG};
use super::{Error, random};

/// The start of the key derivation's info: specification and AEAD, ended by a zero byte.
const INFO: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";

// Lengths in memory; all far below `usize::MAX`.
const CHUNK_BYTES: usize = 16384;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 56;
const _: () = assert!(CHUNK_BYTES as u64 == CHUNK && TAG_BYTES as u64 == TAG);
const _: () = assert!(HEADER_BYTES as u64 == layout::HEADER);

/// The keys of one message, and its commitment. Sealing and opening use different ciphers: two implementations that check
/// each other.
struct Derived<Cipher> {
    cipher: Cipher,
    base_nonce: [u8; 12],
    commitment: [u8; 32],
}

/// HKDF-Expand-SHA-512 of 76 bytes, with the 32-byte key as PRK. The crate `hkdf` refuses a PRK shorter than the hash; RFC
/// 5869 asks that only of Extract's output, and the specification wants exactly this.
fn derive<Cipher>(
    key: &[u8; 32],
    salt: &[u8; 24],
    context: &[u8],
    cipher: impl FnOnce(&[u8; 32]) -> Cipher,
) -> Derived<Cipher> {
    // A key of any length is valid for HMAC.
    #[allow(clippy::expect_used)]
    let mac = <Hmac<Sha512> as KeyInit>::new_from_slice(key).expect("HMAC takes any key length");
    let block = |previous: &[u8], counter: u8| {
        let mut mac = mac.clone();
        for part in [previous, INFO, salt, context, &[counter]] {
            mac.update(part);
        }
        mac.finalize().into_bytes()
    };
    let mut okm = Zeroizing::new([0; 128]);
    let (first, second) = okm.split_at_mut(64);
    first.copy_from_slice(&block(&[], 1));
    second.copy_from_slice(&block(first, 2));

    let key = Zeroizing::new(take::<32>(&okm, 0));
    Derived { cipher: cipher(&key), base_nonce: take(&okm, 32), commitment: take(&okm, 44) }
}

fn take<const N: usize>(okm: &[u8; 128], from: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&okm[from..from + N]);
    part
}

impl<Cipher> Derived<Cipher> {
    /// Chunk `index`'s nonce: the base nonce XOR the index, big-endian.
    fn nonce(&self, index: u64) -> [u8; 12] {
        let mut nonce = self.base_nonce;
        nonce[4..].iter_mut().zip(index.to_be_bytes()).for_each(|(byte, part)| *byte ^= part);
        nonce
    }
}

/// Seals one message, piece by piece.
///
/// The message is [`Sealer::header`], then what [`Sealer::update`] and [`Sealer::finish`] append. Nothing in it depends on
/// what comes later.
pub struct Sealer {
    derived: Derived<Aes256Gcm>,
    salt: [u8; 24],
    /// Plaintext of the chunk that is not yet full; always shorter than `CHUNK`.
    pending: Zeroizing<Vec<u8>>,
    next: u64,
}

impl Sealer {
    /// A new message under `key`, with a new random salt.
    pub(super) fn new(key: &[u8; 32], context: &[u8]) -> Self {
        let salt = random();
        let derived = derive(key, &salt, context, |key| Aes256Gcm::new(key.into()));
        Self { derived, salt, pending: Zeroizing::default(), next: 0 }
    }

    /// The message's first bytes: salt, then commitment.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..24].copy_from_slice(&self.salt);
        header[24..].copy_from_slice(&self.derived.commitment);
        header
    }

    /// The message's salt.
    pub fn salt(&self) -> [u8; 24] {
        self.salt
    }

    /// The message's commitment to key and place.
    pub fn commitment(&self) -> [u8; 32] {
        self.derived.commitment
    }

    /// Plaintext bytes taken so far.
    pub fn plain_length(&self) -> u64 {
        self.next * CHUNK + self.pending.len() as u64
    }

    /// Plaintext of the chunk that is not yet full (shorter than `CHUNK`), so that it can be read before it is sealed.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Takes more plaintext: appends the chunks that it completes to `out`, and keeps the rest.
    ///
    /// # Panics
    /// After 4 PiB.
    pub fn update(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        let sealed = (self.pending.len() + plain.len()) / CHUNK_BYTES * (CHUNK_BYTES + TAG_BYTES);
        out.reserve(sealed);
        if !self.pending.is_empty() {
            let (now, later) = plain.split_at(plain.len().min(CHUNK_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            plain = later;
            if self.pending.len() < CHUNK_BYTES {
                return;
            }
            let pending = std::mem::take(&mut self.pending);
            self.chunk(&pending, out);
            self.pending = pending;
            self.pending.clear();
        }
        let mut chunks = plain.chunks_exact(CHUNK_BYTES);
        for chunk in &mut chunks {
            self.chunk(chunk, out);
        }
        if !chunks.remainder().is_empty() {
            // Reserved once, so that growing leaves no copy of plaintext behind.
            self.pending.reserve_exact(CHUNK_BYTES);
            self.pending.extend_from_slice(chunks.remainder());
        }
    }

    /// Ends the message: appends its last chunk, which is short and may be empty.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        self.chunk(&pending, out);
    }

    /// Copies a chunk to its place in `out`, and seals it there.
    fn chunk(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        assert!(self.next < CHUNKS_MAX, "a message has at most 2^38 chunks");
        let at = out.len();
        out.reserve(plain.len() + TAG_BYTES);
        out.extend_from_slice(plain);
        let nonce = self.derived.nonce(self.next);
        let bytes = InOutBuf::from(&mut out[at..]);
        let tag = self.derived.cipher.encrypt_inout_detached(&nonce.into(), &[], bytes);
        // AES-GCM refuses only plaintext longer than 64 GiB.
        #[allow(clippy::expect_used)]
        out.extend_from_slice(&tag.expect("a chunk is short"));
        self.next += 1;
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({} chunks)", self.next)
    }
}

/// Opens the chunks of one message, in any order.
pub struct Opener(Derived<ChunkOpener>);

impl Opener {
    /// An opener for the message under `key` whose header holds `salt` and `commitment`. Fails unless the message was sealed
    /// with this key and context.
    pub(super) fn new(
        key: &[u8; 32],
        context: &[u8],
        salt: &[u8; 24],
        commitment: &[u8; 32],
    ) -> Result<Self, Error> {
        let derived = derive(key, salt, context, ChunkOpener::new);
        if bool::from(derived.commitment.ct_eq(commitment)) {
            Ok(Self(derived))
        } else {
            Err(Error::Commitment)
        }
    }

    /// Opens chunk `index` (including its tag) and appends its plaintext to `into`, which is unchanged after an error.
    ///
    /// `last` is whether the chunk ends the message. The last chunk is shorter than `CHUNK`, and every other one is full, so
    /// a truncated message never opens to its end.
    pub fn open_chunk(
        &self,
        index: u64,
        last: bool,
        sealed_chunk: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (sealed, tag) = parted(index, last, sealed_chunk)?;
        let at = into.len();
        into.extend_from_slice(sealed);
        self.open_in_place(index, tag, &mut into[at..]).inspect_err(|_| into.truncate(at))
    }

    /// As [`Opener::open_chunk`], but writes to `place`, which must be as long as the chunk's plaintext. After an error it
    /// holds no plaintext.
    pub fn open_chunk_to(
        &self,
        index: u64,
        last: bool,
        sealed_chunk: &[u8],
        place: &mut [u8],
    ) -> Result<(), Error> {
        let (sealed, tag) = parted(index, last, sealed_chunk)?;
        if place.len() != sealed.len() {
            return Err(Error::Length { length: sealed_chunk.len() as u64 });
        }
        place.copy_from_slice(sealed);
        self.open_in_place(index, tag, place)
    }

    fn open_in_place(
        &self,
        index: u64,
        tag: &[u8; TAG_BYTES],
        place: &mut [u8],
    ) -> Result<(), Error> {
        let opens = self.0.cipher.open(self.0.nonce(index), *tag, place);
        opens.then_some(()).ok_or(Error::Tag { index })
    }

    /// Opens the chunks from `first` on that `sealed` holds (see `layout::sealed_range`), of a message of `plain_length`
    /// bytes. Appends their plaintext to `into`, which is unchanged after an error.
    pub fn open_chunks(
        &self,
        first: u64,
        plain_length: u64,
        sealed: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (at, count) = (into.len(), layout::chunk_count(plain_length));
        let chunks = sealed.chunks(CHUNK_BYTES + TAG_BYTES);
        if chunks.len() as u64 > count.saturating_sub(first) {
            return Err(Error::Length { length: sealed.len() as u64 });
        }
        // As long as it will be: whoever keeps it need not move it.
        into.reserve_exact(sealed.len().saturating_sub(chunks.len() * TAG_BYTES));
        for (index, chunk) in (first..count).zip(chunks) {
            let last = index + 1 == count;
            let expected = layout::chunk_length(index, plain_length) + TAG;
            let opened = if chunk.len() as u64 == expected {
                self.open_chunk(index, last, chunk, into)
            } else {
                Err(Error::Length { length: sealed.len() as u64 })
            };
            if let Err(error) = opened {
                into.truncate(at);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The ciphertext and the tag of chunk `index`, if it has a length that such a chunk can have.
fn parted(index: u64, last: bool, sealed_chunk: &[u8]) -> Result<(&[u8], &[u8; TAG_BYTES]), Error> {
    let fits = |sealed: &[u8]| match last {
        true => sealed.len() < CHUNK_BYTES,
        false => sealed.len() == CHUNK_BYTES,
    };
    sealed_chunk
        .split_last_chunk()
        .filter(|(sealed, _)| fits(sealed) && index < CHUNKS_MAX)
        .ok_or(Error::Length { length: sealed_chunk.len() as u64 })
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

/// Seals a whole message: appends it to `out`, and returns its salt and commitment.
pub(super) fn seal(
    key: &[u8; 32],
    context: &[u8],
    plain: &[u8],
    out: &mut Vec<u8>,
) -> ([u8; 24], [u8; 32]) {
    let mut sealer = Sealer::new(key, context);
    let parts = (sealer.salt(), sealer.commitment());
    out.reserve(plain.len() + HEADER_BYTES + (plain.len() / CHUNK_BYTES + 1) * TAG_BYTES);
    out.extend_from_slice(&sealer.header());
    sealer.update(plain, out);
    sealer.finish(out);
    parts
}

/// Opens a whole message. Allocates no more than the length of `sealed`.
pub(super) fn open(key: &[u8; 32], context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let length = sealed.len() as u64;
    let wrong = Error::Length { length };
    let plain_length = layout::plain_length(length).ok_or_else(|| wrong.clone())?;
    let (salt, rest) = sealed.split_first_chunk::<24>().ok_or_else(|| wrong.clone())?;
    let (commitment, body) = rest.split_first_chunk::<32>().ok_or(wrong)?;
    let opener = Opener::new(key, context, salt, commitment)?;
    let mut plain = Vec::new();
    opener.open_chunks(0, plain_length, body, &mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests;
