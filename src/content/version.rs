//! The content of a file as one hash.

use crate::crypto::Sha256Stream;
use crate::types::{Extent, Hash, InodeNo};

/// Hashed first, so that the result equals no other hash in the vault.
const LABEL: &[u8] = b"s3vault version of a file 1\0";

/// Hashes a file's inode number, its size and its extents. Extents are immutable and their ids are never reused, so
/// equal hashes mean equal content, and any change of the content changes the hash. Moving an extent to another pack
/// does not.
#[derive(Debug)]
pub struct VersionHash(Sha256Stream);

impl VersionHash {
    /// Begins with the number and size of a file.
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

    /// Returns the hash.
    pub fn finish(self) -> Hash {
        self.0.finish()
    }
}
