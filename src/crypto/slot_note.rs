//! What people know a key slot by: a label, and when it was made. Sealed, so that the bucket's owner reads neither, and of
//! one length, so that it does not tell the label's.

use minicbor::{Decode, Encode};

use super::{Error, Keys, Place};
use crate::types::Timestamp;

/// Bytes of a label at most.
pub const LABEL_MAX: usize = 64;
/// Of the plaintext: label, time and what CBOR needs.
const LENGTH: usize = 128;

/// The note in a key slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlotNote {
    /// What the owner calls it.
    #[n(0)]
    pub label: String,
    /// When it was made, by the clock of the machine that made it.
    #[n(1)]
    pub made: Timestamp,
}

impl SlotNote {
    /// Of the slot with this salt.
    pub(super) fn seal(&self, keys: &Keys, salt: [u8; 32]) -> Result<Vec<u8>, Error> {
        let mut plain = minicbor::to_vec(self).map_err(|_| Error::Malformed("a slot's note"))?;
        if self.label.len() > LABEL_MAX || plain.len() > LENGTH {
            return Err(Error::Malformed("a slot's label (64 bytes at most)"));
        }
        plain.resize(LENGTH, 0);
        Ok(keys.seal(Place::SlotNote(salt), &plain).to_vec())
    }

    /// Opens one. Zeros follow it.
    pub(super) fn open(keys: &Keys, salt: [u8; 32], sealed: &[u8]) -> Result<Self, Error> {
        let plain = keys.open(Place::SlotNote(salt), sealed)?;
        minicbor::decode(&plain).map_err(|_| Error::Malformed("a slot's note"))
    }
}
