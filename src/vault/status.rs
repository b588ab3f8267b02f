//! How a vault is, for `status`.

use crate::types::{CommitNo, Hash, Timestamp};

/// What is not in the bucket yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sealed bytes of packs that the bucket has not confirmed.
    pub unsent_bytes: u64,
    /// Those packs.
    pub unsent_packs: u64,
    /// Transactions that no confirmed commit holds.
    pub unsent_changes: u64,
    /// Bytes that the store has taken: while this grows, the link is slow, not dead.
    pub moved_bytes: u64,
    /// Files with writes that are not published yet.
    pub unpublished_files: u64,
    /// Whether another machine has taken over (W3): nothing more will be sent.
    pub fenced: bool,
    /// What is wrong with the uploads now, if anything.
    pub trouble: Option<String>,
}

/// How a vault is.
#[derive(Clone, Debug)]
pub struct VaultStatus {
    /// What is on its way.
    pub progress: Progress,
    /// The last commit that is known to be in the bucket.
    pub head: CommitNo,
    /// SHA-256 of it: what two machines compare.
    pub fingerprint: Hash,
    /// When it was confirmed or read, by the store's clock.
    pub head_time: Timestamp,
    /// Why nothing can be changed, if so.
    pub read_only: Option<String>,
    /// Files, directories and the like.
    pub inodes: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes of staging in use, and its budget.
    pub staging: (u64, u64),
    /// Bytes of the disk cache in use.
    pub cache_disk: u64,
    /// Bytes that staging and disk cache may take together (`--cache-size`).
    pub disk_budget: u64,
    /// What the user should know: torn tails, changes set aside, a store without conditional puts.
    pub warnings: Vec<String>,
}
