//! Commits that were read before, and may still lie on this machine.

use std::fmt;

use bytes::Bytes;

/// Where sealed commits are kept. What comes from it is a commit only where the chain says so, and no witness of what the
/// bucket holds.
pub trait KeptCommits: fmt::Debug + Send + Sync {
    /// The object of this name, if it is here. Short local I/O.
    fn get(&self, name: &str) -> Option<Bytes>;

    /// Keeps it, as long as there is room. Short local I/O.
    fn keep(&self, name: &str, sealed: Bytes);

    /// It is not what it must be.
    fn forget(&self, name: &str);
}
