//! A reader follows what other machines write (W5): while in use it looks for the next commit, and applies each one whole.
//!
//! One task looks, and only it changes head and map: it applies a commit, tells the kernel, then moves the head. What cannot
//! be believed changes nothing: the reader stays at the state it shows, and says so. Where the log alone does not lead on
//! (W5), the vault is opened again beside what is shown, with all checks of a mount, and then replaces it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::head_recorder::HeadRecorder;
use super::open::OpenContext;
use super::past::PastDir;
use super::state_dir::StateDir;
use super::superblock;
use super::{Error, Result, VaultOptions};
use crate::cache::Cache;
use crate::checkpoint::{Base, MANIFESTS, manifest_name, newest};
use crate::crypto::EpochEnd;
use crate::index::{self, Index};
use crate::log::{self, Chain, ChainedCommit, Head, Seen, commit_name};
use crate::os;
use crate::store::Bucket;
use crate::types::{
    CommitNo, CurrentGeneration, FollowingStatus, Generation, Hash, MIB, Timestamp, with_causes,
};
use crate::vfs::Vfs;

/// The log is listed at least this often, so that its date is known; otherwise a look is one HEAD.
const LIST_EVERY: Duration = Duration::from_secs(15 * 60);
/// After this many bytes or commits of the log, or this long by the store's clock, a newer checkpoint is looked for as the
/// base (J9).
const BASE_BYTES: u64 = 8 * MIB;
const BASE_COMMITS: u64 = 256;
const BASE_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// How many commits since the base have their hashes kept, to tell a checkpoint of one of them from a foreign one.
const HASHES_MAX: usize = 1 << 16;
/// The longest pause after looks that failed.
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// A reader's rooms, as far as following needs them.
pub(super) struct FollowerParts {
    pub options: Arc<VaultOptions>,
    pub cache: Cache,
    pub index: Index,
    pub vfs: Vfs,
    pub head: Arc<Mutex<Head>>,
    pub recorder: Arc<HeadRecorder>,
    /// Generation of the newest verified superblock.
    pub generation: CurrentGeneration,
}

/// The task that follows the log; it ends when this is dropped.
pub(super) struct Following {
    follower: Arc<Follower>,
    task: JoinHandle<()>,
}

struct Follower {
    parts: FollowerParts,
    bucket: Bucket,
    chain: Chain,
    /// Held during a look, so there is one at a time.
    looking: tokio::sync::Mutex<LookState>,
    status: Mutex<FollowingStatus>,
    /// The cache's count of lacking objects when the base last moved.
    lacked: AtomicU64,
}

/// When the log was listed, by two clocks: one that is never set, and one that goes on while the machine sleeps.
#[derive(Clone, Copy)]
struct LogListed {
    at: Instant,
    day: Timestamp,
}

impl LogListed {
    fn now() -> Self {
        Self { at: Instant::now(), day: Timestamp::now() }
    }

    /// Whether the listing is so recent that no commit since can be gone again.
    fn is_recent(self) -> bool {
        // If the clock was set back, `day` says nothing.
        let is_set_back = Timestamp::now() < self.day;
        self.at.elapsed() < LIST_EVERY && !is_set_back && self.day.age() < LIST_EVERY
    }
}

/// State of the looks, used only under `Follower::looking`.
struct LookState {
    listed: LogListed,
    /// Hashes of the commits since the base.
    applied: BTreeMap<CommitNo, Hash>,
    /// Bytes and commits of the log since a base was last looked for, and when that was, by the store's clock.
    bytes: u64,
    commits: u64,
    base_seen: SystemTime,
    /// The cache's count of lacking objects then.
    lacked: u64,
    /// A commit was applied only in part, sled failed, or a record does not open: the index is made anew before anything else
    /// (J4).
    is_damaged: bool,
    /// Where the index is, if it is not that of the mount.
    dir: Option<PastDir>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end();
    }
}

impl Following {
    /// Starts following; must be called within a runtime. Looks at most once in `every`.
    pub(super) fn start(parts: FollowerParts, every: Duration) -> Self {
        let follower = Arc::new(Follower::new(parts, every));
        let looks = follower.clone();
        let task =
            tokio::spawn(os::restarted("following the log", move || looks.clone().run(every)));
        Self { follower, task }
    }

    /// Ends following.
    pub(super) fn end(&self) {
        self.task.abort();
    }

    pub(super) fn status(&self) -> FollowingStatus {
        self.follower.status.lock().clone()
    }

    /// The cache's count of lacking objects before the last move: these are no trouble any more.
    pub(super) fn lacked(&self) -> u64 {
        self.follower.lacked.load(Ordering::Relaxed)
    }

    /// Looks now, without waiting for the next turn.
    #[cfg(test)]
    pub(super) async fn look(&self) -> Result<()> {
        self.follower.look().await
    }

    /// Runs `meanwhile` with no look beside it, so the state shown stays the same.
    #[cfg(test)]
    pub(super) async fn unmoved<T>(&self, meanwhile: impl Future<Output = T>) -> T {
        let _looking = self.follower.looking.lock().await;
        meanwhile.await
    }
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().seconds).unwrap_or(0)
}

impl Follower {
    fn new(parts: FollowerParts, every: Duration) -> Self {
        let head = *parts.head.lock();
        let looking = LookState {
            listed: LogListed::now(),
            applied: [(head.number, head.hash)].into(),
            bytes: 0,
            commits: 0,
            base_seen: head.seen,
            lacked: 0,
            is_damaged: false,
            dir: None,
        };
        let status = FollowingStatus {
            refresh_seconds: every.as_secs(),
            last_look: now(),
            ..FollowingStatus::default()
        };
        let bucket = parts.options.bucket.in_background();
        Self {
            chain: Chain::new(bucket.clone(), parts.options.unlocked.keys.clone()),
            parts,
            bucket,
            looking: looking.into(),
            status: status.into(),
            lacked: AtomicU64::new(0),
        }
    }

    /// Looks while the mount is used. Nobody waits for a look, and an idle mount requests nothing.
    async fn run(self: Arc<Self>, every: Duration) {
        let mut pause = every;
        loop {
            sleep(pause).await;
            self.parts.vfs.used().await;
            pause = match self.look().await {
                Ok(()) => every,
                Err(_said) => (pause * 2).clamp(every, PAUSE_MAX.max(every)),
            };
        }
    }

    /// Looks once, and updates the status.
    async fn look(&self) -> Result<()> {
        let mut looking = self.looking.lock().await;
        let before = self.head().number;
        let looked = self.look_once(&mut looking).await;
        let head = self.head();
        if head.number > before {
            tracing::debug!(commit = head.number.0, "this mount shows a newer state");
            let recorder = self.parts.recorder.clone();
            // If it cannot be remembered, that is logged, and the next look tries again.
            drop(os::blocking(move || recorder.remember(head.number, head.hash)).await);
        }
        let mut status = self.status.lock();
        match &looked {
            Ok(()) => {
                if status.trouble.take().is_some() {
                    tracing::info!(commit = head.number.0, "this mount follows the vault again");
                }
                (status.last_look, status.failing_since) = (now(), None);
            }
            Err(error) => {
                let said = with_causes(error);
                if status.trouble.as_ref() != Some(&said) {
                    tracing::warn!(
                        commit = head.number.0,
                        error = said,
                        "this mount stays at its state"
                    );
                }
                status.failing_since.get_or_insert_with(now);
                status.trouble = Some(said);
            }
        }
        looked
    }

    fn head(&self) -> Head {
        *self.parts.head.lock()
    }

    async fn look_once(&self, looking: &mut LookState) -> Result<()> {
        // A read of the file system may have found damage.
        looking.is_damaged |= self.parts.index.is_damaged();
        let leads_on = match self.read_on(looking).await {
            Err(Error::Index(index::Error::Damaged(why))) => {
                tracing::warn!(why, "the local index is damaged; it is made anew");
                looking.is_damaged = true;
                false
            }
            read => read?,
        };
        if leads_on { Ok(()) } else { self.open_again(looking).await }
    }

    /// Applies what the log has beyond the head. Returns false if log and index do not lead on, and the vault must be opened
    /// again.
    async fn read_on(&self, looking: &mut LookState) -> Result<bool> {
        let head = self.head();
        let is_short = !looking.is_damaged && looking.listed.is_recent();
        if is_short && !self.is_there(head.number.next()).await? {
            return self.mind_base(looking, None).await.map(|()| true);
        }
        // Lists from the head itself, which is there unless the log was trimmed past it.
        let before = CommitNo(head.number.0.saturating_sub(1));
        let (listed, time) = self.chain.listed(before).await?;
        if looking.is_damaged || !head.vouches_at(time) {
            return Ok(false);
        }
        if listed.last().is_none() && head.number.0 > 0 {
            return Err(Error::Rollback { number: head.number });
        }
        looking.listed = LogListed::now();
        self.parts.head.lock().seen = time;
        if let Some(last) = listed.last() {
            let mut links = self.chain.links((head.number, head.hash), last, &listed);
            loop {
                let link = match links.next().await {
                    Ok(Some(link)) => link,
                    Ok(None) => break,
                    // The log was trimmed past our head: a checkpoint may lead on.
                    Err(log::Error::Gap { .. }) => return Ok(false),
                    Err(error) => return Err(error.into()),
                };
                self.take(looking, link).await?;
            }
        }
        self.mind_base(looking, Some(time)).await.map(|()| true)
    }

    async fn is_there(&self, number: CommitNo) -> Result<bool> {
        match self.bucket.head(&commit_name(number)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies a commit that continues the state shown.
    async fn take(&self, looking: &mut LookState, link: ChainedCommit) -> Result<()> {
        let named = link.content.header.generation;
        if named > self.parts.generation.get() {
            self.verify_superblock(named).await?;
        }
        let changes = link.content.changes()?;
        let (number, hash, size) = (link.number, link.hash, link.size.sealed);
        let index = self.parts.index.clone();
        let apply = move || Ok::<_, Error>(index.follow_commit(&link)?);
        self.parts.vfs.take_in(&changes, apply).await?;
        let mut head = self.parts.head.lock();
        (head.number, head.hash) = (number, hash);
        looking.applied.insert(number, hash);
        if looking.applied.len() > HASHES_MAX {
            looking.applied.pop_first();
        }
        (looking.bytes, looking.commits) = (looking.bytes + size, looking.commits + 1);
        Ok(())
    }

    /// O1: verifies the superblock that a commit names, with the keys of this mount. They include no newer epoch.
    async fn verify_superblock(&self, named: Generation) -> Result<()> {
        let unlocked = &self.parts.options.unlocked;
        let superblock = superblock::newest(&self.bucket, unlocked).await?;
        if superblock.generation < named {
            return Err(Error::OldSuperblock);
        }
        for older in superblock.older.iter().flatten() {
            match older.end() {
                Some(EpochEnd::RETIRED) => unlocked.keys.retire(older.epoch.next()),
                Some(end) => unlocked.keys.end_older(end),
                None => {}
            }
        }
        self.parts.generation.raise(superblock.generation);
        Ok(())
    }

    /// J9: moves to a newer base when much was applied since, or when something was found to be gone.
    async fn mind_base(&self, looking: &mut LookState, time: Option<SystemTime>) -> Result<()> {
        let lacks = self.parts.cache.usage().lacking;
        let age = time.and_then(|time| time.duration_since(looking.base_seen).ok());
        let is_due = looking.bytes >= BASE_BYTES
            || looking.commits >= BASE_COMMITS
            || age.is_some_and(|age| age >= BASE_EVERY);
        if !is_due && lacks == looking.lacked {
            return Ok(());
        }
        let base = manifest_name(self.parts.index.base_commit());
        let (newer, seen) = self.bucket.list_after(MANIFESTS, &base).await?;
        let keys = &self.parts.options.unlocked.keys;
        let manifest = match newer.is_empty() {
            true => None,
            false => newest(&self.bucket, keys).await?.manifest,
        };
        // Reset only now: if the store failed before, the next look asks again.
        (looking.bytes, looking.commits) = (0, 0);
        (looking.base_seen, looking.lacked) = (seen, lacks);
        let Some(manifest) = manifest else { return Ok(()) };
        let commit = manifest.commit;
        // It is beyond what is applied, or of another log. A later one may fit; if the log is another one, reading it shows
        // that.
        if looking.applied.get(&commit) != Some(&manifest.commit_hash) {
            return Ok(());
        }
        let base = Base::new(manifest, keys.clone(), self.parts.cache.clone());
        let index = self.parts.index.clone();
        os::blocking(move || index.rebase(base)).await.map_err(panicked)??;
        looking.applied = looking.applied.split_off(&commit);
        self.lacked.store(lacks, Ordering::Relaxed);
        Ok(())
    }

    /// Opens the vault beside what is shown, as a mount does, and then replaces all of it at once.
    async fn open_again(&self, looking: &mut LookState) -> Result<()> {
        let parts = &self.parts;
        let (before, lacks) = (self.head(), parts.cache.usage().lacking);
        let dir = PastDir::new(&parts.options.state_dir)?;
        let opened = self.survey(&dir, before).await;
        let (index, head) = match opened {
            Err(Error::OldSuperblock) => {
                self.verify_superblock(parts.generation.get().next()).await?;
                self.survey(&dir, before).await?
            }
            opened => opened?,
        };
        (looking.listed, looking.base_seen) = (LogListed::now(), head.seen);
        let is_same = head.number == before.number
            && index.base_commit() == parts.index.base_commit()
            && !looking.is_damaged;
        if is_same {
            parts.head.lock().seen = head.seen;
            return Ok(());
        }
        let shown = parts.index.clone();
        let old_dir = looking.dir.replace(dir);
        let mounted = StateDir { root: parts.options.state_dir.clone() }.index(true);
        let change = move || {
            shown.change_places(&index);
            drop(index);
            // What cannot be removed now is removed when the vault is opened next.
            match old_dir {
                Some(dir) => drop(dir),
                None => drop(Index::wipe(&mounted)),
            }
        };
        os::blocking(change).await.map_err(panicked)?;
        *parts.head.lock() = head;
        looking.is_damaged = false;
        looking.applied = [(head.number, head.hash)].into();
        (looking.bytes, looking.commits, looking.lacked) = (0, 0, lacks);
        self.lacked.store(lacks, Ordering::Relaxed);
        tracing::info!(
            from = before.number.0,
            to = head.number.0,
            "this mount shows the newest state"
        );
        Ok(parts.vfs.forget_what_was().await?)
    }

    async fn survey(&self, dir: &PastDir, head: Head) -> Result<(Index, Head)> {
        let options = &self.parts.options;
        let generation = self.parts.generation.get();
        let context = OpenContext {
            options,
            state_dir: &StateDir { root: options.state_dir.clone() },
            cache: &self.parts.cache,
            chain: self.chain.clone(),
            warnings: Mutex::default(),
            index_dir: dir.index(),
            generation,
            accept_rollback: false,
            known: Some(Seen { number: head.number, hash: head.hash, generation }),
        };
        let (index, survey) = context.survey(None, true).await?;
        Ok((index, survey.head))
    }
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::Local(error.to_string())
}
