//! `/.snapshots/NAME/`: old states inside a mount. Each open state has a *tag*: the upper bits of the inode numbers that the
//! kernel sees. The vault as it is now has tag 0.

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

/// The name in the root that leads to the snapshots. No listing of the root shows it.
pub(super) const NAME: &[u8] = b".snapshots";
/// The tag of the directory that lists the snapshots.
const LIST: u16 = u16::MAX;
/// How many states are open, or being opened, at once. Each has its own index, and blocks of pages in memory.
const OPEN: usize = 8;
/// How long a state stays open while nothing in it is used or held open. It is then closed when another is opened.
const UNUSED: Duration = Duration::from_mins(10);

/// The snapshots of a vault, as this module sees them.
#[async_trait]
pub trait Snapshots: Send + Sync + 'static {
    /// The name of each snapshot, and the number of the state that it names.
    async fn names(&self) -> Result<Vec<(Vec<u8>, u64)>, SnapshotError>;
    /// Opens a snapshot; `None` if there is none of that name.
    async fn open(&self, name: &[u8]) -> Result<Option<OpenedSnapshot>, SnapshotError>;
}

/// Why a snapshot cannot be shown, for the log.
pub type SnapshotError = Box<dyn std::error::Error + Send + Sync>;

/// A snapshot as a file system.
pub struct OpenedSnapshot {
    /// Its file system, read-only.
    pub vfs: Vfs,
    /// Keeps it open while this lives.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Logs the reason, and makes an EIO of it.
fn failed(error: SnapshotError) -> Error {
    tracing::warn!(%error, "a snapshot cannot be shown");
    Error::SnapshotUnavailable
}

/// Where an inode number of the kernel's belongs.
pub(super) enum NodePlace {
    /// In this file system; the inodes that it returns get the tag.
    In(Vfs, u16),
    /// The directory that lists the snapshots.
    List,
    /// A state that is closed: the kernel has to look the name up again.
    Gone,
}

/// An open state.
struct OpenState {
    name: Vec<u8>,
    state: u64,
    vfs: Vfs,
    handles: usize,
    used: Instant,
    _keep: Box<dyn Any + Send + Sync>,
}

/// The states that are open or being opened.
pub(super) struct SnapshotStates {
    source: Arc<dyn Snapshots>,
    table: Mutex<StateTable>,
}

#[derive(Default)]
struct StateTable {
    open: BTreeMap<u16, OpenState>,
    /// By name and state. A request for one that is being opened waits for that opening, and for no other.
    opening: HashMap<(Vec<u8>, u64), SharedOpening>,
    /// The tag that was given last.
    last: u16,
}

/// The tag and file system of a state, once it is open.
type StateOpening = OnceCell<(u16, Vfs)>;

/// An opening under way, and how many requests take part in it.
#[derive(Default)]
struct SharedOpening {
    opening: Arc<StateOpening>,
    parts: usize,
}

/// A request's part in the opening of a state. The last to be dropped removes the opening from the table, however it
/// ended.
struct PartInOpening<'a> {
    states: &'a SnapshotStates,
    key: (Vec<u8>, u64),
    opening: Arc<StateOpening>,
}

impl Drop for PartInOpening<'_> {
    fn drop(&mut self) {
        let mut table = self.states.table.lock();
        let Some(shared) = table.opening.get_mut(&self.key) else { return };
        // It may be a later opening of the same state.
        if Arc::ptr_eq(&shared.opening, &self.opening) {
            shared.parts -= 1;
            if shared.parts == 0 {
                table.opening.remove(&self.key);
            }
        }
    }
}

/// The tag of the state that an inode number belongs to.
pub(super) fn tag_of(number: u64) -> u16 {
    u16::try_from(number >> OWN_BITS).unwrap_or(0)
}

/// The number by which the kernel knows an inode of a state.
pub(super) fn tagged(tag: u16, ino: InodeNo) -> u64 {
    u64::from(tag) << OWN_BITS | ino.0
}

/// The attributes of an inode of a state, as the kernel gets them.
pub(super) fn attr_in(tag: u16, seen: &Attributes) -> FileAttr {
    file_attr(&Attributes { ino: InodeNo(tagged(tag, seen.ino)), ..*seen })
}

impl SnapshotStates {
    pub(super) fn new(source: Arc<dyn Snapshots>) -> Self {
        Self { source, table: Mutex::default() }
    }

    /// Where a number belongs whose tag is not 0.
    pub(super) fn find(&self, number: u64) -> NodePlace {
        let tag = tag_of(number);
        if tag == LIST {
            return NodePlace::List;
        }
        match self.table.lock().open.get_mut(&tag) {
            Some(open) => {
                open.used = Instant::now();
                NodePlace::In(open.vfs.clone(), tag)
            }
            None => NodePlace::Gone,
        }
    }

    /// Counts a file of a state that was opened: the state stays open with it.
    pub(super) fn file_opened(&self, number: u64) {
        if let Some(open) = self.table.lock().open.get_mut(&tag_of(number)) {
            open.handles += 1;
        }
    }

    /// Counts a file of a state that was closed.
    pub(super) fn file_closed(&self, number: u64) {
        if let Some(open) = self.table.lock().open.get_mut(&tag_of(number)) {
            open.handles = open.handles.saturating_sub(1);
        }
    }

    /// Attributes of the root of a snapshot, which is opened if necessary. No lock is held meanwhile, so other
    /// snapshots can be entered.
    pub(super) async fn enter(&self, name: &[u8]) -> vfs::Result<FileAttr> {
        let names = self.source.names().await.map_err(failed)?;
        let state = names.iter().find(|(there, _)| there == name).map(|(_, state)| *state);
        let state = state.ok_or(Error::NotFound)?;
        let at_hand = self.table.lock().at_hand(name, state);
        let (tag, vfs) = match at_hand {
            Some(found) => found,
            None => {
                let part = self.take_part(name, state)?;
                let entered = part.opening.get_or_try_init(|| self.open_state(name, state)).await?;
                entered.clone()
            }
        };
        Ok(attr_in(tag, &vfs.attributes(InodeNo::ROOT).await?))
    }

    /// Joins the opening of a state that is not open, or begins it if one more may be open.
    fn take_part(&self, name: &[u8], state: u64) -> vfs::Result<PartInOpening<'_>> {
        let mut table = self.table.lock();
        let key = (name.to_vec(), state);
        if !table.opening.contains_key(&key) {
            table.close_idle()?;
        }
        let shared = table.opening.entry(key.clone()).or_default();
        shared.parts += 1;
        Ok(PartInOpening { states: self, opening: shared.opening.clone(), key })
    }

    async fn open_state(&self, name: &[u8], state: u64) -> vfs::Result<(u16, Vfs)> {
        let opened = self.source.open(name).await.map_err(failed)?;
        let OpenedSnapshot { vfs, keep } = opened.ok_or(Error::NotFound)?;
        let mut table = self.table.lock();
        // The state is found in `open` from here on.
        table.opening.remove(&(name.to_vec(), state));
        // A request whose opening was removed from the table a moment ago may have been faster.
        if let Some(found) = table.at_hand(name, state) {
            return Ok(found);
        }
        let (name, used) = (name.to_vec(), Instant::now());
        let open = OpenState { name, state, vfs: vfs.clone(), handles: 0, used, _keep: keep };
        let tag = table.next();
        table.open.insert(tag, open);
        Ok((tag, vfs))
    }

    /// Attributes of the directory of the snapshots. It has the owner of the root.
    pub(super) fn list_attr(root: &Attributes) -> FileAttr {
        let mode = libc::S_IFDIR | 0o555;
        attr_in(LIST, &Attributes { ino: InodeNo::ROOT, mode, nlink: 2, ..*root })
    }

    /// Its entries after the cookie `after`, each with its cookie and inode number.
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

    /// Attributes of a snapshot in a listing: only that it is a directory. The kernel must not remember them: the state
    /// gets its tag when the name is looked up.
    pub(super) fn entry_attr(root: &Attributes, number: u64) -> FileAttr {
        let mode = libc::S_IFDIR | 0o555;
        file_attr(&Attributes { ino: InodeNo(number), mode, nlink: 2, ..*root })
    }
}

impl StateTable {
    fn at_hand(&mut self, name: &[u8], state: u64) -> Option<(u16, Vfs)> {
        let found = self.open.iter_mut().find(|(_, open)| open.name == name && open.state == state);
        found.map(|(tag, open)| {
            open.used = Instant::now();
            (*tag, open.vfs.clone())
        })
    }

    /// A free tag. Tags are reused as late as possible, since the kernel may still know an old one.
    fn next(&mut self) -> u16 {
        loop {
            self.last = if self.last + 1 == LIST { 1 } else { self.last + 1 };
            if !self.open.contains_key(&self.last) {
                return self.last;
            }
        }
    }

    /// Closes unused states; if that is not enough, the one that has been idle for longest.
    fn close_idle(&mut self) -> vfs::Result<()> {
        self.open.retain(|_, open| open.handles > 0 || open.used.elapsed() < UNUSED);
        if self.open.len() + self.opening.len() < OPEN {
            return Ok(());
        }
        let idle = self.open.iter().filter(|(_, open)| open.handles == 0);
        let Some(oldest) = idle.min_by_key(|(_, open)| open.used).map(|(tag, _)| *tag) else {
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

    /// Snapshots, one of which is on a store that does not answer.
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

        async fn open(&self, name: &[u8]) -> Result<Option<OpenedSnapshot>, SnapshotError> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            match name {
                b"slow" => std::future::pending().await,
                b"waits" => self.go.acquire().await?.forget(),
                _ => {}
            }
            Ok(Some(OpenedSnapshot { vfs: self.vfs.clone(), keep: Box::new(()) }))
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_hangs_keeps_nobody_from_another_and_one_is_opened_once() {
        let world = World::new().await;
        let (opened, go) = (AtomicUsize::new(0), tokio::sync::Semaphore::new(0));
        let slow = Arc::new(Slow { vfs: world.vfs().clone(), opened, go });
        let states = Arc::new(SnapshotStates::new(slow.clone()));
        let enter = |name: &'static str| {
            let states = states.clone();
            tokio::spawn(async move { states.enter(name.as_bytes()).await })
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
            seen.push(tag_of(attr.ino.0));
        }
        assert_eq!(seen[0], seen[1], "it was opened once");
        assert_eq!(slow.opened.load(Ordering::Relaxed), 3);
        // A request that gives up leaves nothing behind.
        hangs.abort();
        assert!(hangs.await.is_err());
        assert!(states.table.lock().opening.is_empty());
    }
}
