//! A vault that is open: its rooms, the tasks between them, and how it is closed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::checkpointer::Checkpointer;
use super::closing::Ending;
use super::keeper::{self, Memory};
use super::machine::{MachineLock, make_private};
use super::open::{Opened, Opener, Places, Shares, disk_budget, open_cache, open_content};
use super::room;
use super::status::{Progress, Status};
use super::{Options, Result, manners};
use crate::cache::Cache;
use crate::content::Content;
use crate::index::Index;
use crate::log::{Chain, Head, Journal, Receipt};
use crate::os;
use crate::records::Inode;
use crate::store::Bucket;
use crate::types::{InodeNo, Seq, Timestamp};
use crate::upload;
use crate::upload::{
    Barrier, Hooks, Parts, SYNC_EVERY, Staging, StagingLimits, Steps, UploadLimits, Uploader,
};
use crate::vfs::{self, Durability, DurabilityError, Periodic, Vfs};

/// How long an fsync with `--fsync bucket` waits while nothing gets to the bucket before it fails: longer than one request
/// with its retries. As long as something does it waits on: a slow link is no error.
const BUCKET_FSYNC: Duration = Duration::from_secs(120);
/// So much later the caller's own deadline may come: whoever fails first can say why.
const LATER: Duration = Duration::from_secs(5);

/// An open vault.
pub struct Vault {
    options: Options,
    vfs: Vfs,
    content: Content,
    pub(super) index: Index,
    cache: Cache,
    pub(super) head: Arc<Mutex<Head>>,
    warnings: Vec<String>,
    pub(super) writer: Option<Writer>,
    /// Last: nothing of ours is at work when another may come.
    _lock: MachineLock,
}

/// Taken out when the vault is closed.
type Sending = Arc<Mutex<Option<Arc<Uploader>>>>;

/// What only a writer has.
pub(super) struct Writer {
    pub(super) journal: Arc<Journal>,
    staging: Staging,
    pub(super) barrier: Barrier,
    pub(super) uploader: Sending,
    checkpointer: Arc<Checkpointer>,
    pub(super) memory: Arc<Memory>,
    tasks: Vec<JoinHandle<()>>,
    restarts: os::Restarts,
    pub(super) periodic: Mutex<Option<Periodic>>,
    /// Held by whoever closes the vault.
    pub(super) ending: tokio::sync::Mutex<Ending>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// `fsync`, for the vfs.
struct ToDisk {
    barrier: Barrier,
    uploader: Sending,
    content: Content,
    staging: Staging,
    bucket: Bucket,
}

#[async_trait]
impl Durability for ToDisk {
    async fn fsync(&self, upto: Seq) -> Result<(), DurabilityError> {
        self.barrier.sync(upto).await.map_err(|error| match error {
            // Of all rooms' errors the one that the caller of fsync must tell apart.
            upload::Error::Full => std::io::Error::from(std::io::ErrorKind::StorageFull).into(),
            error => error.into(),
        })
    }

    async fn bucket(&self, upto: Seq) -> Result<(), DurabilityError> {
        self.content.close_packs()?;
        let uploader = self.uploader.lock().clone();
        let uploader = uploader.ok_or("the vault is being closed")?;
        let moves = || vfs::takes(BUCKET_FSYNC + LATER);
        Ok(uploader.sync_while_moving(upto, BUCKET_FSYNC, moves).await?)
    }

    /// What the store has; while it takes nothing, what staging can still hold.
    fn free(&self) -> Option<u64> {
        let uploader = self.uploader.lock().clone();
        if uploader.is_none_or(|uploader| uploader.status().trouble.is_empty()) {
            return self.bucket.free();
        }
        let usage = self.staging.usage();
        Some(usage.budget.saturating_sub(usage.used + usage.reserved))
    }

    fn carried(&self) -> u64 {
        self.uploader.lock().as_ref().map_or(0, |uploader| uploader.carried())
    }
}

/// A reader has nothing to make durable.
struct Nothing;

#[async_trait]
impl Durability for Nothing {
    async fn fsync(&self, _: Seq) -> Result<(), DurabilityError> {
        Ok(())
    }
    async fn bucket(&self, _: Seq) -> Result<(), DurabilityError> {
        Ok(())
    }
    fn free(&self) -> Option<u64> {
        None
    }
    fn carried(&self) -> u64 {
        0
    }
}

impl Vault {
    /// Opens a vault and starts its tasks. Within a runtime.
    ///
    /// # Errors
    /// See [`super::Error`]; nothing local was changed if the journal is damaged (J3).
    pub async fn open(options: Options) -> Result<Arc<Self>> {
        if !options.read_only {
            room::check(&options)?;
        }
        make_private(&options.state_dir)?;
        // Before anything is looked at: a daemon that lives, in whatever namespaces, is not disturbed.
        let lock = options.machine.lock(
            options.unlocked.vault,
            &options.state_dir,
            &options.mountpoint,
            options.read_only,
        )?;
        let warnings = options.machine.warning.iter().cloned().collect();
        let places = Places { root: options.state_dir.clone() };
        if !options.read_only {
            // Before anything local is touched: a damaged journal leaves all as it is.
            Journal::inspect(&places.journal(), &options.unlocked.keys)?;
        }
        let cache = open_cache(&options, &places)?;
        let chain = Chain::new(options.bucket.clone(), options.unlocked.keys.clone());
        let warnings = Mutex::new(warnings);
        let opener = Opener { options: &options, places: &places, cache: &cache, chain, warnings };
        if options.read_only {
            let (index, survey) = opener.survey(None, true).await?;
            // O2 is for readers too: what they saw must not go back unnoticed.
            let (dir, keys) = (options.machine.data_dir.clone(), options.unlocked.keys.clone());
            let memory = Memory::new(dir, keys, options.unlocked.generation);
            memory.remember(survey.head.number, survey.head.hash);
            let warnings = opener.warnings.into_inner();
            return Ok(Arc::new(Self::reader(options, cache, index, survey.head, warnings, lock)?));
        }
        manners::recall(&options);
        let warning = opener.check_conditional_puts().await?;
        let mut opened = opener.writer().await?;
        manners::remember(&options);
        opened.warnings.extend(opener.warnings.into_inner());
        opened.warnings.extend(warning);
        Self::writer(options, cache, opened, lock).await
    }

    fn reader(
        options: Options,
        cache: Cache,
        index: Index,
        head: Head,
        warnings: Vec<String>,
        lock: MachineLock,
    ) -> Result<Self> {
        index.make_read_only("it was mounted with --read-only");
        let staging = options.state_dir.join("reader");
        make_private(&staging)?;
        let staging = Staging::open(&staging, StagingLimits::default())?;
        let content = open_content(&options, &cache, &staging, 0);
        let how = vfs::Options { read_only: true, fsync: options.fsync };
        let vfs = Vfs::new(index.clone(), content.clone(), Arc::new(Nothing), how, Seq(0));
        let head = Arc::new(Mutex::new(head));
        let writer = None;
        Ok(Self { options, vfs, content, index, cache, head, warnings, writer, _lock: lock })
    }

    async fn writer(
        options: Options,
        cache: Cache,
        opened: Opened,
        lock: MachineLock,
    ) -> Result<Arc<Self>> {
        let Opened { index, journal, staging, committer, survey, claim, warnings } = opened;
        let budget = disk_budget(&options.state_dir, options.cache_size) / 2;
        let content = open_content(&options, &cache, &staging, budget);
        let barrier = barrier(&staging, &journal, &cache);
        let generation = options.unlocked.generation;
        let keys = options.unlocked.keys.clone();
        let dir = options.machine.data_dir.clone();
        let memory = Memory::new(dir, keys.clone(), generation);
        memory.remember(claim.number(), claim.hash());
        let (number, hash, seen) = (claim.number(), claim.hash(), claim.time());
        let head = Arc::new(Mutex::new(Head { number, hash, seen }));
        let checkpointer = Checkpointer::new(
            (keys, options.bucket.clone(), cache.clone()),
            index.clone(),
            generation,
            survey.since,
            number,
        );
        let hooks = hooks(&index, &memory, &checkpointer, &head);
        let parts = Parts {
            staging: staging.clone(),
            journal: journal.clone(),
            committer,
            bucket: options.bucket.clone(),
            barrier: barrier.clone(),
        };
        let bytes = Shares::of(options.memory).wire;
        let limits = UploadLimits { bytes, ..UploadLimits::default() };
        let uploader = Uploader::start(parts, hooks, limits, Steps::default());
        let uploader = Arc::new(Mutex::new(Some(Arc::new(uploader))));
        let durability = ToDisk {
            barrier: barrier.clone(),
            uploader: uploader.clone(),
            content: content.clone(),
            staging: staging.clone(),
            bucket: options.bucket.clone(),
        };
        let how = vfs::Options { read_only: false, fsync: options.fsync };
        let journaled = journal.appended();
        let vfs = Vfs::new(index.clone(), content.clone(), Arc::new(durability), how, journaled);
        make_root(&index).await?;
        vfs.recover().await?;
        let periodic = vfs.start(&tokio::runtime::Handle::current());
        let restarts = os::Restarts::default();
        let tasks = tasks(&restarts, &journal, &index, &barrier, &checkpointer);
        let writer = Some(Writer {
            journal,
            staging,
            barrier,
            uploader,
            checkpointer,
            memory,
            tasks,
            restarts,
            periodic: Mutex::new(Some(periodic)),
            ending: tokio::sync::Mutex::default(),
        });
        Ok(Arc::new(Self {
            options,
            vfs,
            content,
            index,
            cache,
            head,
            warnings,
            writer,
            _lock: lock,
        }))
    }

    /// The vault as a file system.
    pub fn vfs(&self) -> Vfs {
        self.vfs.clone()
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    #[cfg(test)]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What is on its way. Asks nobody and does not block.
    pub fn progress(&self) -> Progress {
        let Some(writer) = &self.writer else { return Progress::default() };
        let usage = writer.staging.usage();
        let uploads = writer.uploader.lock().as_ref().map(|uploader| uploader.status());
        let trouble = uploads.as_ref().and_then(|status| {
            let trouble = status.trouble.first().map(|trouble| trouble.error.clone());
            trouble.or(status.poisoned.clone())
        });
        Progress {
            unsent_bytes: usage.unsent_bytes,
            unsent_packs: usage.unsent_packs,
            unsent_changes: uploads.as_ref().map_or(0, crate::upload::Status::unsent_transactions),
            moved_bytes: uploads.as_ref().map_or(0, |status| status.carried),
            unpublished_files: self.content.unpublished().len() as u64,
            fenced: uploads.as_ref().is_some_and(|status| status.fenced.is_some()),
            trouble,
        }
    }

    /// How things are. Asks nobody and does not block.
    pub fn status(&self) -> Status {
        let head = *self.head.lock();
        let totals = self.index.totals();
        let cache = self.cache.usage();
        let mut warnings = self.warnings.clone();
        warnings.extend(self.options.bucket.quirks());
        warnings.extend(self.options.bucket.refuses_credentials());
        let mut staging = (0, 0);
        if let Some(writer) = &self.writer {
            let usage = writer.staging.usage();
            staging = (usage.used, usage.budget);
            warnings.extend(writer.checkpointer.trouble());
            warnings.extend(room::warning(&self.options.state_dir));
            warnings.extend(writer.restarts.troubles());
        }
        Status {
            progress: self.progress(),
            head: head.number,
            fingerprint: head.hash,
            head_time: Timestamp::from(head.seen),
            read_only: self.index.read_only().or_else(|| self.poisoned()),
            inodes: totals.inodes,
            bytes: totals.bytes,
            staging,
            cache_disk: cache.disk_bytes,
            disk_budget: disk_budget(&self.options.state_dir, self.options.cache_size),
            warnings,
        }
    }

    fn poisoned(&self) -> Option<String> {
        self.writer.as_ref()?.barrier.poisoned()
    }

    /// Returns when everything written before is in the bucket.
    ///
    /// # Errors
    /// [`super::Error::Unfinished`] at the deadline, naming what is missing; whatever makes it impossible.
    pub async fn sync(&self, deadline: Duration) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        self.vfs.publish_all().await?;
        self.content.close_packs()?;
        let uploader = writer.uploader.lock().clone();
        let Some(uploader) = uploader else { return Ok(()) };
        Ok(uploader.sync(writer.journal.appended(), deadline).await?)
    }

    /// Makes a checkpoint of what is in the bucket now.
    #[cfg(any(test, feature = "testing"))]
    pub async fn checkpoint(&self) -> Result<()> {
        match &self.writer {
            Some(writer) => writer.checkpointer.checkpoint().await,
            None => Ok(()),
        }
    }
}

fn barrier(staging: &Staging, journal: &Arc<Journal>, cache: &Cache) -> Barrier {
    let cache = cache.clone();
    let adopt = Arc::new(move |object: &str, file: &std::path::Path| cache.adopt(object, file));
    Barrier::start(staging.clone(), journal.clone(), adopt, SYNC_EVERY, Steps::default())
}

/// What the vault does in the background, besides what its rooms do.
fn tasks(
    restarts: &os::Restarts,
    journal: &Arc<Journal>,
    index: &Index,
    barrier: &Barrier,
    checkpointer: &Arc<Checkpointer>,
) -> Vec<JoinHandle<()>> {
    let (journal, index, durable) = (journal.clone(), index.clone(), barrier.subscribe());
    let trim = move || keeper::trim(journal.clone(), index.clone(), durable.clone());
    let checkpointer = checkpointer.clone();
    let checkpoints = move || checkpointer.clone().run();
    vec![
        tokio::spawn(restarts.clone().run("trimming the journal", trim)),
        tokio::spawn(restarts.clone().run("making checkpoints", checkpoints)),
    ]
}

fn hooks(
    index: &Index,
    memory: &Arc<Memory>,
    checkpointer: &Arc<Checkpointer>,
    head: &Arc<Mutex<Head>>,
) -> Hooks {
    let on_fenced = {
        let index = index.clone();
        Arc::new(move |found: crate::types::CommitNo| {
            let number = found.0;
            index.make_read_only(&format!(
                "another machine has taken over this vault (commit {number}); what was not uploaded stays here"
            ));
        })
    };
    let (index, memory, checkpointer, head) =
        (index.clone(), memory.clone(), checkpointer.clone(), head.clone());
    let on_confirmed = Arc::new(move |receipt: &Receipt| {
        index.confirmed(receipt);
        memory.confirmed(receipt);
        checkpointer.confirmed(receipt);
        let (number, hash, seen) = (receipt.number(), receipt.hash(), receipt.time());
        *head.lock() = Head { number, hash, seen };
    });
    Hooks { on_confirmed, on_fenced }
}

/// The root directory of a vault that has none yet: it belongs to whoever mounts it first.
async fn make_root(index: &Index) -> Result<()> {
    let now = Timestamp::from(SystemTime::now());
    let (uid, gid) = os::real_ids();
    let root = Inode {
        mode: libc::S_IFDIR | 0o755,
        uid,
        gid,
        nlink: 2,
        parent: InodeNo::ROOT,
        atime: now,
        mtime: now,
        ctime: now,
        created: now,
        ..Inode::default()
    };
    let made = index.change(|draft| {
        if draft.inode(InodeNo::ROOT)?.is_none() {
            draft.put_inode(InodeNo::ROOT, &root);
        }
        Ok::<_, crate::index::Error>(())
    });
    made.await?;
    Ok(())
}
