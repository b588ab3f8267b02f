//! The `history` table: a record holds the hashes of a run of commits, so that a commit is known after the log has lost it.

use minicbor::bytes::ByteVec;

use super::Result;
use super::record::{Key, decode_value};
use crate::types::CommitNo;

/// How many commits one record holds.
pub const HISTORY_RUN: u64 = 256;

/// The record that holds the hash of a commit, and which of its hashes that is.
pub fn history_place(number: CommitNo) -> (Key, usize) {
    let at = usize::try_from(number.0 % HISTORY_RUN).unwrap_or(0); // below 256
    (Key::History(number.0 / HISTORY_RUN), at)
}

/// The first 16 bytes of a hash in a record's value; `None` if it is not there.
///
/// # Errors
/// The value is not what it must be.
pub fn hash_in_history(value: &[u8], at: usize) -> Result<Option<[u8; 16]>> {
    let hashes: ByteVec = decode_value("history", value)?;
    Ok(hashes.as_chunks::<16>().0.get(at).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::encode_value;

    #[test]
    fn a_commit_has_one_place_in_one_record() {
        assert_eq!(history_place(CommitNo(255)), (Key::History(0), 255));
        assert_eq!(history_place(CommitNo(256)), (Key::History(1), 0));
        let value = encode_value(&ByteVec::from([[1; 16], [2; 16]].concat()));
        assert_eq!(hash_in_history(&value, 1).unwrap(), Some([2; 16]));
        assert_eq!(hash_in_history(&value, 2).unwrap(), None);
        assert!(hash_in_history(b"x", 0).is_err());
    }
}
