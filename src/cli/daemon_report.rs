//! The report of `status`: as text, and as JSON that scripts rely on (fields are only added).

use std::fmt::Write;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::limits::described;
use super::messages;
use crate::gateway::ServiceStatus;
use crate::types::{
    AsOf, FollowingStatus, OldStatesStatus, Progress, RenewalStatus, StoreLimits, Timestamp,
    VaultTraffic,
};

/// What is missing in the bucket, as text.
pub(super) fn describe_progress(progress: &Progress) -> String {
    if progress.is_done() {
        return "everything is in the bucket".to_owned();
    }
    let mut text = format!(
        "{} in {} pack{} and {} change{} not in the bucket yet",
        ByteSize::b(progress.unsent_bytes),
        progress.unsent_packs,
        plural(progress.unsent_packs),
        progress.unsent_changes,
        plural(progress.unsent_changes),
    );
    if progress.unpublished_files > 0 {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            ", {} open file{} being written",
            progress.unpublished_files,
            plural(progress.unpublished_files)
        );
    }
    if let Some(trouble) = &progress.trouble {
        // As above.
        let _ = write!(text, "; the last attempt failed: {trouble}");
    }
    text
}

pub(super) fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The state of a mount's daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Mounted.
    #[default]
    Mounted,
    /// Not mounted, only served.
    Serving,
    /// Unmounted; what is unsent is being sent.
    Finishing,
    /// The daemon does not answer.
    Silent,
}

/// The status of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DaemonReport {
    /// The state of its daemon.
    pub state: State,
    /// The mountpoint (lossy if it is not UTF-8); empty without a mount.
    pub mountpoint: String,
    /// The vault's id.
    pub vault: String,
    /// The bucket's URL.
    pub bucket: String,
    /// The S3 server, if it is not AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The daemon's process.
    pub pid: u32,
    /// Its log.
    pub log: String,
    /// Mounted with `--read-only`.
    pub read_only: bool,
    /// Why nothing may be changed, although it was mounted for writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_reason: Option<String>,
    /// How a reader follows what other machines write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<FollowingStatus>,
    /// What `fsync` waits for: `local` or `bucket`.
    pub fsync: String,
    /// The HTTP service, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceStatus>,
    /// The newest commit known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<NewestCommit>,
    /// The past state that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<PastReport>,
    /// What is still unsent.
    #[serde(flatten)]
    pub progress: Progress,
    /// The number of inodes: files, directories and so on.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Resident bytes of the daemon, and the budget (`--memory`) of its caches and buffers.
    pub memory: BudgetUsage,
    /// Bytes of disk in cache and staging, and their limit.
    pub disk: BudgetUsage,
    /// What old states hold in the bucket, and what was deleted.
    #[serde(default)]
    pub old_states: OldStatesStatus,
    /// Its requests to the store.
    #[serde(default)]
    pub traffic: TrafficReport,
    /// The limits on its use of the store.
    #[serde(default)]
    pub limits: StoreLimits,
    /// The progress of sealing data with a newer key, if that was asked for (`key rotate --rewrite`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<RenewalStatus>,
    /// Changes of this machine that the bucket lacks, and that this mount for reading neither shows nor sends.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsent_not_shown: u64,
    /// Warnings for the user, one per line.
    #[serde(default)]
    pub warnings: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Cache look-ups and requests to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrafficReport {
    /// When the daemon began to count (RFC 3339, UTC).
    pub since: String,
    /// Block look-ups in memory that hit.
    pub memory_hits: u64,
    /// Block look-ups in memory that missed.
    pub memory_misses: u64,
    /// Ranges that were fetched from the store.
    pub fetches: u64,
    /// All requests that failed since then, except those that the store answered with "no".
    pub failed: u64,
    /// PUTs of today (UTC) by this daemon; the next fields count the same way.
    pub puts: u64,
    /// GET.
    pub gets: u64,
    /// HEAD.
    pub heads: u64,
    /// Pages of listings.
    pub lists: u64,
    /// DELETE.
    pub deletes: u64,
    /// Bytes of objects sent.
    pub sent: u64,
    /// Bytes of objects received.
    pub received: u64,
}

/// Outcomes of requests that are not failures.
const ANSWERS: [&str; 3] = ["ok", "not_found", "exists"];

impl TrafficReport {
    pub(super) fn of(traffic: &VaultTraffic, since: String) -> Self {
        let failed = traffic.requests.iter().filter(|(_, what, _)| !ANSWERS.contains(what));
        let today = traffic.today;
        Self {
            since,
            memory_hits: traffic.memory_hits,
            memory_misses: traffic.memory_misses,
            fetches: traffic.fetches,
            failed: failed.map(|(_, _, count)| count).sum(),
            puts: today.puts,
            gets: today.gets,
            heads: today.heads,
            lists: today.lists,
            deletes: today.deletes,
            sent: today.sent,
            received: today.received,
        }
    }
}

/// The newest commit known, for comparison on a machine that never saw the vault.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NewestCommit {
    /// Its number.
    pub number: u64,
    /// When it was made (RFC 3339, UTC).
    pub time: String,
    /// The first bits of its hash.
    pub fingerprint: String,
}

/// A past state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PastReport {
    /// Its last commit.
    pub commit: u64,
    /// When that commit was put (RFC 3339, UTC), by the store's clock.
    pub time: String,
    /// The snapshot by whose name it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

impl PastReport {
    pub(super) fn of(as_of: &AsOf) -> Self {
        let (commit, time) = (as_of.commit.0, messages::when(as_of.time));
        Self { commit, time, snapshot: as_of.snapshot.clone() }
    }

    pub(super) fn describe(&self) -> String {
        let name = self.snapshot.as_ref().map(|name| format!(" (snapshot {name})"));
        format!("as of commit {}, {}{}", self.commit, self.time, name.unwrap_or_default())
    }
}

/// A budget and how much of it is used, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BudgetUsage {
    /// Used now.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

impl DaemonReport {
    /// The report as text.
    pub(super) fn describe(&self) -> String {
        let place = if self.mountpoint.is_empty() { "no mount" } else { &self.mountpoint };
        let mut lines = vec![format!("{place}  ({})", self.state.describe())];
        let mut line = |name: &str, text: String| lines.push(format!("  {name:<12}{text}"));
        let server = self.endpoint.as_ref().map(|url| format!(" (at {url})")).unwrap_or_default();
        line("bucket", format!("{}{server}", self.bucket));
        line("vault", self.vault.clone());
        if self.state == State::Silent {
            line("on its way", "not known; what was closed is safe on this disk".to_owned());
            line("daemon", format!("process {}, log {}", self.pid, self.log));
            return lines.join("\n");
        }
        if let Some(service) = &self.service {
            let requests = service.requests;
            let text =
                format!("{}, {requests} request{}", describe_service(service), plural(requests));
            line("service", text);
        }
        if let Some(head) = &self.head {
            let text = format!(
                "commit {} of {}, fingerprint {}",
                head.number, head.time, head.fingerprint
            );
            line("head", text);
        }
        match (&self.read_only_reason, self.read_only) {
            (Some(reason), _) => line("READ-ONLY", reason.clone()),
            (None, true) => {
                let as_of = self.as_of.as_ref().map(PastReport::describe);
                line("read-only", as_of.unwrap_or_else(|| "as asked".to_owned()));
            }
            (None, false) => line("on its way", describe_progress(&self.progress)),
        }
        if let Some(following) = &self.following {
            line("follows", describe_following(following));
        }
        if self.read_only_reason.is_some() && !self.progress.is_done() {
            line("on its way", describe_progress(&self.progress));
        }
        line("holds", format!("{} files and directories, {}", self.files, ByteSize::b(self.bytes)));
        if self.old_states != OldStatesStatus::default() {
            line("old states", describe_old_states(&self.old_states));
        }
        let limits = described(&self.limits).into_iter();
        let usual = described(&StoreLimits::default());
        let changed: Vec<_> = limits
            .filter(|limit| !usual.contains(limit))
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        if !changed.is_empty() {
            line("limits", changed.join("; "));
        }
        if let Some(renewal) = &self.renewal {
            line("new key", describe_renewal(renewal));
        }
        line("memory", self.memory.describe());
        line("disk", self.disk.describe());
        line("daemon", format!("process {}, log {}", self.pid, self.log));
        for warning in &self.warnings {
            line("warning", warning.clone());
        }
        lines.join("\n")
    }
}

/// How a reader follows other machines, as text.
fn describe_following(following: &FollowingStatus) -> String {
    let at = |seconds| messages::when(Timestamp { seconds, nanos: 0 });
    let at = |seconds: u64| at(i64::try_from(seconds).unwrap_or(i64::MAX));
    let looked = at(following.last_look);
    match (&following.trouble, following.failing_since) {
        (Some(trouble), Some(since)) => format!(
            "NOT since {}: {trouble}; what it shows is right, and as the vault was at {looked}",
            at(since)
        ),
        _ => format!(
            "what other machines write; last looked {looked}, every {} s while it is used",
            following.refresh_seconds
        ),
    }
}

/// What old states hold, and what was deleted, as text.
fn describe_old_states(old: &OldStatesStatus) -> String {
    if old.running && old.runs == 0 {
        return "being looked through for the first time".to_owned();
    }
    let (held, pinned) = (ByteSize::b(old.retained_bytes), ByteSize::b(old.pinned_bytes));
    let mut text = format!("hold {held}, snapshots {pinned}");
    if old.deleted_objects > 0 {
        let (gone, bytes) = (old.deleted_objects, ByteSize::b(old.deleted_bytes));
        // Writing to a String cannot fail; below, too.
        let _ = write!(text, "; deleted so far: {gone} object{} ({bytes})", plural(gone));
    }
    if let Some(trouble) = &old.trouble {
        let _ = write!(text, "; not all could be deleted: {trouble}");
    }
    text
}

/// The progress of sealing with the new key, as text.
fn describe_renewal(renewal: &RenewalStatus) -> String {
    let done = ByteSize::b(renewal.done_bytes);
    let mut text = match (renewal.is_sealed, renewal.old_objects) {
        (false, _) if renewal.done_bytes + renewal.left_bytes == 0 => {
            "what older keys sealed is being looked for".to_owned()
        }
        (false, _) => {
            let left = ByteSize::b(renewal.left_bytes);
            format!("seals what older keys sealed: {done} by this mount, about {left} left")
        }
        (true, None) => "seals all that the vault needs now".to_owned(),
        (true, Some(objects)) => format!(
            "seals all that the vault needs now; for old states {objects} object{} of older keys stay",
            plural(objects)
        ),
    };
    if let Some(trouble) = &renewal.trouble {
        let _ = write!(text, "; it does not go on, and is tried again: {trouble}");
    }
    text
}

/// Where the service listens, and who may use it.
pub(super) fn describe_service(service: &ServiceStatus) -> String {
    let who = match service.tokens {
        _ if service.open && service.url.starts_with("unix:") => {
            "open to whoever may write to the socket".to_owned()
        }
        _ if service.open => "open to anyone on this machine".to_owned(),
        0 => "no tokens yet".to_owned(),
        count => format!("{count} token{}", plural(count as u64)),
    };
    format!("{}, {who}", service.url)
}

impl State {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Mounted => "mounted",
            Self::Serving => "serving",
            Self::Finishing => "ending, sending what is left",
            Self::Silent => "its daemon does not answer",
        }
    }
}

impl BudgetUsage {
    fn describe(self) -> String {
        format!("{} of {}", ByteSize::b(self.used), ByteSize::b(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(describe_progress(&Progress::default()), "everything is in the bucket");
        let progress = Progress {
            moved_bytes: 1 << 20,
            unsent_bytes: 3 << 20,
            unsent_packs: 1,
            unsent_changes: 2,
            unpublished_files: 0,
            fenced: false,
            oldest_unsent_seconds: None,
            trouble: Some("no route".into()),
        };
        assert_eq!(
            describe_progress(&progress),
            "3.0 MiB in 1 pack and 2 changes not in the bucket yet; the last attempt failed: no route"
        );
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_not_said_to_be_done() {
        let silent = DaemonReport { state: State::Silent, pid: 7, ..DaemonReport::default() };
        let text = silent.describe();
        assert!(text.contains("does not answer") && text.contains("process 7"), "{text}");
        assert!(text.contains("not known") && !text.contains("in the bucket"), "{text}");
    }

    #[test]
    fn the_json_is_flat_where_scripts_look() {
        let report = DaemonReport {
            progress: Progress { unsent_bytes: 7, ..Progress::default() },
            ..DaemonReport::default()
        };
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["unsent_bytes"], 7);
        assert_eq!(value["state"], "mounted");
        assert_eq!(serde_json::from_value::<DaemonReport>(value).unwrap(), report);
    }
}
