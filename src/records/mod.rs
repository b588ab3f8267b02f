//! The records of the map, the transactions that change them, and their encoding (CBOR).
//!
//! What a vault holds is one ordered map of records. All layers above share these types: the journal and the commits
//! hold transactions, the checkpoints hold the map, and the index combines both.

mod claim;
mod error;
#[cfg(feature = "testing")]
mod fuzzing;
mod history;
mod pin;
mod record;
mod tag;
mod transaction;

pub use claim::{Claimant, WriterClaim};
pub use error::{Error, Result};
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;
pub use history::{HISTORY_RUN, hash_in_history, history_place};
pub use pin::{Horizon, PIN_NAME_MAX, Pin};
pub use record::{
    Entry, Inode, Key, MetaKey, Orphan, Xattr, decode_value, encode_value, encoded_length,
    extent_of,
};
pub use tag::Tag;
pub use transaction::{Change, TRANSACTION_MAX, Transaction};
