//! `recover` (W4): copies changes that were set aside on this machine into new files of the vault.
//!
//! It builds the map as this machine last had it: the state that the journal noted as confirmed, and over it the journal
//! that was set aside. Nothing in the folder changes. Files that the journal changed are copied out of this map; existing
//! files of the live vault are never replaced.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::copy::{Copying, OnRestore, Restored, refused};
use super::past_dir::PastDir;
use super::restore::{LINKS_MAX, copy_node, make_parents};
use super::share::Sharing;
use super::{PastState, index_of};
use crate::files::{dress, owned_by};
use crate::index::{self, Index};
use crate::log::{Inspection, Journal, Journaled};
use crate::os;
use crate::records::{Key, Transaction};
use crate::types::{AsOf, CommitNo, InodeNo, Seq, StateAt, Timestamp};
use crate::upload::{Staging, StagingLimits};
use crate::vault::aside::{SET_ASIDE, is_recoverable};
use crate::vault::budgets::open_content;
use crate::vault::durability::ReaderDurability;
use crate::vault::open_vault::Vault;
use crate::vault::{Error, Fsync, Result};
use crate::vfs::{self, Attributes, ErrorKind, TreeWalk, Vfs, VfsOptions, WALK_MAX};

/// How many inodes are looked up at a time.
const LOOKED_UP: usize = 128;
/// How many files that could not be recovered are named at most.
const NAMED_MAX: usize = 100;

/// A folder of changes that were set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsideFolder {
    /// Where it is.
    pub path: PathBuf,
    /// When it was set aside.
    pub since: SystemTime,
    /// `false` for a copy of damaged files, which only a person can make use of.
    pub is_recoverable: bool,
}

/// The result of a recovery.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Files and directories that were made, and their bytes.
    pub done: Restored,
    /// The names that lead to the new directory from the root; `None`: there was nothing to recover, so none was made.
    pub place: Option<Vec<Vec<u8>>>,
    /// Paths that could not be recovered, and why; at most a hundred of them.
    pub failed: Vec<(Vec<u8>, String)>,
    /// How many could not be recovered in all.
    pub failures: u64,
}

impl Vault {
    /// The folders that are set aside on this machine, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk fails.
    pub fn set_aside(&self) -> Result<Vec<AsideFolder>> {
        let failed = || Error::io("what is set aside cannot be listed");
        let entries = match fs::read_dir(self.options().state_dir.join(SET_ASIDE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed())?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed())?;
            let since = entry.metadata().and_then(|meta| meta.modified()).map_err(failed())?;
            let is_recoverable = is_recoverable(&entry.path());
            found.push(AsideFolder { path: entry.path(), since, is_recoverable });
        }
        found.sort_by(|a, b| (a.since, &a.path).cmp(&(b.since, &b.path)));
        Ok(found)
    }

    /// Removes a folder, durably, once its content is not needed any more.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk fails.
    pub fn remove_aside(&self, folder: &AsideFolder) -> Result<()> {
        let failed = || Error::io("what was set aside cannot be removed");
        fs::remove_dir_all(&folder.path).map_err(failed())?;
        os::sync_dir(&self.options().state_dir.join(SET_ASIDE)).map_err(failed())
    }

    /// Copies the files of a folder into a new directory `name` (or `name-2`, ...) below `parents`. Files that cannot be
    /// read are named in the result, and the rest goes on.
    ///
    /// # Errors
    /// [`Error::NotRestored`]: the state that the changes build on is not kept any more, or the folder cannot be read.
    /// What the store and the disk say. What was recovered before an error stays.
    pub async fn recover(
        &self,
        folder: &AsideFolder,
        (parents, name): (&[Vec<u8>], &[u8]),
        tell: OnRestore<'_>,
    ) -> Result<Recovery> {
        let opened = self.open_aside(&folder.path).await?;
        let (options, live) = (self.options(), self.vfs());
        let keys = options.unlocked.keys.clone();
        // W4: new files in new packs. What was never confirmed may not be referred to (V4).
        let mut sharing = Sharing::of(options.bucket.clone(), keys, opened.commit);
        sharing.end();
        let done = Restored::default();
        let mut copying = Copying { past: &opened.vfs, live: &live, sharing, done, tell };
        let parent = make_parents(&live, None, parents).await?;
        let mut levels = RecoveredDirs::new(copying.past, parent, name).await?;
        let mut recovered = Recovery::default();
        copy_touched(&mut copying, &opened.touched, &mut levels, &mut recovered).await?;
        recovered.place = levels.root_name().map(|name| [parents, &[name]].concat());
        recovered.done = copying.done;
        Ok(recovered)
    }

    /// Opens the vault as this machine had it when its changes were set aside.
    async fn open_aside(&self, folder: &Path) -> Result<OpenedAside> {
        let options = self.options();
        let keys = &options.unlocked.keys;
        let journal = folder.join("journal");
        let found = Journal::inspect(&journal, keys)?.ok_or_else(|| {
            refused(format!("the journal in {} has nothing that can be read", folder.display()))
        })?;
        let state = self.state_under(&found).await?;
        let dir = PastDir::new(&options.state_dir)?;
        let chain = self.kept_chain();
        let (index, head) = index_of(&state, &chain, keys, self.cache(), &dir.index()).await?;
        if head.number > CommitNo(0) && head.hash != found.noted.hash() {
            return Err(Error::Rollback { number: head.number });
        }
        let mut touched = Touched::default();
        index.set_journal(found.journal, found.noted.upto());
        let mut after = found.noted.upto();
        loop {
            let part = Journal::read_found(&journal, keys, &found, after)?;
            let Some(last) = part.last() else { break };
            after = last.seq;
            touched.note(&index, &part).await?;
            index.replay(&part)?;
        }
        index.make_read_only("it shows what was set aside");
        // The packs are read where they lie: opening staging changes nothing.
        let staging = Staging::open(&folder.join("staging"), StagingLimits::default())?;
        let content = open_content(options, self.cache(), &staging, 0);
        let how = VfsOptions { read_only: true, fsync: Fsync::Local };
        let durability = ReaderDurability(options.bucket.clone());
        let vfs = Vfs::new(index, content, Arc::new(durability), how, Seq(0));
        Ok(OpenedAside { vfs, touched, commit: state.as_of.commit, _dir: dir })
    }

    /// The state that the journal builds on.
    async fn state_under(&self, found: &Inspection) -> Result<PastState> {
        let number = found.noted.number();
        if number == CommitNo(0) {
            let as_of = AsOf { commit: number, time: Timestamp::default(), snapshot: None };
            return Ok(PastState { as_of, base: None, short_hash: None });
        }
        match self.states().await?.find(&StateAt::Commit(number.0)).await {
            Err(Error::NoState(_)) => Err(refused(format!(
                "what is set aside changes the vault as of commit {}, which is not kept any more (`s3vault retention`), so \
                 its files cannot be put together; it stays where it is",
                number.0
            ))),
            state => state,
        }
    }
}

/// A folder of changes, opened as a file system.
struct OpenedAside {
    vfs: Vfs,
    touched: Touched,
    commit: CommitNo,
    /// Declared last, so dropped after what uses it.
    _dir: PastDir,
}

/// The inodes that the journal changes, each with its ctime before; `None`: it is new.
#[derive(Default)]
struct Touched(HashMap<InodeNo, Option<Timestamp>>);

impl Touched {
    /// Notes the inodes of `part`, before it is replayed.
    async fn note(&mut self, index: &Index, part: &[Journaled]) -> Result<()> {
        let mut fresh = Vec::new();
        for journaled in part {
            for change in Transaction::decode(&journaled.bytes)?.changes {
                if let Key::Inode(ino) | Key::Extent(ino, _) | Key::Xattr(ino, _) =
                    Key::decode(&change.key)?
                    && !self.0.contains_key(&ino)
                {
                    self.0.insert(ino, None);
                    fresh.push(ino);
                }
            }
        }
        for some in fresh.chunks(LOOKED_UP) {
            let before = index.read(|view| {
                let before = |ino: &InodeNo| Ok((*ino, view.inode(*ino)?.map(|inode| inode.ctime)));
                some.iter().map(before).collect::<std::result::Result<Vec<_>, index::Error>>()
            });
            self.0.extend(before.await?);
        }
        Ok(())
    }

    fn is_new(&self, seen: &Attributes) -> bool {
        self.0.get(&seen.ino).is_some_and(Option::is_none)
    }

    /// Whether content or attributes differ; a new access time alone is no change.
    fn is_changed(&self, seen: &Attributes) -> bool {
        self.0.get(&seen.ino).is_some_and(|before| *before != Some(seen.ctime))
    }
}

/// The directories on the path to an entry. One is made in the vault when something in it is, or if it is new itself.
struct RecoveredDirs(Vec<RecoveredDir>);

struct RecoveredDir {
    /// Relative path that ends with a slash; empty for the root.
    path: Vec<u8>,
    name: Vec<u8>,
    source: Attributes,
    /// Set for the root: the directory of the vault that it belongs in.
    parent: Option<InodeNo>,
    made: Option<InodeNo>,
}

impl RecoveredDirs {
    async fn new(past: &Vfs, parent: InodeNo, name: &[u8]) -> Result<Self> {
        let source = past.attributes(InodeNo::ROOT).await?;
        let (path, name) = (Vec::new(), name.to_vec());
        Ok(Self(vec![RecoveredDir { path, name, source, parent: Some(parent), made: None }]))
    }

    /// The name that the new directory got; `None` if it was not made.
    fn root_name(&self) -> Option<Vec<u8>> {
        let root = self.0.first()?;
        root.made.map(|_| root.name.clone())
    }

    fn enter(&mut self, path: &[u8], name: &[u8], source: Attributes) {
        let (path, name) = ([path, b"/"].concat(), name.to_vec());
        self.0.push(RecoveredDir { path, name, source, parent: None, made: None });
    }

    /// Leaves the directories that do not contain `inside`. Their times are set now that they are full.
    async fn leave_to(&mut self, past: &Vfs, live: &Vfs, inside: &[u8]) -> Result<()> {
        while let Some(level) = self.0.pop_if(|level| level.path != inside) {
            if let Some(made) = level.made {
                dress(past, live, &level.source, made).await?;
            }
        }
        Ok(())
    }

    /// The directory in the vault for the innermost level. It and those above it are made if they are not there yet.
    async fn place(&mut self, copying: &mut Copying<'_>) -> Result<InodeNo> {
        let mut into = InodeNo::ROOT;
        for level in &mut self.0 {
            into = match (level.made, level.parent) {
                (Some(made), _) => made,
                (None, Some(parent)) => {
                    let (name, made) = new_directory(copying.live, parent, &level.name).await?;
                    level.name = name;
                    made
                }
                (None, None) => {
                    let (owner, mode) = (owned_by(&level.source), level.source.mode);
                    copying.done.files += 1;
                    copying.live.mkdir(&owner, into, &level.name, mode).await?.ino
                }
            };
            level.made = Some(into);
        }
        Ok(into)
    }
}

/// Makes a directory with this name, or the first free one of `name-2`, `name-3`, ...; owner and mode are its parent's.
async fn new_directory(live: &Vfs, parent: InodeNo, name: &[u8]) -> Result<(Vec<u8>, InodeNo)> {
    let like = live.attributes(parent).await?;
    let mut tried = name.to_vec();
    for n in 2.. {
        match live.mkdir(&owned_by(&like), parent, &tried, like.mode).await {
            Ok(made) => return Ok((tried, made.ino)),
            Err(vfs::Error::Exists) => tried = [name, format!("-{n}").as_bytes()].concat(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(refused("no name is free for the new directory"))
}

/// Copies everything that the journal changed, with the directories that it is in.
async fn copy_touched(
    copying: &mut Copying<'_>,
    touched: &Touched,
    levels: &mut RecoveredDirs,
    recovered: &mut Recovery,
) -> Result<()> {
    let mut links: HashMap<InodeNo, InodeNo> = HashMap::new();
    let (past, live) = (copying.past, copying.live);
    let mut walk = TreeWalk::new(past, InodeNo::ROOT, Vec::new(), true);
    while let Some(entry) = walk.next().await? {
        let inside = &entry.path[..entry.path.len() - entry.name_length];
        levels.leave_to(past, live, inside).await?;
        let Some(was) = entry.attributes else {
            recovered.could_not(&entry.path, "its attributes cannot be read".into());
            continue;
        };
        if entry.is_directory() {
            if entry.path.len() > WALK_MAX {
                recovered.could_not(&entry.path, "the path is too long".into());
                continue;
            }
            levels.enter(&entry.path, entry.name(), was);
            if touched.is_new(&was) {
                levels.place(copying).await?;
            }
            walk.enter(&entry);
        } else if touched.is_changed(&was) {
            let into = levels.place(copying).await?;
            let copied = match links.get(&was.ino) {
                Some(first) => {
                    let linked = live.link(*first, into, entry.name()).await;
                    linked.map(|_| *first).map_err(Error::from)
                }
                None => copy_node(copying, &was, into, entry.name(), false).await,
            };
            match copied {
                Ok(made) => {
                    copying.done.files += 1;
                    if was.nlink > 1 && links.len() < LINKS_MAX {
                        links.insert(was.ino, made);
                    }
                }
                Err(error) if concerns_this_file(&error) => {
                    recovered.could_not(&entry.path, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        copying.tell()?;
    }
    levels.leave_to(past, live, b"").await?;
    Ok(())
}

/// Whether the error is about this file only, so that the next one may be copied.
fn concerns_this_file(error: &Error) -> bool {
    matches!(error, Error::Vfs(error) if error.kind() == ErrorKind::Other)
}

impl Recovery {
    fn could_not(&mut self, path: &[u8], why: String) {
        self.failures += 1;
        if self.failed.len() < NAMED_MAX {
            self.failed.push((path.to_vec(), why));
        }
    }
}
