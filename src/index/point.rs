//! What the index holds: up to which transaction of which journal, and which commit (J4).

use minicbor::{Decode, Encode};

use crate::types::{CommitNo, Hash, JournalId, Seq};

/// The point that the index has reached, stored with the records in one batch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Point {
    /// The journal whose transactions it has.
    #[n(0)]
    pub journal: JournalId,
    /// The last of them.
    #[n(1)]
    pub seq: Seq,
    /// Its hash.
    #[n(2)]
    pub hash: Hash,
    /// The last commit applied, be it from the log or confirmed.
    #[n(3)]
    pub commit: CommitNo,
    /// Its hash.
    #[n(4)]
    pub commit_hash: Hash,
    /// The index's own counter of applied changes (J9).
    #[n(5)]
    pub count: u64,
    /// The commit of the base below the records.
    #[n(6)]
    pub base: CommitNo,
    /// Inode numbers below this were given or skipped.
    #[n(7)]
    pub next_inode: u64,
    /// Files, directories and the like, beyond those of the base.
    #[n(8)]
    pub inodes: i64,
    /// Bytes of content, beyond those of the base.
    #[n(9)]
    pub bytes: i64,
}

impl Default for Point {
    /// Nothing at all.
    fn default() -> Self {
        Self {
            journal: JournalId([0; 16]),
            seq: Seq(0),
            hash: Hash::ZERO,
            commit: CommitNo(0),
            commit_hash: Hash::ZERO,
            count: 0,
            base: CommitNo(0),
            next_inode: 2,
            inodes: 0,
            bytes: 0,
        }
    }
}
