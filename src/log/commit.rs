//! A commit: a sealed run of consecutive transactions under a number that is claimed once.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::{Error, Result};
use crate::crypto::{Keys, Place};
use crate::records::{self, Change, Transaction};
use crate::types::{CommitNo, Generation, Hash, MIB, Timestamp, VaultId};

/// A commit's sealed length at most; what is longer is refused before it is read.
pub const COMMIT_MAX: usize = (24 * MIB) as usize;

/// The object of a commit.
pub fn commit_name(number: CommitNo) -> String {
    format!("log/{number}")
}

/// The number in a commit's object name.
pub fn parse_commit_name(name: &str) -> Option<CommitNo> {
    name.strip_prefix("log/")?.parse().ok()
}

/// What a commit says of itself (rule C3).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CommitHeader {
    /// The vault that it belongs to.
    #[n(0)]
    pub vault: VaultId,
    /// Its own number.
    #[n(1)]
    pub number: CommitNo,
    /// SHA-256 of the sealed bytes of the commit before it.
    #[n(2)]
    pub previous: Hash,
    /// The number of the commit that made the claim under which it is written.
    #[n(3)]
    pub claim: CommitNo,
    /// The superblock's generation, as its writer knows it.
    #[n(4)]
    pub generation: Generation,
    /// The writer's clock.
    #[n(5)]
    pub time: Timestamp,
    /// Records that know the commit's number: claim, release, history. Never journaled.
    #[n(6)]
    pub records: Vec<Change>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct EncodedCommit {
    #[n(0)]
    header: CommitHeader,
    #[n(1)]
    transactions: Vec<EncodedTransaction>,
}

/// The transaction's bytes as they were journaled, so that its hash is the same everywhere.
#[derive(Encode, Decode)]
#[cbor(transparent)]
struct EncodedTransaction(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>);

/// A commit, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitContent {
    /// What it says of itself.
    pub header: CommitHeader,
    /// The transactions in order, each as journaled.
    pub transactions: Vec<Bytes>,
}

impl CommitContent {
    /// All changes of the commit in the order in which they apply: header records, then transactions.
    pub fn changes(&self) -> Result<Vec<Change>> {
        let mut changes = self.header.records.clone();
        for bytes in &self.transactions {
            changes.extend(Transaction::decode(bytes)?.changes);
        }
        Ok(changes)
    }
}

/// Seals a commit; the bytes are the object `log/<number>`.
pub fn seal_commit(keys: &Keys, content: &CommitContent) -> Bytes {
    let wire = EncodedCommit {
        header: content.header.clone(),
        transactions: content.transactions.iter().map(|t| EncodedTransaction(t.to_vec())).collect(),
    };
    let plain = records::encode_value(&wire);
    keys.seal(Place::Commit(content.header.number), &plain).into_bytes()
}

/// Opens the object `log/<number>` and checks that it is the commit of that number of this vault.
pub fn open_commit(keys: &Keys, number: CommitNo, sealed: &[u8]) -> Result<CommitContent> {
    let name = commit_name(number);
    if sealed.len() > COMMIT_MAX {
        return Err(Error::malformed(name, "longer than a commit can be"));
    }
    let plain = keys.open(Place::Commit(number), sealed).map_err(Error::seal(name.clone()))?;
    let wire: EncodedCommit = records::decode_value("commits", &plain)?;
    if wire.header.vault != keys.vault() || wire.header.number != number {
        return Err(Error::malformed(name, "it names another vault or number"));
    }
    let transactions = wire.transactions.into_iter().map(|t| t.0.into()).collect();
    Ok(CommitContent { header: wire.header, transactions })
}
