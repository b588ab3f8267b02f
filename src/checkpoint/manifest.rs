//! The manifest of a checkpoint: which pages make up the map as of a commit.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::page::PAGE_MAX;
use super::{Error, Result};
use crate::crypto::layout;
use crate::crypto::{Keys, Place};
use crate::records::{HISTORY_RUN, Tag, decode_value, encode_value};
use crate::types::{CommitNo, Generation, Hash, MIB, PageId, Timestamp};

/// The longest sealed manifest: 70,000 pages, 70 GiB of metadata.
pub const MANIFEST_MAX: u64 = 16 * MIB;

/// The most bytes of block indexes in a manifest, so that what a new machine reads at its first
/// mount stays small. They cover about 700 pages, some four million records.
const INDEXES_MAX: usize = (MIB) as usize;

/// The prefix of all manifests.
pub const MANIFESTS: &str = "checkpoint/";

/// The object name of the manifest as of commit `number`.
pub fn manifest_name(number: CommitNo) -> String {
    format!("{MANIFESTS}{number}")
}

/// The object name of a page.
pub fn page_name(number: CommitNo, id: PageId) -> String {
    format!("page/{number}/{id}")
}

/// One page: which part of the map it holds, and exactly which sealed message it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PageRef {
    /// The key of its first record. It holds all records from there to the next page's first key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub first_key: Vec<u8>,
    /// The checkpoint that wrote it.
    #[n(1)]
    pub number: CommitNo,
    /// Its random id.
    #[n(2)]
    pub id: PageId,
    /// Length of the object, in bytes.
    #[n(3)]
    pub sealed_length: u64,
    /// Length of the plaintext, in bytes.
    #[n(4)]
    pub plain_length: u64,
    /// Where the block index begins in the plaintext; it extends to the end.
    #[n(5)]
    pub index_offset: u64,
    /// The message's salt.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub salt: [u8; 24],
    /// The message's commitment.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub commitment: [u8; 32],
    /// SHA-256 of the sealed page.
    #[n(8)]
    pub hash: Hash,
    /// How many records it has.
    #[n(9)]
    pub records: u64,
    /// A copy of the page's block index (`plain[index_offset..]`), so that a first look-up costs
    /// one GET. The manifest of a very large map has none (`INDEXES_MAX`).
    #[cbor(n(10), with = "minicbor::bytes")]
    pub index: Option<Vec<u8>>,
}

impl PageRef {
    /// The object's name.
    pub fn name(&self) -> String {
        page_name(self.number, self.id)
    }

    /// The place that its seal is bound to.
    pub fn place(&self) -> Place {
        Place::Page(self.number, self.id)
    }

    fn check(&self, manifest: CommitNo) -> Result<(), &'static str> {
        if self.number > manifest {
            return Err("a page is newer than it");
        }
        if self.plain_length > PAGE_MAX
            || self.sealed_length != layout::sealed_length(self.plain_length)
        {
            return Err("a page's lengths cannot be");
        }
        if self.index_offset == 0
            || !self.index_offset.is_multiple_of(layout::CHUNK)
            || self.index_offset >= self.plain_length
        {
            return Err("a page's block index is outside of the page");
        }
        let index = self.index.as_ref().map(|index| index.len() as u64);
        if index.is_some_and(|length| length != self.plain_length - self.index_offset) {
            return Err("a page's block index has another length");
        }
        if self.first_key.is_empty() || self.records == 0 {
            return Err("a page is empty");
        }
        Ok(())
    }
}

/// What a manifest tells of one table without its pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TableSummary {
    /// The tag that its keys begin with.
    #[n(0)]
    pub tag: u8,
    /// How many records it has.
    #[n(1)]
    pub records: u64,
    /// No key of the table is above this one. The record of this key may be deleted by now.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub bound: Vec<u8>,
}

/// The map as of one commit. Sealed, it is the object `checkpoint/<number>`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// The last commit whose changes are in the map.
    #[n(0)]
    pub commit: CommitNo,
    /// SHA-256 of that commit's sealed bytes.
    #[n(1)]
    pub commit_hash: Hash,
    /// The superblock's generation when it was made.
    #[n(2)]
    pub generation: Generation,
    /// When it was made, by its writer's clock.
    #[n(3)]
    pub time: Timestamp,
    /// The tables that have records, in the map's order.
    #[n(4)]
    pub tables: Vec<TableSummary>,
    /// The sum of all packs' live bytes (rule K3): plaintext bytes of content.
    #[n(5)]
    pub live_bytes: u64,
    /// All pages, in the map's order.
    #[n(6)]
    pub pages: Vec<PageRef>,
    /// The first 16 bytes of each hash of the commits from the last multiple of 256 up to `commit`.
    /// The next history record needs them; keeping them here saves reading those commits again.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub recent: Vec<u8>,
}

impl Manifest {
    /// The object's name.
    pub fn name(&self) -> String {
        manifest_name(self.commit)
    }

    /// [`Manifest::recent`], hash by hash.
    pub fn recent_hashes(&self) -> Vec<[u8; 16]> {
        self.recent.as_chunks::<16>().0.to_vec()
    }

    /// How many records a table has.
    pub fn records(&self, tag: Tag) -> u64 {
        self.table(tag).map_or(0, |table| table.records)
    }

    /// The summary of a table, if it has records.
    pub fn table(&self, tag: Tag) -> Option<&TableSummary> {
        self.tables.iter().find(|table| table.tag == tag.byte())
    }

    /// Sealed bytes of all its pages, as stored in the bucket.
    pub fn page_bytes(&self) -> u64 {
        self.pages.iter().map(|page| page.sealed_length).sum()
    }

    /// Drops the copies of the block indexes if they take too many bytes.
    #[must_use]
    pub(super) fn trimmed(mut self) -> Self {
        let indexes = self.pages.iter().filter_map(|page| page.index.as_ref());
        if indexes.map(Vec::len).sum::<usize>() > INDEXES_MAX {
            self.pages.iter_mut().for_each(|page| page.index = None);
        }
        self
    }

    /// The bytes of the object `checkpoint/<number>`.
    ///
    /// # Errors
    /// If it would be longer than [`MANIFEST_MAX`].
    pub fn seal(&self, keys: &Keys) -> Result<Bytes> {
        let sealed = keys.seal(Place::Manifest(self.commit), &encode_value(self)).into_bytes();
        if sealed.len() as u64 > MANIFEST_MAX {
            return Err(Error::malformed(self.name(), "longer than a manifest can be"));
        }
        Ok(sealed)
    }

    /// Opens and checks the object `checkpoint/<number>`.
    pub fn open(keys: &Keys, number: CommitNo, sealed: &[u8]) -> Result<Self> {
        let name = manifest_name(number);
        if sealed.len() as u64 > MANIFEST_MAX {
            return Err(Error::malformed(name, "longer than a manifest can be"));
        }
        let plain = keys.open(Place::Manifest(number), sealed).map_err(Error::seal(name))?;
        Self::decode(number, &plain)
    }

    /// Reads the plaintext of the manifest `number`.
    pub(super) fn decode(number: CommitNo, plain: &[u8]) -> Result<Self> {
        let manifest: Self = decode_value("manifests", plain)?;
        let name = || manifest_name(number);
        if manifest.commit != number {
            return Err(Error::malformed(name(), "it is of another commit"));
        }
        manifest.check().map_err(|why| Error::malformed(name(), why))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), &'static str> {
        self.pages.iter().try_for_each(|page| page.check(self.commit))?;
        if !self.pages.is_sorted_by(|a, b| a.first_key < b.first_key) {
            return Err("its pages are not in order");
        }
        if !self.tables.is_sorted_by(|a, b| a.tag < b.tag) {
            return Err("its tables are not in order");
        }
        let known = |table: &TableSummary| Tag::from_byte(table.tag).is_some() && table.records > 0;
        if !self.tables.iter().all(|t| known(t) && t.bound.first() == Some(&t.tag)) {
            return Err("a table of it cannot be");
        }
        if self.recent.len() as u64 != recent_length(self.commit) {
            return Err("it does not have the hashes since the last history record");
        }
        let by_page = sum(self.pages.iter().map(|page| page.records));
        if by_page.is_none() || by_page != sum(self.tables.iter().map(|table| table.records)) {
            return Err("its counts do not agree");
        }
        Ok(())
    }
}

/// The expected length of `recent`. Commit 0 does not exist, so it has no hash.
fn recent_length(commit: CommitNo) -> u64 {
    let run = commit.0 % HISTORY_RUN + u64::from(commit.0 >= HISTORY_RUN);
    run * 16
}

fn sum(mut counts: impl Iterator<Item = u64>) -> Option<u64> {
    counts.try_fold(0, u64::checked_add)
}
