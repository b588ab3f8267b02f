//! `/.snapshots/NAME/`: states of the past inside a mount. Which one an inode belongs to is in the upper bits of the
//! number that the kernel knows it by: a *room*. The vault as it is now is room 0.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fuser::FileAttr;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::decode::{OWN_BITS, file_attr};
use crate::types::InodeNo;
use crate::vfs::{self, Attributes, Error, Vfs};

/// The name in the root that leads to them. No listing of the root has it.
pub(super) const NAME: &[u8] = b".snapshots";
/// The directory that lists the names.
const LIST: u16 = u16::MAX;
/// States that are open at once. Each has an index of its own, and blocks of pages in memory.
const OPEN: usize = 8;
/// One in which nothing was looked at for so long, and nothing is open, is closed when another is opened.
const UNUSED: Duration = Duration::from_mins(10);

/// The snapshots of a vault, as what mounts it knows them.
#[async_trait]
pub trait Snapshots: Send + Sync + 'static {
    /// Their names, and which state each names.
    async fn names(&self) -> Result<Vec<(Vec<u8>, u64)>, SnapshotError>;
    /// One of them; `None`: there is none of that name.
    async fn open(&self, name: &[u8]) -> Result<Option<SnapshotRoom>, SnapshotError>;
}

/// Why a snapshot cannot be shown, for the log.
pub type SnapshotError = Box<dyn std::error::Error + Send + Sync>;

/// A snapshot as a file system.
pub struct SnapshotRoom {
    /// Read-only.
    pub vfs: Vfs,
    /// What keeps it.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// EIO, with the reason in the log.
fn failed(error: SnapshotError) -> Error {
    tracing::warn!(%error, "a snapshot cannot be shown");
    Error::PushedOut
}

/// Where a number of the kernel's belongs.
pub(super) enum Room {
    /// To this file system; what it says of its inodes gets the tag.
    In(Vfs, u16),
    /// To the directory that lists the names.
    List,
    /// To a state that is closed: the kernel looks the name up again.
    Gone,
}

/// A state that is open.
struct OpenRoom {
    name: Vec<u8>,
    state: u64,
    vfs: Vfs,
    handles: usize,
    used: Instant,
    _keep: Box<dyn Any + Send + Sync>,
}

/// The states that are open.
pub(super) struct Rooms {
    source: Arc<dyn Snapshots>,
    open: Mutex<BTreeMap<u16, OpenRoom>>,
    /// Held while one is opened: two that ask for one name get the same.
    opening: tokio::sync::Mutex<u16>,
}

/// The room of a number.
pub(super) fn room_of(number: u64) -> u16 {
    u16::try_from(number >> OWN_BITS).unwrap_or(0)
}

/// The number that the kernel knows an inode of a room by.
pub(super) fn tagged(room: u16, ino: InodeNo) -> u64 {
    u64::from(room) << OWN_BITS | ino.0
}

/// What the kernel is told of an inode of a room.
pub(super) fn attr_in(room: u16, seen: &Attributes) -> FileAttr {
    file_attr(&Attributes { ino: InodeNo(tagged(room, seen.ino)), ..*seen })
}

impl Rooms {
    pub(super) fn new(source: Arc<dyn Snapshots>) -> Self {
        Self { source, open: Mutex::default(), opening: tokio::sync::Mutex::new(0) }
    }

    /// Where a number belongs that is not of now.
    pub(super) fn find(&self, number: u64) -> Room {
        let room = room_of(number);
        if room == LIST {
            return Room::List;
        }
        match self.open.lock().get_mut(&room) {
            Some(open) => {
                open.used = Instant::now();
                Room::In(open.vfs.clone(), room)
            }
            None => Room::Gone,
        }
    }

    /// A file was opened there, or closed.
    pub(super) fn counts(&self, number: u64, opened: bool) {
        if let Some(open) = self.open.lock().get_mut(&room_of(number)) {
            open.handles = if opened { open.handles + 1 } else { open.handles.saturating_sub(1) };
        }
    }

    /// The root of a snapshot, which is opened if it is not.
    pub(super) async fn enter(&self, name: &[u8]) -> vfs::Result<FileAttr> {
        let mut last = self.opening.lock().await;
        let names = self.source.names().await.map_err(failed)?;
        let state = names.iter().find(|(there, _)| there == name).map(|(_, state)| *state);
        let state = state.ok_or(Error::NotFound)?;
        if let Some((room, vfs)) = self.at_hand(name, state) {
            return Ok(attr_in(room, &vfs.attributes(InodeNo::ROOT).await?));
        }
        self.make_room()?;
        let opened = self.source.open(name).await.map_err(failed)?;
        let SnapshotRoom { vfs, keep } = opened.ok_or(Error::NotFound)?;
        let root = vfs.attributes(InodeNo::ROOT).await?;
        // Never the number of one that was there a moment ago, which the kernel may still know.
        *last = if *last + 1 == LIST { 1 } else { *last + 1 };
        let (name, used) = (name.to_vec(), Instant::now());
        let open = OpenRoom { name, state, vfs, handles: 0, used, _keep: keep };
        self.open.lock().insert(*last, open);
        Ok(attr_in(*last, &root))
    }

    fn at_hand(&self, name: &[u8], state: u64) -> Option<(u16, Vfs)> {
        let mut open = self.open.lock();
        let found = open.iter_mut().find(|(_, open)| open.name == name && open.state == state);
        found.map(|(room, open)| {
            open.used = Instant::now();
            (*room, open.vfs.clone())
        })
    }

    /// Closes what nobody uses, and if that is not enough, what was not used for longest.
    fn make_room(&self) -> vfs::Result<()> {
        let mut open = self.open.lock();
        open.retain(|_, open| open.handles > 0 || open.used.elapsed() < UNUSED);
        if open.len() < OPEN {
            return Ok(());
        }
        let idle = open.iter().filter(|(_, open)| open.handles == 0);
        let Some(oldest) = idle.min_by_key(|(_, open)| open.used).map(|(room, _)| *room) else {
            tracing::warn!(OPEN, "files are open in as many snapshots as can be open at once");
            return Err(Error::PushedOut);
        };
        open.remove(&oldest);
        Ok(())
    }

    /// What the directory of the names shows of itself; it belongs to whom the root does.
    pub(super) fn list_attr(root: &Attributes) -> FileAttr {
        let mode = libc::S_IFDIR | 0o555;
        attr_in(LIST, &Attributes { ino: InodeNo::ROOT, mode, nlink: 2, ..*root })
    }

    /// The names, each with its place and number in the listing.
    pub(super) async fn entries(&self, after: u64) -> vfs::Result<Vec<(u64, u64, Vec<u8>)>> {
        let own = (tagged(LIST, InodeNo::ROOT), InodeNo::ROOT.0);
        let dots = [(own.0, b".".to_vec()), (own.1, b"..".to_vec())];
        let names = self.source.names().await.map_err(failed)?;
        let names = names.into_iter().map(|(name, _)| name);
        let names = names.enumerate().map(|(at, name)| {
            let number = tagged(LIST, InodeNo(at as u64 + 2));
            (number, name)
        });
        let all = dots.into_iter().chain(names).enumerate();
        let all = all.map(|(at, (number, name))| (at as u64 + 1, number, name));
        Ok(all.filter(|(cookie, ..)| *cookie > after).collect())
    }

    /// What a listing says of a name: only that it is a directory. It is not to be remembered: whoever comes to it looks
    /// the name up, and then it gets its room.
    pub(super) fn entry_attr(root: &Attributes, number: u64) -> FileAttr {
        let mode = libc::S_IFDIR | 0o555;
        file_attr(&Attributes { ino: InodeNo(number), mode, nlink: 2, ..*root })
    }
}
