//! A vault that is opened for reading: as it is now, or as it was (K4).

use std::sync::Arc;

use parking_lot::Mutex;

use super::budgets::{BlockShare, open_content};
use super::durability::ReaderDurability;
use super::following::{FollowerParts, Following};
use super::head_recorder::HeadRecorder;
use super::open::{OpenContext, unsent_changes};
use super::open_vault::Vault;
use super::past::{States, index_of};
use super::store_facts::StoreMemory;
use super::this_machine::{MachineLock, make_private};
use super::unsent_ages::UnsentAges;
use super::{Result, VaultOptions};
use crate::cache::Cache;
use crate::content::Content;
use crate::index::Index;
use crate::log::Head;
use crate::types::{AsOf, CurrentGeneration, Seq, StateAt};
use crate::upload::{Staging, StagingLimits};
use crate::vfs::{self, Vfs};

/// A reader shows what is in the bucket.
const NOT_SHOWN: &str = "changes that were made on this machine are not in the bucket yet, and are not shown here; a mount without \
     --read-only sends them (or sets them aside for `s3vault recover`, if another machine took the vault over)";

/// What a reader shows.
pub(super) struct Shown {
    index: Index,
    head: Head,
    as_of: Option<AsOf>,
    warnings: Vec<String>,
    unsent: u64,
    recorder: Arc<HeadRecorder>,
    generation: CurrentGeneration,
}

/// Reads the log to its end, and then the past state, if one is asked for.
pub(super) async fn read_state(context: OpenContext<'_>) -> Result<Shown> {
    let (index, survey) = context.survey(None, true).await?;
    // O2 holds for readers too: what they saw must not go back unnoticed.
    let options = context.options;
    let (dir, keys) = (options.machine.data_dir.clone(), options.unlocked.keys.clone());
    let generation = CurrentGeneration::from(options.unlocked.generation);
    let store_memory = StoreMemory::recalled(options);
    let recorder = HeadRecorder::new(dir, keys, generation.clone(), store_memory);
    recorder.remember(survey.head.number, survey.head.hash);
    let shown = match &options.at {
        None => (index, survey.head, None),
        Some(at) => past(&context, at, &index, survey.head).await?,
    };
    let (index, head, as_of) = shown;
    let mut warnings = context.warnings.into_inner();
    warnings.extend(options.unlocked.copied.as_deref().map(|path| {
        format!(
            "the superblock is lost from the bucket, or does not open: that of {} is used; a mount for writing puts it back",
            path.display()
        )
    }));
    let unsent = unsent_changes(&options.unlocked, &options.state_dir);
    if unsent > 0 {
        warnings.push(NOT_SHOWN.to_owned());
    }
    Ok(Shown { index, head, as_of, warnings, unsent, recorder, generation })
}

async fn past(
    context: &OpenContext<'_>,
    at: &StateAt,
    now: &Index,
    head: Head,
) -> Result<(Index, Head, Option<AsOf>)> {
    let (bucket, keys) = (context.bucket(), context.keys());
    let state = States::read(bucket, keys, now, head.number).await?.find(at).await?;
    let dir = context.state_dir.past();
    let (index, head) = index_of(&state, &context.chain, keys, context.cache, &dir).await?;
    Ok((index, head, Some(state.as_of)))
}

impl Vault {
    pub(super) fn reader(
        options: VaultOptions,
        cache: Cache,
        shown: Shown,
        lock: MachineLock,
    ) -> Result<Self> {
        let Shown { index, head, as_of, warnings, unsent, recorder, generation } = shown;
        let reason = match &as_of {
            None => "it was mounted with --read-only".to_owned(),
            Some(as_of) => format!("it shows the state after commit {}", as_of.commit.0),
        };
        index.make_read_only(&reason);
        let staging = options.state_dir.join("reader");
        let content = content_of_reader(&options, &cache, &staging)?;
        let nothing = ReaderDurability(options.bucket.clone());
        let how = vfs::VfsOptions { read_only: true, fsync: options.fsync };
        let vfs = Vfs::new(index.clone(), content.clone(), Arc::new(nothing), how, Seq(0));
        let head = Arc::new(Mutex::new(head));
        let writer = None;
        let blocks = BlockShare::of(options.memory);
        let options = Arc::new(options);
        // A past state does not change.
        let every = options.refresh.filter(|_| as_of.is_none());
        let following = every.map(|every| {
            let (options, cache, index) = (options.clone(), cache.clone(), index.clone());
            let (vfs, head) = (vfs.clone(), head.clone());
            let parts = FollowerParts { options, cache, index, vfs, head, recorder, generation };
            Following::start(parts, every)
        });
        Ok(Self {
            options,
            vfs,
            content,
            index,
            cache,
            blocks,
            head,
            as_of,
            warnings,
            unsent_not_shown: unsent,
            ages: UnsentAges::default(),
            writer,
            following,
            _lock: lock,
        })
    }
}

/// `Content` for a reader: its staging is an empty directory.
fn content_of_reader(
    options: &VaultOptions,
    cache: &Cache,
    staging: &std::path::Path,
) -> Result<Content> {
    make_private(staging)?;
    let staging = Staging::open(staging, StagingLimits::default())?;
    Ok(open_content(options, cache, &staging, 0))
}
