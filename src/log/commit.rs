//! A commit: a sealed run of consecutive transactions under a number that is claimed once.

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::{Error, Result};
use crate::crypto::{self, Keys, Place};
use crate::records::{self, Change, Transaction};
use crate::types::{CommitNo, Generation, Hash, MIB, Timestamp, VaultId};

/// The longest sealed commit; anything longer is refused before it is read.
pub const COMMIT_MAX: usize = (24 * MIB) as usize;

/// The shortest plaintext of a commit: most single changes are shorter.
const PLAIN_MIN: usize = 1 << 10;

/// The object name of a commit.
pub fn commit_name(number: CommitNo) -> String {
    format!("log/{number}")
}

/// The number in a commit's object name.
pub fn parse_commit_name(name: &str) -> Option<CommitNo> {
    name.strip_prefix("log/")?.parse().ok()
}

/// What a commit's header holds (rule C3).
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
    /// The commit that made the claim under which this one is written.
    #[n(3)]
    pub claim: CommitNo,
    /// The superblock's generation, as its writer knows it.
    #[n(4)]
    pub generation: Generation,
    /// The writer's clock.
    #[n(5)]
    pub time: Timestamp,
    /// Records that need the commit's number: claim, release, history. They are never journaled.
    #[n(6)]
    pub records: Vec<Change>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct EncodedCommit<'a> {
    #[n(0)]
    header: CommitHeader,
    #[b(1)]
    transactions: Vec<EncodedTransaction<'a>>,
    /// Zeros, so that the length tells no more than a size class. The length of a lone change would tell how long
    /// a name is.
    #[n(2)]
    padding: Option<ByteVec>,
    /// Empty, if present: for lengths that `padding` alone cannot make.
    #[n(3)]
    more: Option<ByteVec>,
}

impl EncodedCommit<'_> {
    /// Pads the plaintext to [`PLAIN_MIN`], or to the next Padmé length.
    fn padded(mut self) -> Bytes {
        let bare = records::encoded_length(&self);
        // The length of a field of `zeros` bytes: its key, CBOR's head, and the bytes.
        let field = |zeros: usize| match zeros {
            0..24 => 2 + zeros,
            24..256 => 3 + zeros,
            256..65536 => 4 + zeros,
            _ => 6 + zeros,
        };
        let least = (bare + field(0)).max(PLAIN_MIN) as u64;
        let missing = usize::try_from(crypto::padme(least)).unwrap_or(bare).saturating_sub(bare);
        let most = missing.saturating_sub(field(0));
        let fits = |zeros: &usize| field(*zeros) == missing || field(*zeros) + field(0) == missing;
        // CBOR's head takes at most 4 bytes more than that of an empty field.
        let zeros = (most.saturating_sub(6)..=most).rev().find(fits);
        self.padding = zeros.map(|zeros| vec![0; zeros].into());
        self.more = zeros.filter(|zeros| field(*zeros) != missing).map(|_| Vec::new().into());
        records::encode_value(&self)
    }
}

/// A transaction's bytes as they were journaled, so that its hash is the same everywhere.
#[derive(Encode, Decode)]
#[cbor(transparent)]
struct EncodedTransaction<'a>(#[cbor(b(0), with = "minicbor::bytes")] &'a [u8]);

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
        transactions: content.transactions.iter().map(|bytes| EncodedTransaction(bytes)).collect(),
        padding: None,
        more: None,
    };
    let plain = wire.padded();
    keys.seal(Place::Commit(content.header.number), &plain).into_bytes()
}

/// Opens the object `log/<number>` and checks that it is this vault's commit of that number.
pub fn open_commit(keys: &Keys, number: CommitNo, sealed: &[u8]) -> Result<CommitContent> {
    let name = commit_name(number);
    if sealed.len() > COMMIT_MAX {
        return Err(Error::malformed(name, "longer than a commit can be"));
    }
    let plain = keys.open(Place::Commit(number), sealed).map_err(Error::seal(name.clone()))?;
    // The transactions are slices of the plaintext: a commit is long, so memory holds it once.
    let plain = plain.into_bytes();
    let wire: EncodedCommit<'_> = records::decode_value("commits", &plain)?;
    if wire.header.vault != keys.vault() || wire.header.number != number {
        return Err(Error::malformed(name, "it names another vault or number"));
    }
    let transactions = wire.transactions.iter().map(|bytes| plain.slice_ref(bytes.0)).collect();
    Ok(CommitContent { header: wire.header, transactions })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{FIRST_EPOCH, MasterKey};

    proptest! {
        #![proptest_config(crate::types::cases(512))]

        /// Whatever a commit holds, its length is that of its class, and it reads back.
        #[test]
        fn the_length_of_a_commit_is_that_of_its_class(
            length in prop_oneof![0usize..5000, 60_000usize..70_000, 500_000usize..2_200_000],
            number in 1u64..,
        ) {
            let vault = VaultId([3; 16]);
            let keys = Keys::derive(&MasterKey::from_bytes([5; 32]), vault, FIRST_EPOCH);
            let number = CommitNo(number);
            let header = CommitHeader {
                vault, number, previous: Hash([9; 32]), claim: number, generation: Generation(1),
                time: Timestamp { seconds: 1, nanos: 2 }, records: Vec::new(),
            };
            let content = CommitContent { header, transactions: vec![vec![7; length].into()] };
            let sealed = seal_commit(&keys, &content);
            let plain = keys.open(Place::Commit(number), &sealed).unwrap().len();
            prop_assert!(plain >= PLAIN_MIN);
            prop_assert_eq!(crypto::padme(plain as u64), plain as u64);
            prop_assert_eq!(open_commit(&keys, number, &sealed).unwrap(), content);
        }
    }
}
