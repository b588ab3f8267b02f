//! Where things lie in a vault's state directory.

use std::path::PathBuf;

/// Where things lie on this machine.
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
    /// What shows the past has one more.
    pub(super) fn past(&self) -> PathBuf {
        self.root.join("index-past")
    }
    /// A reader has an index of its own: the writer's is at a point of the journal, which a reader does not see.
    pub(super) fn index(&self, read_only: bool) -> PathBuf {
        self.root.join(if read_only { "index-reader" } else { "index" })
    }
}
