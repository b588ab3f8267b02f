//! What a file's content is, as one hash.

use crate::crypto::Sha256Stream;
use crate::types::{Extent, Hash, InodeNo};

/// What is hashed first, so that no other hash of the vault is equal.
const LABEL: &[u8] = b"s3vault version of a file 1\0";

/// Hashes a file's inode number, its size and its extents. Extents are immutable and their ids are never used twice, so
/// equal hashes are equal contents, and whatever changes the content changes the hash. Moving an extent to another pack
/// does not.
#[derive(Debug)]
pub struct VersionHash(Sha256Stream);

impl VersionHash {
    /// Of a file of `size` bytes.
    pub fn new(ino: InodeNo, size: u64) -> Self {
        let mut hash = Sha256Stream::new();
        hash.update(LABEL);
        hash.update(&ino.0.to_be_bytes());
        hash.update(&size.to_be_bytes());
        Self(hash)
    }

    /// Adds the file's next extents, by offset.
    pub fn add(&mut self, list: &[(u64, Extent)]) {
        for (offset, extent) in list {
            let mut record = [0; 40];
            record[..8].copy_from_slice(&offset.to_be_bytes());
            record[8..16].copy_from_slice(&extent.skip.to_be_bytes());
            record[16..24].copy_from_slice(&extent.length.to_be_bytes());
            record[24..].copy_from_slice(&extent.reference.extent.0);
            self.0.update(&record);
        }
    }

    /// The hash.
    pub fn finish(self) -> Hash {
        self.0.finish()
    }
}
