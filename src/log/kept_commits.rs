//! Commits that were read before, and may still be on this machine.

use std::fmt;

use bytes::Bytes;

/// Where sealed commits are kept. A kept object counts as a commit only where the chain confirms it, and it proves
/// nothing about what the bucket holds.
pub trait KeptCommits: fmt::Debug + Send + Sync {
    /// The object of this name, if it is here. Short local I/O.
    fn get(&self, name: &str) -> Option<Bytes>;

    /// Keeps the object, as long as there is room. Short local I/O.
    fn keep(&self, name: &str, sealed: Bytes);

    /// Drops the object, because it is not what it must be.
    fn forget(&self, name: &str);
}
