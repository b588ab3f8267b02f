//! The layout of a vault's state directory.

use std::path::PathBuf;

/// The paths in a vault's state directory.
pub(super) struct StateDir {
    pub root: PathBuf,
}

impl StateDir {
    pub(super) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }
    pub(super) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }
    /// A mount that shows the past has an index of its own.
    pub(super) fn past(&self) -> PathBuf {
        self.root.join("index-past")
    }
    /// A reader has its own index: the writer's is at a point of the journal, which a reader does not see.
    pub(super) fn index(&self, read_only: bool) -> PathBuf {
        self.root.join(if read_only { "index-reader" } else { "index" })
    }
}
