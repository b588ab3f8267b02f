//! The status of a vault: `vault` knows it, `gateway` shows it, and `cli` reports it.

use serde::{Deserialize, Serialize};

use super::{AsOf, CommitNo, Hash, Timestamp};

/// What is on its way to the bucket. Its JSON is part of `status --json`, which scripts rely on: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Sealed bytes of packs that the bucket has not confirmed.
    pub unsent_bytes: u64,
    /// The number of those packs.
    pub unsent_packs: u64,
    /// Transactions that no confirmed commit holds.
    pub unsent_changes: u64,
    /// Bytes that the store has taken since the vault was opened. As long as this grows, the link is slow, not dead.
    #[serde(default)]
    pub moved_bytes: u64,
    /// Files with writes that are not published yet: they are open and were written recently.
    #[serde(rename = "open_files")]
    pub unpublished_files: u64,
    /// Whether another machine has taken over (W3): nothing more will be sent.
    #[serde(skip)]
    pub fenced: bool,
    /// For at least how many seconds there has been something to send, as observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unsent_seconds: Option<u64>,
    /// What is currently wrong with the uploads, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Progress {
    /// Whether nothing is on its way.
    pub fn is_done(&self) -> bool {
        self.unsent_bytes == 0
            && self.unsent_packs == 0
            && self.unsent_changes == 0
            && self.unpublished_files == 0
    }
}

/// What old states hold in the bucket, and what was deleted of them, as of the last deletion in this mount. Part of
/// `status --json`: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldStatesStatus {
    /// Deletion runs completed since the vault was opened.
    pub runs: u64,
    /// Whether a run is in progress.
    pub running: bool,
    /// Objects deleted since the vault was opened.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Bytes of packs that are kept only because of the retention.
    pub retained_bytes: u64,
    /// Bytes of packs that are kept only because of snapshots.
    pub pinned_bytes: u64,
    /// Dead bytes in packs that are still referred to.
    pub sparse_bytes: u64,
    /// When the last run ended, in seconds since 1970, by this machine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<u64>,
    /// Deletions that the store refused.
    #[serde(default)]
    pub refused_runs: u64,
    /// Why the last run did not complete, or why the store did not delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What older keys sealed and is to be sealed anew with newer ones. Part of `status --json`: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalStatus {
    /// Content of key epochs before this one is sealed anew.
    pub before: u32,
    /// Bytes of content that were sealed anew since the vault was opened.
    pub done_bytes: u64,
    /// Bytes of content that are left, approximately.
    pub left_bytes: u64,
    /// Whether the current state of the vault needs no older key any more.
    pub is_sealed: bool,
    /// Objects that an older key opens and that the bucket keeps for old states, as of the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_objects: Option<u64>,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How a reader follows what others write (W5). Part of `status --json`: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowingStatus {
    /// The shortest interval between two looks, while the mount is used.
    pub refresh_seconds: u64,
    /// When it last saw the end of the log, in seconds since 1970, by this machine's clock.
    pub last_look: u64,
    /// Since when it cannot follow, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<u64>,
    /// Why it cannot follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What a vault has looked up in its cache and requested from the store since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VaultTraffic {
    /// Look-ups of blocks in memory that found one.
    pub memory_hits: u64,
    /// Those that found none.
    pub memory_misses: u64,
    /// Ranges fetched from the bucket, for readers or ahead of them.
    pub fetches: u64,
    /// Completed requests to the store: method, outcome, count.
    pub requests: Vec<(&'static str, &'static str, u64)>,
    /// Bytes of objects put, including repeated attempts.
    pub put_bytes: u64,
    /// Bytes of objects fetched.
    pub got_bytes: u64,
    /// Requests of today (UTC).
    pub today: RequestsOfADay,
}

/// Requests to a store on one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestsOfADay {
    /// PUT.
    pub puts: u64,
    /// GET.
    pub gets: u64,
    /// HEAD.
    pub heads: u64,
    /// Pages of listings.
    pub lists: u64,
    /// DELETE.
    pub deletes: u64,
    /// Bytes of the bodies put.
    pub sent: u64,
    /// Bytes of the bodies fetched.
    pub received: u64,
}

/// The status of a vault.
#[derive(Clone, Debug)]
pub struct VaultStatus {
    /// What is on its way.
    pub progress: Progress,
    /// The last commit that is known to be in the bucket.
    pub head: CommitNo,
    /// SHA-256 of that commit's sealed bytes: two machines can compare it.
    pub fingerprint: Hash,
    /// When it was confirmed or read, by the store's clock.
    pub head_time: Timestamp,
    /// The past state that it shows, if any.
    pub as_of: Option<AsOf>,
    /// Why nothing can be changed, if so.
    pub read_only: Option<String>,
    /// How it follows what others write, if it does.
    pub following: Option<FollowingStatus>,
    /// Files, directories and the like.
    pub inodes: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes of staging in use, and its budget.
    pub staging: (u64, u64),
    /// Bytes of the disk cache in use.
    pub cache_disk: u64,
    /// Bytes that the index takes on this disk.
    pub index_disk: u64,
    /// Bytes that staging and disk cache may take together (`--cache-size`).
    pub disk_budget: u64,
    /// What old states hold.
    pub old_states: OldStatesStatus,
    /// How far sealing anew with a newer key has come, if that was requested.
    pub renewal: Option<RenewalStatus>,
    /// Changes of this machine that the bucket lacks, if the vault is open for reading: they are neither shown nor sent.
    pub unsent_not_shown: u64,
    /// What was looked up and requested so far.
    pub traffic: VaultTraffic,
    /// What the user should know: torn tails, changes set aside, a store without conditional puts.
    pub warnings: Vec<String>,
}

/// The status of an empty vault.
impl Default for VaultStatus {
    fn default() -> Self {
        Self {
            progress: Progress::default(),
            head: CommitNo(0),
            fingerprint: Hash::ZERO,
            head_time: Timestamp::default(),
            as_of: None,
            read_only: None,
            following: None,
            inodes: 0,
            bytes: 0,
            staging: (0, 0),
            cache_disk: 0,
            index_disk: 0,
            disk_budget: 0,
            old_states: OldStatesStatus::default(),
            renewal: None,
            unsent_not_shown: 0,
            traffic: VaultTraffic::default(),
            warnings: Vec::new(),
        }
    }
}
