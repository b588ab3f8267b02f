//! What a range of a file refers to.

use minicbor::{Decode, Encode};

use super::{ExtentId, KeyEpoch, PackId};

/// Names one sealed message in one pack, and exactly that message: salt and commitment
/// are part of it, so that nothing else under the same id opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Reference {
    /// The pack that holds the message.
    #[n(0)]
    pub pack: PackId,
    /// Where in the pack the sealed message begins, in bytes.
    #[n(1)]
    pub offset: u64,
    /// Length of the sealed message (header, chunks and tags), in bytes.
    #[n(2)]
    pub sealed_length: u64,
    /// The extent's own id, bound into its seal.
    #[n(3)]
    pub extent: ExtentId,
    /// Length of the plaintext, in bytes; 1 to `EXTENT_MAX`.
    #[n(4)]
    pub plain_length: u64,
    /// How the plaintext is encoded; 0 = as it is. Nothing else is defined yet.
    #[n(5)]
    pub codec: u8,
    /// The message's salt.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub salt: [u8; 24],
    /// The message's commitment.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub commitment: [u8; 32],
    /// The key epoch that sealed it.
    #[n(8)]
    pub epoch: KeyEpoch,
}

/// A range of a file: `length` bytes from byte `skip` of an extent's plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Extent {
    /// Bytes of the plaintext before the part that is meant.
    #[n(0)]
    pub skip: u64,
    /// Bytes meant; `skip + length` is at most the reference's `plain_length`.
    #[n(1)]
    pub length: u64,
    /// The message.
    #[n(2)]
    pub reference: Reference,
}

impl Extent {
    /// The part of this extent that lies `from..to` bytes into it.
    ///
    /// # Panics
    /// When the part is not inside: the caller clips first.
    #[must_use]
    pub fn part(&self, from: u64, to: u64) -> Self {
        assert!(from <= to && to <= self.length, "{from}..{to} of {}", self.length);
        Self { skip: self.skip + from, length: to - from, reference: self.reference.clone() }
    }
}
