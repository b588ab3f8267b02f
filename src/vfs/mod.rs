//! The file system as POSIX means it: names, attributes and open files, over the map of records (`index`) and the bytes
//! of files (`content`). Knows nothing of FUSE, S3 or encryption.
//!
//! Every change is one transaction (`Vfs::change`), journaled before the call returns. Bytes that are written but not
//! yet published are held by `content`; one place makes them part of the map (`publish.rs`, rules V1 and V2). The
//! kernel checks permissions (`default_permissions`): it alone knows groups and capabilities.
//!
//! Lock order: a file's publishing turn (`File::seal`; of two files the lower inode number first), then the index's
//! append lock (`Index::change`), then the tables of this module. No table stays locked across an `.await`.

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
pub use request::{TimedRequest, extend_deadline};
pub use seek::Seek;
pub use tree_removal::TreeRemoval;
pub use unnamed::{NameOf, Named};
pub use walk::{PATH_MAX, TreeEntry, TreeWalk, WALK_MAX};
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
/// The largest file size, in bytes: the largest positive `off_t`.
pub const SIZE_MAX: u64 = i64::MAX as u64;
/// What `statfs` shows as free where no limit is known, in bytes: a bucket has none, but tools want a number. 1 PiB.
const ENDLESS: u64 = 1 << 50;
/// How many inodes `statfs` shows as free at least.
const FREE_INODES: u64 = 1 << 20;
/// The block size that `statfs` reports, and the granularity of holes in `lseek`, in bytes.
const BLOCK: u64 = 4096;

/// The caller of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user, who owns what the call makes.
    pub uid: u32,
    /// The group, which owns it too.
    pub gid: u32,
    /// The process; 0 means the kernel itself.
    pub pid: u32,
    /// Permission bits to clear in new files.
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

/// What `fsync` and `statfs` need from the layers below; the vault implements it.
#[async_trait]
pub trait Durability: Send + Sync + 'static {
    /// Returns when the journal up to `upto`, and the packs that it refers to, would survive power loss (rule J2).
    async fn fsync(&self, upto: Seq) -> std::result::Result<(), DurabilityError>;
    /// Returns when everything up to `upto` is in the bucket.
    async fn bucket(&self, upto: Seq) -> std::result::Result<(), DurabilityError>;
    /// Bytes that can still be written as things stand, for `statfs`; `None` if no limit is known. Does not wait.
    fn free(&self) -> Option<u64>;
    /// Bytes that the store has taken since the mount: while this grows, room will come free in a full staging area.
    fn carried(&self) -> u64;
    /// How far a pack is on its way to the bucket. Does not wait.
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

/// A vault as a file system. Cheap to clone: all clones share one state, and differ only in who calls through them (see
/// [`Vfs::for_kernel`]).
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
    /// Where to send notice of changes that the kernel does not make itself; `None` if nobody listens.
    listener: Mutex<Option<mpsc::Sender<Notification>>>,
    atimes: attr::Atimes,
    bare: xattr::Bare,
    /// Truncations under way, each with the offset from which extents are still to be removed (rule V3).
    trims: Mutex<HashMap<InodeNo, u64>>,
    left_over: left_over::LeftOver,
    workshops: workshop::Workshops,
    departing: departing::Departing,
    missed: missed::Missed,
    windows: defragment::Windows,
    /// The shared patience of writes that wait for room in staging.
    room_patience: Patience,
    /// The highest `Seq` that a change of this mount got: `fsync` waits for it.
    last: AtomicU64,
    /// Notified whenever a read-only mount is used (rule W5).
    used: Notify,
}

impl Vfs {
    /// Makes a file system over an open index and content. `journaled` is the last transaction in the journal now, so
    /// that an `fsync` covers what an earlier mount left. A writer calls [`Vfs::recover`] before the first request.
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

    /// The options it was made with.
    pub fn options(&self) -> VfsOptions {
        self.inner.options
    }

    /// The last transaction that this mount has journaled, or found in the journal.
    pub fn journaled(&self) -> Seq {
        Seq(self.inner.last.load(Ordering::Acquire))
    }

    /// `statfs`: used and free space.
    pub async fn space(&self) -> Result<StatFs> {
        let totals = self.inner.index.read(|view| Ok::<_, Error>(view.stats())).await?;
        let used = totals.bytes.div_ceil(BLOCK);
        let free = self.inner.durability.free().unwrap_or(ENDLESS) / BLOCK;
        // There is no limit; programs that ask for one find room.
        let free_inodes = u64::from(u32::MAX).saturating_sub(totals.inodes).max(FREE_INODES);
        let inodes = totals.inodes.saturating_add(free_inodes);
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

    /// What `stat` shows of an inode: the map, overlaid with what is written but not yet published.
    fn seen(&self, view: &View<'_>, ino: InodeNo) -> Result<Option<Attributes>> {
        // Read before the map: what is published in between is then seen twice, rather than not at all.
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
            // Overwritten bytes count twice until a publication makes the number exact; new bytes are right at once.
            let held = inode.allocated.saturating_add(unpublished.bytes).min(seen.size);
            seen.blocks = seen.blocks.max(held.div_ceil(512));
        }
        if let Some(atime) = self.inner.atimes.get(ino) {
            seen.atime = seen.atime.max(atime);
        }
        seen
    }

    /// Notes a read of `ino`, as relatime has it. The time stays in memory until some transaction takes it along.
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

    /// One transaction that a caller asked for. It is never made after the caller got a reply (V5). `f` may run several
    /// times: what it does other than to the draft must allow for that.
    async fn change<T: Send>(
        &self,
        f: impl Fn(&mut Draft<'_>) -> Result<T> + Send + Sync,
    ) -> Result<T> {
        let changed = self.tidy(|draft| request::may_go_on().and_then(|()| f(draft))).await;
        // No `await` between the append and this: whoever polls this future has not checked the deadline in between.
        changed.inspect(|_| request::took_effect())
    }

    /// One transaction that nobody can notice, or that finishes what is already promised, so it may come at any time:
    /// V5 is not checked. Otherwise as `change`.
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

    /// As `change`, for a transaction that may remove the last name of an inode.
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

    /// Whether anything may be changed: not in a mount for reading, nor after a fence (W3) or damage (J4). Asked before bytes are
    /// taken, too: nothing would publish them.
    fn writable(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.options.read_only || inner.index.is_read_only() {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }
}

/// The inode of a directory that can take names; an error if it is missing, removed, or no directory.
fn directory(view: &View<'_>, ino: InodeNo) -> Result<Inode> {
    let inode = view.inode(ino)?.filter(|inode| inode.nlink > 0).ok_or(Error::NotFound)?;
    if inode.is_dir() { Ok(inode) } else { Err(Error::NotDirectory) }
}

/// Checks that a directory can have this name.
fn checked_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong);
    }
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(Error::Invalid);
    }
    Ok(())
}
