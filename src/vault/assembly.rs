//! Builds an open vault from its rooms, and starts the tasks that connect them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::budgets::{BlockShare, Shares, disk_budget, open_cache, open_content};
use super::checkpointer::Checkpointer;
use super::claiming::Claimed;
use super::durability::{BUCKET_FSYNC, WriterDurability};
use super::head_recorder::HeadRecorder;
use super::index_room::IndexRoom;
use super::key_changer::KeyChanger;
use super::open::OpenContext;
use super::open_vault::{Vault, Writer};
use super::reader::{Shown, read_state};
use super::reclaiming::Reclaiming;
use super::renewing::Renewing;
use super::rewriting::Rewriting;
use super::state_dir::StateDir;
use super::store_facts::{self, StoreMemory};
use super::superblock::unlocked_anew;
use super::superblock_copy::{self, put_back};
use super::this_machine::{MachineLock, make_private};
use super::unsent_ages::UnsentAges;
use super::{Error, Result, VaultOptions, disk_space, journal_trim, past};
use crate::cache::Cache;
use crate::content::Content;
use crate::index::Index;
use crate::log::{Chain, Committer, Head, Journal, Receipt};
use crate::os;
use crate::reclaim::Reclaimer;
use crate::records::Inode;
use crate::types::{CommitNo, CurrentGeneration, InodeNo, Patience, Timestamp};
use crate::upload::{Barrier, Hooks, Parts, SYNC_EVERY, Staging, StepObserver, Uploader};
use crate::vfs::{self, Vfs};

/// The result of reading the log to its end: a state to show, or a claim.
enum Opened {
    Read(Shown),
    Claimed(Box<Claimed>, StoreMemory),
}

impl Opened {
    /// Opens with the superblock that the vault was unlocked with. `said` collects warnings, also when it fails, for another
    /// try.
    async fn find(
        options: &VaultOptions,
        cache: &Cache,
        state_dir: &StateDir,
        said: &mut Vec<String>,
    ) -> Result<Self> {
        let context = OpenContext {
            options,
            state_dir,
            cache,
            chain: Chain::new(options.bucket.clone(), options.unlocked.keys.clone()),
            warnings: Mutex::new(said.clone()),
            index_dir: state_dir.index(options.read_only),
            generation: options.unlocked.generation,
            accept_rollback: options.accept_rollback,
            known: None,
        };
        if options.read_only {
            return Ok(Self::Read(read_state(context).await?));
        }
        // Before anything local is touched: if the journal is damaged, everything stays as it is.
        let found = context.inspect_journal()?;
        let store_memory = StoreMemory::recalled(options);
        options.try_put_as(&options.bucket.limited_to()).await?;
        let warning = store_facts::check_conditional_puts(options).await?;
        let claimed = context.writer(found).await;
        *said = context.warnings.into_inner();
        let mut claimed = claimed?;
        store_memory.remember();
        claimed.warnings.append(said);
        claimed.warnings.extend(warning);
        Ok(Self::Claimed(Box::new(claimed), store_memory))
    }
}

impl Vault {
    /// Opens a vault and starts its tasks. Within a runtime.
    ///
    /// # Errors
    /// See [`super::Error`]; nothing local was changed if the journal is damaged (J3).
    pub async fn open(options: VaultOptions) -> Result<Arc<Self>> {
        // A view of the past is read-only.
        let mut options =
            VaultOptions { read_only: options.read_only || options.at.is_some(), ..options };
        if !options.read_only {
            disk_space::check(&options)?;
        }
        make_private(&options.state_dir)?;
        // Before anything is looked at, so that a running daemon, in any namespace, is not disturbed.
        let lock = options.machine.lock(
            options.unlocked.vault,
            &options.state_dir,
            &options.mountpoint,
            options.read_only,
        )?;
        past::clear(&options.state_dir);
        let state_dir = StateDir { root: options.state_dir.clone() };
        let cache = open_cache(&options, &state_dir)?;
        let mut said = options.machine.warning.iter().cloned().collect();
        let opened = match Opened::find(&options, &cache, &state_dir, &mut said).await {
            // A newer superblock may have come after this one was read (O1): unlock with that, and try once more.
            Err(Error::OldSuperblock) => {
                options.unlocked = unlocked_anew(&options.bucket, &options.unlocked).await?;
                Opened::find(&options, &cache, &state_dir, &mut said).await?
            }
            opened => opened?,
        };
        keep_superblock(&options);
        let (mut claimed, store_memory) = match opened {
            Opened::Read(shown) => {
                return Ok(Arc::new(Self::reader(options, cache, shown, lock)?));
            }
            Opened::Claimed(claimed, store_memory) => (claimed, store_memory),
        };
        claimed.warnings.extend(put_back(&options.bucket, &options.unlocked).await);
        let vault = Self::writer(options, cache, *claimed, (lock, store_memory)).await?;
        vault.go_on_rotating().await;
        Ok(vault)
    }

    async fn writer(
        options: VaultOptions,
        cache: Cache,
        claimed: Claimed,
        (lock, store_memory): (MachineLock, StoreMemory),
    ) -> Result<Arc<Self>> {
        let Claimed { index, journal, staging, committer, survey, claim, warnings } = claimed;
        let budget = disk_budget(&options.state_dir, options.cache_size);
        let content = open_content(&options, &cache, &staging, budget / 2);
        let dir = StateDir { root: options.state_dir.clone() }.index(false);
        let index_room = IndexRoom::new((&index, dir), budget, cache.clone(), staging.clone());
        let barrier = barrier(&staging, &journal, &cache);
        let (generation, keys) = (committer.generation(), options.unlocked.keys.clone());
        let data_dir = options.machine.data_dir.clone();
        let recorder = HeadRecorder::new(data_dir, keys.clone(), generation.clone(), store_memory);
        recorder.remember(claim.number(), claim.hash());
        let (number, hash, seen) = (claim.number(), claim.hash(), claim.time());
        let (head, as_of) = (Arc::new(Mutex::new(Head { number, hash, seen })), None);
        let checkpointer = Checkpointer::new(
            (keys, options.bucket.in_background(), cache.clone()),
            index.clone(),
            generation.clone(),
            Shares::of(options.memory),
            (survey.since, number),
        );
        let hooks = hooks(&index, &recorder, &checkpointer, &head);
        let uploader = uploader(&options, (&staging, &journal, &barrier), committer, hooks);
        let durability = durability(&options, &staging, &barrier, &uploader);
        let how = vfs::VfsOptions { read_only: false, fsync: options.fsync };
        let journaled = journal.appended();
        let vfs = Vfs::new(index.clone(), content.clone(), Arc::new(durability), how, journaled);
        make_root(&index).await?;
        vfs.recover().await?;
        let periodic = vfs.start(&tokio::runtime::Handle::current());
        let who = (claim.number(), &generation);
        let reclaimer = reclaimer(&options, &index, who, (&staging, &journal, &uploader));
        let reclaiming = reclaiming(reclaimer, &vfs, &checkpointer);
        let secrets = (&options, generation);
        let keys = changer(secrets, (&index, &content), (&uploader, &head));
        let renewing = renewing(&keys, &vfs, &checkpointer, &reclaiming);
        let mut tasks = tasks(&journal, &index, &barrier, &checkpointer, &index_room);
        tasks.extend([deletion(&reclaiming), renewal(&renewing)]);
        let writer = Some(Writer {
            journal,
            staging,
            barrier,
            uploader,
            checkpointer,
            reclaiming,
            recorder,
            keys,
            renewing,
            index_room,
            tasks,
            periodic: Mutex::new(Some(periodic)),
            ending: tokio::sync::Mutex::default(),
        });
        Ok(Arc::new(Self {
            blocks: BlockShare::of(options.memory),
            options: Arc::new(options),
            vfs,
            content,
            index,
            cache,
            head,
            as_of,
            warnings,
            unsent_not_shown: 0,
            ages: UnsentAges::default(),
            writer,
            following: None,
            _lock: lock,
        }))
    }
}

/// Keeps a copy on this machine. By now the superblock is verified, and the log names no newer one.
fn keep_superblock(options: &VaultOptions) {
    let VaultOptions { machine, unlocked, .. } = options;
    superblock_copy::keep(&machine.data_dir, unlocked.vault, &unlocked.sealed);
}

fn reclaimer(
    options: &VaultOptions,
    index: &Index,
    (claim, generation): (CommitNo, &CurrentGeneration),
    (staging, journal, uploader): (&Staging, &Arc<Journal>, &Arc<Uploader>),
) -> Reclaimer {
    Reclaimer {
        bucket: options.bucket.in_background(),
        keys: options.unlocked.keys.clone(),
        claim,
        generation: generation.clone(),
        index: index.clone(),
        staging: staging.clone(),
        journal: journal.clone(),
        uploader: uploader.clone(),
        runs: Arc::default(),
        horizons: AtomicU64::default(),
    }
}

fn reclaiming(
    reclaimer: Reclaimer,
    vfs: &Vfs,
    checkpointer: &Arc<Checkpointer>,
) -> Arc<Reclaiming> {
    let (bucket, keys) = (reclaimer.bucket.clone(), reclaimer.keys.clone());
    let rewriting = Rewriting::new(bucket, keys, vfs.clone());
    Reclaiming::new(reclaimer, rewriting, checkpointer.clone())
}

fn deletion(reclaiming: &Arc<Reclaiming>) -> JoinHandle<()> {
    let reclaiming = reclaiming.clone();
    let delete = move || reclaiming.clone().watch();
    tokio::spawn(os::restarted("deleting what is old", delete))
}

fn uploader(
    options: &VaultOptions,
    (staging, journal, barrier): (&Staging, &Arc<Journal>, &Barrier),
    committer: Committer,
    hooks: Hooks,
) -> Arc<Uploader> {
    let parts = Parts {
        staging: staging.clone(),
        journal: journal.clone(),
        committer,
        bucket: options.bucket.clone(),
        barrier: barrier.clone(),
    };
    let limits = Shares::of(options.memory).upload();
    Arc::new(Uploader::start(parts, hooks, limits, StepObserver::default()))
}

fn changer(
    (options, generation): (&VaultOptions, CurrentGeneration),
    (index, content): (&Index, &Content),
    (uploader, head): (&Arc<Uploader>, &Arc<Mutex<Head>>),
) -> Arc<KeyChanger> {
    let VaultOptions { bucket, unlocked, machine, .. } = options;
    Arc::new(KeyChanger::new(
        (bucket.clone(), unlocked.clone(), machine.data_dir.clone()),
        (index.clone(), content.clone()),
        (uploader.clone(), head.clone()),
        generation,
    ))
}

fn renewing(
    keys: &Arc<KeyChanger>,
    vfs: &Vfs,
    checkpointer: &Arc<Checkpointer>,
    reclaiming: &Arc<Reclaiming>,
) -> Arc<Renewing> {
    if let Some(renewal) = keys.renewal() {
        checkpointer.renew(renewal.before);
    }
    Arc::new(Renewing {
        keys: keys.clone(),
        vfs: vfs.clone(),
        checkpointer: checkpointer.clone(),
        reclaiming: reclaiming.clone(),
        told: Mutex::default(),
        one: tokio::sync::Mutex::default(),
        hurries: AtomicUsize::default(),
    })
}

fn renewal(renewing: &Arc<Renewing>) -> JoinHandle<()> {
    let renewing = renewing.clone();
    let renew = move || renewing.clone().watch();
    tokio::spawn(os::restarted("sealing anew", renew))
}

fn durability(
    options: &VaultOptions,
    staging: &Staging,
    barrier: &Barrier,
    uploader: &Arc<Uploader>,
) -> WriterDurability {
    WriterDurability {
        barrier: barrier.clone(),
        uploader: uploader.clone(),
        staging: staging.clone(),
        bucket: options.bucket.clone(),
        patience: Patience::of(BUCKET_FSYNC),
    }
}

fn barrier(staging: &Staging, journal: &Arc<Journal>, cache: &Cache) -> Barrier {
    let cache = cache.clone();
    let adopt = Arc::new(move |object: &str, file: &std::path::Path| cache.adopt(object, file));
    Barrier::start(staging.clone(), journal.clone(), adopt, SYNC_EVERY, StepObserver::default())
}

/// The vault's own background tasks, besides those of its rooms.
fn tasks(
    journal: &Arc<Journal>,
    index: &Index,
    barrier: &Barrier,
    checkpointer: &Arc<Checkpointer>,
    index_room: &Arc<IndexRoom>,
) -> Vec<JoinHandle<()>> {
    let (journal, index, durable) = (journal.clone(), index.clone(), barrier.subscribe());
    let trim = move || journal_trim::trim(journal.clone(), index.clone(), durable.clone());
    let checkpointer = checkpointer.clone();
    let checkpoints = move || checkpointer.clone().run();
    let index_room = index_room.clone();
    let measure = move || index_room.clone().watch();
    vec![
        tokio::spawn(os::restarted("trimming the journal", trim)),
        tokio::spawn(os::restarted("making checkpoints", checkpoints)),
        tokio::spawn(os::restarted("measuring the index", measure)),
    ]
}

fn hooks(
    index: &Index,
    recorder: &Arc<HeadRecorder>,
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
    let (index, recorder, checkpointer, head) =
        (index.clone(), recorder.clone(), checkpointer.clone(), head.clone());
    let on_confirmed = Arc::new(move |receipt: &Receipt| {
        index.confirmed(receipt);
        recorder.confirmed(receipt);
        checkpointer.confirmed(receipt);
        let (number, hash, seen) = (receipt.number(), receipt.hash(), receipt.time());
        *head.lock() = Head { number, hash, seen };
    });
    Hooks { on_confirmed, on_fenced }
}

/// Makes the root directory of a new vault: it belongs to the user who mounts it first.
async fn make_root(index: &Index) -> Result<()> {
    let now = Timestamp::now();
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
