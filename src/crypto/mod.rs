//! Keys, seals, key slots, hashes. Pure: no I/O but getrandom(2), and no knowledge of what the sealed
//! bytes mean.
//!
//! Everything sealed in the bucket, the journal, staging and the cache is a Cobblestone-256 message
//! (C2SP `chunked-encryption`) whose context names its [`Place`], under a key of [`Keys`].
//! Plaintext ([`Plain`]), sealed bytes ([`Sealed`]) and keys are different types.

mod chunk_opener;
mod cobblestone;
mod context;
mod epoch_keys;
mod error;
#[cfg(feature = "testing")]
mod fuzzing;
mod hash;
mod index_seal;
mod keys;
mod labels;
pub mod layout;
mod master_key;
mod message;
mod passphrase;
mod recovery;
mod slot_note;
mod slots;
mod symmetric_key;

pub use crate::os::random;
pub use cobblestone::{Opener, Sealer};
pub use context::Place;
pub use epoch_keys::EpochEnd;
pub use error::{Error, RecoveryKeyError};
#[cfg(feature = "testing")]
pub use fuzzing::{fuzz_keys, fuzzed};
pub use hash::{Sha256Stream, same, sha256};
pub use index_seal::{IndexKeys, IndexSession};
pub use keys::{FIRST_EPOCH, Keys};
pub use layout::{HEADER, padme};
pub use master_key::MasterKey;
pub use message::{Plain, Sealed};
pub use passphrase::Passphrase;
pub use recovery::RecoveryKey;
pub use slot_note::{LABEL_MAX, SlotNote};
pub use slots::{Argon2Params, KeySlot, SLOTS_MAX, SlotKind, unlock};
