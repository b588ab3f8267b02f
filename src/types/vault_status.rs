//! How a vault is: what `vault` knows, `gateway` shows, and `cli` tells.

use serde::{Deserialize, Serialize};

use super::{AsOf, CommitNo, Hash, Timestamp};

/// What is on its way to the bucket. Its JSON is a part of `status --json`, which scripts rely on: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Sealed bytes of packs that the bucket has not confirmed.
    pub unsent_bytes: u64,
    /// Those packs.
    pub unsent_packs: u64,
    /// Transactions that no confirmed commit holds.
    pub unsent_changes: u64,
    /// Bytes that the store has taken since the vault was opened: while this grows, the link is slow, not dead.
    #[serde(default)]
    pub moved_bytes: u64,
    /// Files with writes that are not published yet: they are open, and were written just now.
    #[serde(rename = "open_files")]
    pub unpublished_files: u64,
    /// Whether another machine has taken over (W3): nothing more will be sent.
    #[serde(skip)]
    pub fenced: bool,
    /// For so many seconds at least there was something to send: as somebody looked, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unsent_seconds: Option<u64>,
    /// What is wrong with the uploads now, if anything.
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

/// What old states hold in the bucket, and what was deleted of it; as of the last deletion in this mount. A part of
/// `status --json`: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldStatesStatus {
    /// Deletions that came to their end since the vault was opened.
    pub runs: u64,
    /// Whether one is under way.
    pub running: bool,
    /// Objects that were deleted since then.
    pub deleted_objects: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Bytes of packs that stay for the retention alone.
    pub retained_bytes: u64,
    /// Bytes of packs that stay for snapshots alone.
    pub pinned_bytes: u64,
    /// Dead bytes in packs that live.
    pub sparse_bytes: u64,
    /// When the last one ended, in seconds since 1970, by this machine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<u64>,
    /// Deletions that the store refused.
    #[serde(default)]
    pub refused_runs: u64,
    /// Why the last one did not come to its end, or the store did not delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What older keys sealed, and is to be sealed with newer ones. A part of `status --json`: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalStatus {
    /// Of key epochs before this one.
    pub before: u32,
    /// Bytes of content that were sealed anew since the vault was opened.
    pub done_bytes: u64,
    /// Bytes of content that are left, about.
    pub left_bytes: u64,
    /// Whether the vault as it is now needs no older key any more.
    pub is_sealed: bool,
    /// Objects that an older key opens, and that are in the bucket for old states; as of the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_objects: Option<u64>,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How a reader follows what others write (W5). A part of `status --json`: fields are only added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowingStatus {
    /// It looks so often at most, while it is used.
    pub refresh_seconds: u64,
    /// When it last saw the end of the log, in seconds since 1970, by this machine's clock.
    pub last_look: u64,
    /// Since when it cannot, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<u64>,
    /// Why it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What a vault has looked for in its cache and asked of the store, since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VaultTraffic {
    /// Look-ups of blocks in memory that found one.
    pub memory_hits: u64,
    /// Those that found none.
    pub memory_misses: u64,
    /// Ranges that were fetched from the bucket, for whoever reads or ahead.
    pub fetches: u64,
    /// Requests to the store that ended: method, what came of them, how many.
    pub requests: Vec<(&'static str, &'static str, u64)>,
    /// Bytes of objects put, repetitions included.
    pub put_bytes: u64,
    /// Bytes of objects fetched.
    pub got_bytes: u64,
    /// Of them, today (UTC).
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
    /// Of which moment it shows the state, if not of now.
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
    /// What is sealed with a newer key, if that was asked for.
    pub renewal: Option<RenewalStatus>,
    /// What was looked for and asked for so far.
    pub traffic: VaultTraffic,
    /// What the user should know: torn tails, changes set aside, a store without conditional puts.
    pub warnings: Vec<String>,
}

/// A vault that holds nothing.
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
            traffic: VaultTraffic::default(),
            warnings: Vec::new(),
        }
    }
}
