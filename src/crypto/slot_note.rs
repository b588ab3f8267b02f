//! The note of a key slot for people: a label, and when the slot was made. It is sealed, so that the bucket's owner can
//! read neither, and padded to one length, so that it does not reveal the label's.

use minicbor::{Decode, Encode};

use super::{Error, Keys, Place};
use crate::types::Timestamp;

/// The longest label, in bytes.
pub const LABEL_MAX: usize = 64;
/// The length of the plaintext: label, time and CBOR's overhead.
const LENGTH: usize = 128;

/// The note in a key slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SlotNote {
    /// The owner's name for the slot.
    #[n(0)]
    pub label: String,
    /// When the slot was made, by the clock of the machine that made it.
    #[n(1)]
    pub made: Timestamp,
}

impl SlotNote {
    /// Seals the note for the slot with this salt.
    pub(super) fn seal(&self, keys: &Keys, salt: [u8; 32]) -> Result<Vec<u8>, Error> {
        let mut plain = minicbor::to_vec(self).map_err(|_| Error::Malformed("a slot's note"))?;
        if self.label.len() > LABEL_MAX || plain.len() > LENGTH {
            return Err(Error::Malformed("a slot's label (64 bytes at most)"));
        }
        plain.resize(LENGTH, 0);
        Ok(keys.seal(Place::SlotNote(salt), &plain).to_vec())
    }

    /// Opens a note. Its plaintext is followed by zeros.
    pub(super) fn open(keys: &Keys, salt: [u8; 32], sealed: &[u8]) -> Result<Self, Error> {
        let plain = keys.open(Place::SlotNote(salt), sealed)?;
        minicbor::decode(&plain).map_err(|_| Error::Malformed("a slot's note"))
    }
}
