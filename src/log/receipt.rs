//! Proof that something is in the bucket.

use std::time::SystemTime;

use crate::records::Change;
use crate::types::{CommitNo, Hash, Seq};

/// Proof that commit `number` is in the bucket and is ours: the only thing that turns
/// unsent data into sent while a vault is open (rule C5). Made by the committer alone, when rule C2 says so. (At a mount
/// what rule W1 finds in the verified log does as much: [`super::Journal::note_found`].)
#[derive(Clone, Debug)]
pub struct Receipt {
    number: CommitNo,
    hash: Hash,
    upto: Seq,
    time: SystemTime,
    records: Vec<Change>,
    size: CommitSize,
}

/// How large a commit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSize {
    /// Its transactions.
    pub transactions: u64,
    /// Its sealed bytes.
    pub sealed: u64,
}

impl Receipt {
    pub(super) fn new(
        number: CommitNo,
        hash: Hash,
        upto: Seq,
        time: SystemTime,
        records: Vec<Change>,
        size: CommitSize,
    ) -> Self {
        Self { number, hash, upto, time, records, size }
    }

    /// The commit's number.
    pub fn number(&self) -> CommitNo {
        self.number
    }

    /// SHA-256 of the commit's sealed bytes.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Every transaction of the journal up to this one is in the bucket.
    pub fn upto(&self) -> Seq {
        self.upto
    }

    /// The records of the commit's header, which the index applies now.
    pub fn records(&self) -> &[Change] {
        &self.records
    }

    /// How large the commit is.
    pub fn size(&self) -> CommitSize {
        self.size
    }

    /// When the commit was put or seen, by the store's clock.
    pub fn time(&self) -> SystemTime {
        self.time
    }
}
