//! POSIX meaning: names, attributes, open files, over the map of records (`index`) and files' bytes (`content`).
//! Knows no kernel, no S3, no cipher.
//!
//! Every change is one transaction (`Vfs::change`), journaled before the call returns. What is written but not
//! published lies in `content`; one place makes it part of the map (`publish.rs`, rules V1 and V2).
//! Permissions are checked by the kernel (`default_permissions`), which alone knows groups and capabilities.
//!
//! Order of locks: a file's publishing turn (`File::seal`; of two files the smaller number first), then the index's
//! append lock (`Index::change`), then this room's tables. No table is locked across an `.await`.

mod acl;
mod allocate;
mod attr;
mod bring_back;
mod defragment;
mod departing;
mod error;
mod file_version;
mod following;
#[cfg(feature = "testing")]
mod fuzzing;
mod handles;
mod hold_guard;
mod holds;
mod invalidate;
mod known_to_kernel;
mod leaving;
mod left_over;
mod lookup_counts;
mod missed;
mod move_out;
mod namespace;
mod open_files;
mod periodic;
mod publish;
mod read_dir;
mod read_write;
mod remove;
mod rename;
mod request;
mod seek;
mod set_id;
mod tree_removal;
mod unnamed;
mod walk;
mod whereabouts;
mod workshop;
mod xattr;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::content::{Content, Unpublished};
use crate::index::{Draft, Index, View};
use crate::records::Inode;
use crate::types::{InodeNo, PackId, Patience, Seq, Timestamp};

pub use acl::{Setter, is_acl};
pub use attr::{Attributes, SetAttributes, SetTime};
pub use departing::Departure;
pub use error::{Error, ErrorKind, Result};
pub use file_version::Inspected;
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;
pub use handles::{HandleId, OpenFlags};
pub use invalidate::{Invalidation, Invalidations, Notification};
pub use known_to_kernel::Known;
pub use move_out::{MovedOut, Moves};
pub use periodic::Periodic;
pub use read_dir::DirEntry;
pub use read_write::{TakenWrite, WriteAt};
pub use rename::RenameMode;
pub use request::{TimedRequest, takes};
pub use seek::Seek;
pub use tree_removal::TreeRemoval;
pub use unnamed::{NameOf, Named};
pub use walk::{PATH_MAX, TreeEntry, TreeWalk};
pub use whereabouts::PackProgress;
pub use workshop::{Replacing, Workshop};

use attr::atime_moves;
use handles::Handles;
use holds::Holds;
use known_to_kernel::Via;
use leaving::Leaving;

/// The longest name, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// The longest symlink target, in bytes (`PATH_MAX` less the NUL).
pub const TARGET_MAX: usize = 4095;
/// The largest file, in bytes: what a positive `off_t` can say.
pub const SIZE_MAX: u64 = i64::MAX as u64;
/// What `statfs` shows as free where no end is known, in bytes: a bucket has none, tools want one. 1 PiB.
const ENDLESS: u64 = 1 << 50;
/// The unit of `statfs`, and of holes in `lseek`, in bytes.
const BLOCK: u64 = 4096;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user, owner of what the call makes.
    pub uid: u32,
    /// The group, likewise.
    pub gid: u32,
    /// The process; 0 is the kernel itself.
    pub pid: u32,
    /// Permission bits that new files do not get.
    pub umask: u32,
}

/// Why something could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum DurabilityError {
    /// There was no room to say what is durable; nothing has failed (ENOSPC).
    #[error("the disk is full")]
    Full,
    /// The disk or the bucket.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// What `fsync` needs from the rooms below; the vault implements it.
#[async_trait]
pub trait Durability: Send + Sync + 'static {
    /// Returns when the journal up to `upto`, and the packs that it refers to, survive power loss (rule J2).
    async fn fsync(&self, upto: Seq) -> std::result::Result<(), DurabilityError>;
    /// Returns when everything up to `upto` is in the bucket.
    async fn bucket(&self, upto: Seq) -> std::result::Result<(), DurabilityError>;
    /// Bytes that can still be written as things are, for `statfs`; `None`: no end is known. Does not wait.
    fn free(&self) -> Option<u64>;
    /// Bytes that the store has taken since the mount: while this grows, a full staging area gets room again.
    fn carried(&self) -> u64;
    /// How far a pack is. Does not wait.
    fn pack_progress(&self, pack: PackId) -> PackProgress;
    /// What a pack is called in the bucket.
    fn pack_key(&self, pack: PackId) -> String;
}

/// How far `fsync` goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsyncTo {
    /// This machine's disk.
    #[default]
    Local,
    /// The bucket (`--fsync bucket`).
    Bucket,
}

/// How a vault is presented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfsOptions {
    /// Every change is refused with EROFS.
    pub read_only: bool,
    /// How far `fsync` goes.
    pub fsync: FsyncTo,
}

/// What `statfs` returns; sizes in blocks of `block` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes of a block.
    pub block: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks not used.
    pub free: u64,
    /// Inodes in use and free.
    pub inodes: u64,
    /// Inodes that can still be made.
    pub free_inodes: u64,
}

/// A vault as a file system. Cheap to clone: all clones are one, but for who calls through them: see
/// [`Vfs::for_kernel`].
#[derive(Clone)]
pub struct Vfs {
    inner: Arc<Inner>,
    via: Via,
}

struct Inner {
    index: Index,
    content: Content,
    durability: Arc<dyn Durability>,
    options: VfsOptions,
    handles: Handles,
    holds: Holds,
    /// Who mounts the vault, and is told what others change.
    listener: Mutex<Option<mpsc::Sender<Notification>>>,
    atimes: attr::Atimes,
    bare: xattr::Bare,
    /// Truncations under way, with the offset from which extents are still to go (rule V3).
    trims: Mutex<HashMap<InodeNo, u64>>,
    left_over: left_over::LeftOver,
    workshops: workshop::Workshops,
    departing: departing::Departing,
    missed: missed::Missed,
    windows: defragment::Windows,
    /// Of writes that wait for room in staging.
    room_patience: Patience,
    /// The highest `Seq` that a change of ours got: what `fsync` waits for.
    last: AtomicU64,
    /// Of a reader: it was used.
    used: Notify,
}

impl Vfs {
    /// Over an open index and content. `journaled`: the last transaction in the journal now, so that an `fsync`
    /// covers what an earlier mount left. Call [`Vfs::recover`] before the first request of a writer.
    pub fn new(
        index: Index,
        content: Content,
        durability: Arc<dyn Durability>,
        options: VfsOptions,
        journaled: Seq,
    ) -> Self {
        let room_patience = Patience::of(content.room_wait());
        let inner = Inner {
            index,
            content,
            durability,
            options,
            handles: Handles::default(),
            holds: Holds::default(),
            listener: Mutex::default(),
            atimes: attr::Atimes::default(),
            bare: xattr::Bare::default(),
            trims: Mutex::default(),
            left_over: left_over::LeftOver::default(),
            workshops: workshop::Workshops::default(),
            departing: departing::Departing::default(),
            missed: missed::Missed::default(),
            windows: defragment::Windows::default(),
            room_patience,
            last: AtomicU64::new(journaled.0),
            used: Notify::new(),
        };
        Self::of(Arc::new(inner))
    }

    fn of(inner: Arc<Inner>) -> Self {
        Self { inner, via: Via::Others }
    }

    /// How it is presented.
    pub fn options(&self) -> VfsOptions {
        self.inner.options
    }

    /// The last transaction that a change of this mount was journaled as.
    pub fn journaled(&self) -> Seq {
        Seq(self.inner.last.load(Ordering::Acquire))
    }

    /// `statfs`: what is used, and beside it what is free.
    pub async fn space(&self) -> Result<StatFs> {
        let totals = self.inner.index.read(|view| Ok::<_, Error>(view.stats())).await?;
        let used = totals.bytes.div_ceil(BLOCK);
        let free = self.inner.durability.free().unwrap_or(ENDLESS) / BLOCK;
        let inodes = u64::from(u32::MAX).max(totals.inodes);
        let free_inodes = inodes - totals.inodes;
        let blocks = used.saturating_add(free);
        Ok(StatFs { block: BLOCK, blocks, free, inodes, free_inodes })
    }

    /// `stat`, and `fstat` of an unlinked file.
    pub async fn attributes(&self, ino: InodeNo) -> Result<Attributes> {
        self.read(|view| self.seen(view, ino)?.ok_or(Error::Stale)).await
    }

    /// The target of a symlink.
    pub async fn read_link(&self, ino: InodeNo) -> Result<Vec<u8>> {
        let inode = self.read(|view| view.inode(ino)?.ok_or(Error::Stale)).await?;
        self.touch(ino, &inode);
        inode.target.ok_or(Error::Invalid)
    }

    /// What `stat` shows of an inode: the map, and over it what is written and not yet published.
    fn seen(&self, view: &View<'_>, ino: InodeNo) -> Result<Option<Attributes>> {
        // Before the map is read: what is published meanwhile is then seen twice, never not at all.
        let unpublished = self.inner.content.known(ino).and_then(|file| file.unpublished());
        let Some(inode) = view.inode(ino)? else { return Ok(None) };
        Ok(Some(self.merged(ino, &inode, unpublished)))
    }

    fn merged(&self, ino: InodeNo, inode: &Inode, unpublished: Option<Unpublished>) -> Attributes {
        let mut seen = Attributes::of(ino, inode);
        if let Some(unpublished) = unpublished {
            seen.size = seen.size.max(unpublished.end);
            if let Some(mtime) = unpublished.mtime {
                seen.mtime = mtime;
                seen.ctime = seen.ctime.max(mtime);
            }
            // What is overwritten counts twice until a publication makes it exact; what is new is right at once.
            let held = inode.allocated.saturating_add(unpublished.bytes).min(seen.size);
            seen.blocks = seen.blocks.max(held.div_ceil(512));
        }
        if let Some(atime) = self.inner.atimes.get(ino) {
            seen.atime = seen.atime.max(atime);
        }
        seen
    }

    /// Notes a read of `ino` by relatime; in memory only, until some transaction takes it along.
    fn touch(&self, ino: InodeNo, inode: &Inode) {
        if self.inner.options.read_only {
            return;
        }
        let now = Timestamp::now();
        let atime = self.inner.atimes.get(ino).unwrap_or(inode.atime).max(inode.atime);
        if atime_moves(inode, atime, now) {
            self.inner.atimes.note(ino, now);
        }
    }

    async fn read<T: Send>(&self, f: impl Fn(&View<'_>) -> Result<T> + Send + Sync) -> Result<T> {
        if self.inner.options.read_only {
            self.inner.used.notify_one();
        }
        self.inner.index.read(f).await
    }

    /// One transaction that a caller asked for: never after the caller got an answer (V5). `f` may run several times, so
    /// what it does besides to the draft must bear that.
    async fn change<T: Send>(
        &self,
        f: impl Fn(&mut Draft<'_>) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        let changed = self.tidy(|draft| request::may_go_on().and_then(|()| f(draft))).await;
        // No `await` since it was appended: who polls this has not looked at the deadline in between.
        changed.inspect(|_| request::took_effect())
    }

    /// One transaction that nobody can tell from none, or the rest of what has been promised already: it may come at
    /// any time. Else as `change`.
    async fn tidy<T: Send>(
        &self,
        f: impl Fn(&mut Draft<'_>) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        self.writable()?;
        let atimes = self.inner.atimes.next_batch();
        let (value, seq) = self
            .inner
            .index
            .change(|draft: &mut Draft<'_>| {
                let value = f(draft)?;
                attr::put_atimes(draft, &atimes)?;
                Ok::<_, Error>(value)
            })
            .await?;
        self.inner.last.fetch_max(seq.0, Ordering::AcqRel);
        self.inner.atimes.journaled(&atimes);
        Ok(value)
    }

    /// As `change`, of a transaction that may take the last name of an inode.
    async fn change_leaving<T: Send>(
        &self,
        f: impl Fn(&mut Draft<'_>, &Leaving<'_>) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        let leaving = Leaving::new(&self.inner.holds);
        let value = self
            .change(|draft| {
                leaving.again();
                let value = f(draft, &leaving)?;
                leaving.begin();
                Ok(value)
            })
            .await?;
        leaving.landed();
        Ok(value)
    }

    fn writable(&self) -> Result<()> {
        if self.inner.options.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

/// A directory that can take names: there, a directory, not removed.
fn directory(view: &View<'_>, ino: InodeNo) -> Result<Inode> {
    let inode = view.inode(ino)?.filter(|inode| inode.nlink > 0).ok_or(Error::NotFound)?;
    if inode.is_dir() { Ok(inode) } else { Err(Error::NotDirectory) }
}

/// A name that a directory can have.
fn checked_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong);
    }
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(Error::Invalid);
    }
    Ok(())
}
