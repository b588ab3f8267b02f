//! What the index holds: up to which transaction of which journal, and up to which commit (J4).

use minicbor::{Decode, Encode};

use crate::types::{CommitNo, Hash, JournalId, Seq};

/// The point that the index has reached, stored with the records in one batch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Point {
    /// The journal whose transactions the index has.
    #[n(0)]
    pub journal: JournalId,
    /// The last of them.
    #[n(1)]
    pub seq: Seq,
    /// Its hash.
    #[n(2)]
    pub hash: Hash,
    /// The last commit applied, whether read from the log or confirmed.
    #[n(3)]
    pub commit: CommitNo,
    /// Its hash.
    #[n(4)]
    pub commit_hash: Hash,
    /// The index's own counter of applied changes (J9).
    #[n(5)]
    pub count: u64,
    /// The commit of the base for which the records were trimmed (J9).
    #[n(6)]
    pub base: CommitNo,
    /// That commit's hash: two manifests of one number may be of two histories. A point without it is from an
    /// earlier version of this program, and its index is made anew.
    #[n(10)]
    pub base_hash: Hash,
    /// The number of inodes: files, directories and the like.
    #[n(11)]
    pub inodes: u64,
    /// Bytes of content.
    #[n(12)]
    pub bytes: u64,
}

impl Default for Point {
    /// The point of an empty index.
    fn default() -> Self {
        Self {
            journal: JournalId([0; 16]),
            seq: Seq(0),
            hash: Hash::ZERO,
            commit: CommitNo(0),
            commit_hash: Hash::ZERO,
            count: 0,
            base: CommitNo(0),
            base_hash: Hash::ZERO,
            inodes: 0,
            bytes: 0,
        }
    }
}
