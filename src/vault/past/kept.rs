//! Keeps commits that were read in the cache, where checkpoints find them, too.

use bytes::Bytes;

use crate::cache::Cache;
use crate::log::KeptCommits;

/// The cache, as the log's reader sees it.
#[derive(Debug)]
pub(super) struct CachedCommits(pub Cache);

impl KeptCommits for CachedCommits {
    fn get(&self, name: &str) -> Option<Bytes> {
        self.0.whole_local(name)
    }

    fn keep(&self, name: &str, sealed: Bytes) {
        self.0.insert_whole(name, sealed);
    }

    fn forget(&self, name: &str) {
        self.0.forget(name);
    }
}
