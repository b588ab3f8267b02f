//! `/.snapshots/NAME/`: states of the past inside a mount. Which one an inode belongs to is in the upper bits of the
//! number that the kernel knows it by: a *room*. The vault as it is now is room 0.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fuser::FileAttr;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::decode::{OWN_BITS, file_attr};
use crate::types::InodeNo;
use crate::vfs::{self, Attributes, Error, Vfs};

/// The name in the root that leads to them. No listing of the root has it.
pub(super) const NAME: &[u8] = b".snapshots";
/// The directory that lists the names.
const LIST: u16 = u16::MAX;
/// States that are open, or being opened, at once. Each has an index of its own, and blocks of pages in memory.
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
    Error::SnapshotUnavailable
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

/// The states that are open, and those that are being opened.
pub(super) struct Rooms {
    source: Arc<dyn Snapshots>,
    table: Mutex<RoomTable>,
}

#[derive(Default)]
struct RoomTable {
    open: BTreeMap<u16, OpenRoom>,
    /// By name and state: who asks for one that is being opened waits for that, and for no other.
    opening: HashMap<(Vec<u8>, u64), SharedOpening>,
    /// The number that was given last.
    last: u16,
}

/// Where a state will be once it is open.
type RoomOpening = OnceCell<(u16, Vfs)>;

/// An opening that is under way, and how many take part in it.
#[derive(Default)]
struct SharedOpening {
    opening: Arc<RoomOpening>,
    parts: usize,
}

/// A part in the opening of a state: the last one to let go of it, however that ends, forgets it.
struct PartInOpening<'a> {
    rooms: &'a Rooms,
    key: (Vec<u8>, u64),
    opening: Arc<RoomOpening>,
}

impl Drop for PartInOpening<'_> {
    fn drop(&mut self) {
        let mut table = self.rooms.table.lock();
        let Some(shared) = table.opening.get_mut(&self.key) else { return };
        // It may be a later one.
        if Arc::ptr_eq(&shared.opening, &self.opening) {
            shared.parts -= 1;
            if shared.parts == 0 {
                table.opening.remove(&self.key);
            }
        }
    }
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
        Self { source, table: Mutex::default() }
    }

    /// Where a number belongs that is not of now.
    pub(super) fn find(&self, number: u64) -> Room {
        let room = room_of(number);
        if room == LIST {
            return Room::List;
        }
        match self.table.lock().open.get_mut(&room) {
            Some(open) => {
                open.used = Instant::now();
                Room::In(open.vfs.clone(), room)
            }
            None => Room::Gone,
        }
    }

    /// A file was opened there, or closed.
    pub(super) fn counts(&self, number: u64, opened: bool) {
        if let Some(open) = self.table.lock().open.get_mut(&room_of(number)) {
            open.handles = if opened { open.handles + 1 } else { open.handles.saturating_sub(1) };
        }
    }

    /// The root of a snapshot, which is opened if it is not. Nothing is held meanwhile: other snapshots are entered as ever.
    pub(super) async fn enter(&self, name: &[u8]) -> vfs::Result<FileAttr> {
        let names = self.source.names().await.map_err(failed)?;
        let state = names.iter().find(|(there, _)| there == name).map(|(_, state)| *state);
        let state = state.ok_or(Error::NotFound)?;
        let at_hand = self.table.lock().at_hand(name, state);
        let (room, vfs) = match at_hand {
            Some(found) => found,
            None => {
                let part = self.take_part(name, state)?;
                let entered = part.opening.get_or_try_init(|| self.open_room(name, state)).await?;
                entered.clone()
            }
        };
        Ok(attr_in(room, &vfs.attributes(InodeNo::ROOT).await?))
    }

    /// A part in the opening of a state that is not open, if there is room for one more.
    fn take_part(&self, name: &[u8], state: u64) -> vfs::Result<PartInOpening<'_>> {
        let mut table = self.table.lock();
        let key = (name.to_vec(), state);
        if !table.opening.contains_key(&key) {
            table.make_room()?;
        }
        let shared = table.opening.entry(key.clone()).or_default();
        shared.parts += 1;
        Ok(PartInOpening { rooms: self, opening: shared.opening.clone(), key })
    }

    async fn open_room(&self, name: &[u8], state: u64) -> vfs::Result<(u16, Vfs)> {
        let opened = self.source.open(name).await.map_err(failed)?;
        let SnapshotRoom { vfs, keep } = opened.ok_or(Error::NotFound)?;
        let mut table = self.table.lock();
        // From here on it is at hand.
        table.opening.remove(&(name.to_vec(), state));
        // Somebody whose part was forgotten a moment ago may have been as quick.
        if let Some(found) = table.at_hand(name, state) {
            return Ok(found);
        }
        let (name, used) = (name.to_vec(), Instant::now());
        let open = OpenRoom { name, state, vfs: vfs.clone(), handles: 0, used, _keep: keep };
        let room = table.next();
        table.open.insert(room, open);
        Ok((room, vfs))
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

impl RoomTable {
    fn at_hand(&mut self, name: &[u8], state: u64) -> Option<(u16, Vfs)> {
        let found = self.open.iter_mut().find(|(_, open)| open.name == name && open.state == state);
        found.map(|(room, open)| {
            open.used = Instant::now();
            (*room, open.vfs.clone())
        })
    }

    /// A number for one more. Never that of one that was there a moment ago, which the kernel may still know.
    fn next(&mut self) -> u16 {
        loop {
            self.last = if self.last + 1 == LIST { 1 } else { self.last + 1 };
            if !self.open.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// Closes what nobody uses, and if that is not enough, what was not used for longest.
    fn make_room(&mut self) -> vfs::Result<()> {
        self.open.retain(|_, open| open.handles > 0 || open.used.elapsed() < UNUSED);
        if self.open.len() + self.opening.len() < OPEN {
            return Ok(());
        }
        let idle = self.open.iter().filter(|(_, open)| open.handles == 0);
        let Some(oldest) = idle.min_by_key(|(_, open)| open.used).map(|(room, _)| *room) else {
            tracing::warn!(OPEN, "as many snapshots as can be open at once are in use");
            return Err(Error::SnapshotUnavailable);
        };
        self.open.remove(&oldest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::vfs::tests::World;

    /// Snapshots of which one is on a store that does not answer.
    struct Slow {
        vfs: Vfs,
        opened: AtomicUsize,
        go: tokio::sync::Semaphore,
    }

    #[async_trait]
    impl Snapshots for Slow {
        async fn names(&self) -> Result<Vec<(Vec<u8>, u64)>, SnapshotError> {
            let names = ["slow", "fast", "waits"].map(|name| (name.as_bytes().to_vec(), 7));
            Ok(names.to_vec())
        }

        async fn open(&self, name: &[u8]) -> Result<Option<SnapshotRoom>, SnapshotError> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            match name {
                b"slow" => std::future::pending().await,
                b"waits" => self.go.acquire().await?.forget(),
                _ => {}
            }
            Ok(Some(SnapshotRoom { vfs: self.vfs.clone(), keep: Box::new(()) }))
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_hangs_keeps_nobody_from_another_and_one_is_opened_once() {
        let world = World::new().await;
        let (opened, go) = (AtomicUsize::new(0), tokio::sync::Semaphore::new(0));
        let slow = Arc::new(Slow { vfs: world.vfs().clone(), opened, go });
        let rooms = Arc::new(Rooms::new(slow.clone()));
        let enter = |name: &'static str| {
            let rooms = rooms.clone();
            tokio::spawn(async move { rooms.enter(name.as_bytes()).await })
        };
        let hangs = enter("slow");
        let both = [enter("waits"), enter("waits")];
        let within = Duration::from_secs(10);
        tokio::time::timeout(within, enter("fast")).await.unwrap().unwrap().unwrap();
        while slow.opened.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        slow.go.add_permits(1);
        let mut seen = Vec::new();
        for one in both {
            let attr = tokio::time::timeout(within, one).await.unwrap().unwrap().unwrap();
            seen.push(room_of(attr.ino.0));
        }
        assert_eq!(seen[0], seen[1], "it was opened once");
        assert_eq!(slow.opened.load(Ordering::Relaxed), 3);
        // Who gives up leaves nothing behind.
        hangs.abort();
        assert!(hangs.await.is_err());
        assert!(rooms.table.lock().opening.is_empty());
    }
}
