//! A disk that fails by plan and can lose its power. The files are real ones below a directory; the simulation also tracks
//! what of them is durable (`PROTOCOL.md`, "The medium").

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use super::super::medium::DiskChange;

/// What happens to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// The disk has no room. Changes that need none succeed: an fsync, a removal, a truncation.
    Full,
    /// The change fails (EIO). Part of a write may be there.
    Fails,
    /// The process or the power ends before the change: nothing is changed any more.
    Ends,
}

/// Decides each change's fate by its number and kind.
type Plan = Box<dyn FnMut(u64, &str) -> Option<DiskFault> + Send>;

/// Identifies a file, whatever its names.
type FileId = u64;

#[derive(Default)]
struct FileContents {
    durable: Vec<u8>,
    /// Its content when its last name was removed.
    last: Option<Vec<u8>>,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    changes: u64,
    written: DefaultHasher,
    ended: bool,
    dice: u64,
    next: FileId,
    by_inode: HashMap<u64, FileId>,
    files: BTreeMap<FileId, FileContents>,
    /// The names of each directory as of its last fsync.
    names: BTreeMap<PathBuf, BTreeMap<String, FileId>>,
    /// Directories that were renamed since their parent's last fsync.
    moved: Vec<(PathBuf, PathBuf)>,
}

pub(crate) struct SimulatedDisk {
    root: PathBuf,
    /// Names of directories whose files can be lost at any time: they are not tracked.
    unknown: Vec<&'static str>,
    state: Mutex<State>,
}

static DISKS: Mutex<Vec<Weak<SimulatedDisk>>> = Mutex::new(Vec::new());

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimulatedDisk({})", self.root.display())
    }
}

impl SimulatedDisk {
    /// A disk of everything below this directory, except directories of these names.
    pub(crate) fn at(root: &Path, unknown: &[&'static str]) -> Arc<Self> {
        let disk = Self { root: root.into(), unknown: unknown.into(), state: Mutex::default() };
        let disk = Arc::new(disk);
        let mut disks = DISKS.lock();
        disks.retain(|disk| disk.strong_count() > 0);
        disks.push(Arc::downgrade(&disk));
        disk
    }

    /// The simulated disk that holds a path, if there is one.
    pub(crate) fn under(path: &Path) -> Option<Arc<Self>> {
        let found =
            DISKS.lock().iter().filter_map(Weak::upgrade).find(|d| path.starts_with(&d.root));
        found.filter(|disk| !disk.is_unknown(path))
    }

    fn is_unknown(&self, path: &Path) -> bool {
        path.iter().any(|part| self.unknown.iter().any(|name| part == *name))
    }

    /// From now on this plan decides.
    pub(crate) fn plan(&self, plan: impl FnMut(u64, &str) -> Option<DiskFault> + Send + 'static) {
        self.state.lock().plan = Some(Box::new(plan));
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.state.lock().plan = None;
    }

    /// Ends the process: nothing is changed any more.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// How many changes were attempted.
    pub(crate) fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    pub(crate) fn before(&self, change: DiskChange<'_>) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.next_fault(word(change));
        match fault {
            Some(DiskFault::Full)
                if !matches!(
                    change,
                    DiskChange::Sync(_)
                        | DiskChange::SyncDir(_)
                        | DiskChange::Remove(_)
                        | DiskChange::SetLength
                ) =>
            {
                Err(io::ErrorKind::StorageFull.into())
            }
            None | Some(DiskFault::Full) => {
                state.forget_if_last(change);
                Ok(())
            }
            Some(DiskFault::Fails | DiskFault::Ends) => {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
    }

    /// A digest of everything that was to be written.
    pub(crate) fn written(&self) -> u64 {
        self.state.lock().written.finish()
    }

    /// How much of a write is made, and how it fails.
    pub(crate) fn before_write(&self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let (mut state, length) = (self.state.lock(), bytes.len());
        state.written.write(bytes);
        let fault = state.next_fault("write");
        let part = state.roll() as usize % (length + 1);
        match fault {
            None => (length, None),
            Some(DiskFault::Full) => (part, Some(io::ErrorKind::StorageFull.into())),
            Some(DiskFault::Fails) => (part, Some(io::Error::from_raw_os_error(libc::EIO))),
            Some(DiskFault::Ends) => (0, Some(io::Error::from_raw_os_error(libc::EIO))),
        }
    }

    pub(crate) fn after(&self, change: DiskChange<'_>) {
        let mut state = self.state.lock();
        match change {
            DiskChange::Create(path) => {
                if let Ok(metadata) = path.metadata() {
                    // If it was truncated in place, it is the same file. Otherwise its inode number may have been another
                    // file's before.
                    let known = state
                        .names
                        .get(parent(path))
                        .is_some_and(|names| names.contains_key(&name(path)));
                    if !known {
                        state.by_inode.remove(&metadata.ino());
                    }
                    state.id(metadata.ino());
                }
            }
            DiskChange::Sync(file) => {
                let Ok(metadata) = file.metadata() else { return };
                let id = state.id(metadata.ino());
                if let Ok(now) =
                    fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))
                {
                    state.files.entry(id).or_default().durable = now;
                }
            }
            DiskChange::SyncDir(path) => {
                let now = state.listing(path);
                state.names.insert(path.to_owned(), now);
                state.moved.retain(|(from, _)| parent(from) != path);
            }
            DiskChange::Rename(from, to) if to.is_dir() => {
                let below: Vec<_> =
                    state.names.keys().filter(|dir| dir.starts_with(from)).cloned().collect();
                for dir in below {
                    let names = state.names.remove(&dir).unwrap_or_default();
                    let moved =
                        dir.strip_prefix(from).map_or_else(|_| to.into(), |rest| to.join(rest));
                    state.names.insert(moved, names);
                }
                state.moved.push((from.to_owned(), to.to_owned()));
            }
            _ => {}
        }
    }

    /// After a kill: the next process finds everything as it is.
    pub(crate) fn after_kill(&self) {
        let mut state = self.state.lock();
        (state.ended, state.plan) = (false, None);
    }

    /// After a power cut: what was not fsynced is there, partly there, or not. Returns how many files have changed.
    pub(crate) fn after_power_cut(&self, dice: &mut StdRng) -> usize {
        let mut state = self.state.lock();
        (state.ended, state.plan) = (false, None);
        for (from, to) in std::mem::take(&mut state.moved).into_iter().rev() {
            if dice.random() && to.is_dir() && !from.exists() {
                state.move_back(&to, &from);
            }
        }
        let mut changed = 0;
        let mut left: BTreeMap<PathBuf, FileId> = BTreeMap::new();
        let mut contents: BTreeMap<FileId, Vec<u8>> = BTreeMap::new();
        for dir in self.directories() {
            let now = state.listing(&dir);
            let durable = state.names.get(&dir).cloned().unwrap_or_default();
            let new: BTreeSet<FileId> = later(&now, &durable, dice);
            let all: BTreeSet<_> = now.keys().chain(durable.keys()).cloned().collect();
            for name in all {
                let (is, was) = (now.get(&name).copied(), durable.get(&name).copied());
                if let Some(id) = is {
                    contents.entry(id).or_insert_with(|| fs::read(dir.join(&name)).unwrap());
                    fs::remove_file(dir.join(&name)).unwrap();
                }
                let kept = if is.or(was).is_some_and(|id| new.contains(&id)) { is } else { was };
                changed += usize::from(kept != is);
                left.extend(kept.map(|id| (dir.join(&name), id)));
            }
        }
        let mut made: BTreeMap<FileId, PathBuf> = BTreeMap::new();
        for (path, id) in &left {
            if let Some(first) = made.get(id) {
                fs::hard_link(first, path).unwrap();
                continue;
            }
            let file = state.files.entry(*id).or_default();
            let now = contents.remove(id).or_else(|| file.last.clone()).unwrap_or_default();
            let after = survivor(&file.durable, &now, dice);
            changed += usize::from(after != now);
            fs::write(path, after).unwrap();
            made.insert(*id, path.clone());
        }
        drop(state);
        self.begin_anew();
        changed
    }

    /// Takes everything that is there now as durable, and forgets what was before.
    pub(crate) fn begin_anew(&self) {
        let mut state = self.state.lock();
        let (changes, written, next) = (state.changes, state.written.clone(), state.next);
        *state = State { changes, written, next, ..State::default() };
        for dir in self.directories() {
            let names = state.listing(&dir);
            for (name, id) in &names {
                state.files.entry(*id).or_default().durable = fs::read(dir.join(name)).unwrap();
            }
            state.names.insert(dir, names);
        }
    }

    fn directories(&self) -> Vec<PathBuf> {
        let known = |entry: &walkdir::DirEntry| !self.is_unknown(entry.path());
        let all =
            walkdir::WalkDir::new(&self.root).sort_by_file_name().into_iter().filter_entry(known);
        all.filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_dir())
            .map(walkdir::DirEntry::into_path)
            .collect()
    }
}

impl State {
    fn next_fault(&mut self, word: &str) -> Option<DiskFault> {
        if self.ended {
            return Some(DiskFault::Ends);
        }
        self.changes += 1;
        let changes = self.changes;
        let fault = self.plan.as_mut().and_then(|plan| plan(changes, word));
        self.ended = fault == Some(DiskFault::Ends);
        fault
    }

    /// A random number, the same in the same run.
    fn roll(&mut self) -> u64 {
        self.dice =
            (self.dice + self.changes).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.dice >> 33
    }

    fn id(&mut self, inode: u64) -> FileId {
        *self.by_inode.entry(inode).or_insert_with(|| {
            self.next += 1;
            self.next
        })
    }

    fn listing(&mut self, dir: &Path) -> BTreeMap<String, FileId> {
        let Ok(entries) = fs::read_dir(dir) else { return BTreeMap::new() };
        let files = entries.filter_map(Result::ok).filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((entry.file_name().into_string().ok()?, metadata.ino()))
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        files.into_iter().map(|(name, inode)| (name, self.id(inode))).collect()
    }

    /// Called when a name is about to go: if it is the file's only one, keeps its bytes, because a power cut may bring it
    /// back.
    fn forget_if_last(&mut self, change: DiskChange<'_>) {
        let (DiskChange::Remove(path) | DiskChange::Rename(_, path)) = change else { return };
        let Ok(metadata) = fs::symlink_metadata(path) else { return };
        if metadata.is_file() && metadata.nlink() == 1 {
            let id = self.id(metadata.ino());
            self.files.entry(id).or_default().last = fs::read(path).ok();
            self.by_inode.remove(&metadata.ino());
        }
    }

    fn move_back(&mut self, to: &Path, from: &Path) {
        fs::rename(to, from).unwrap();
        let below: Vec<_> = self.names.keys().filter(|dir| dir.starts_with(to)).cloned().collect();
        for dir in below {
            let names = self.names.remove(&dir).unwrap_or_default();
            let moved = dir.strip_prefix(to).map_or_else(|_| from.into(), |rest| from.join(rest));
            self.names.insert(moved, names);
        }
    }
}

/// Which files have the names that they were given since the last fsync of their directory, rather than the earlier ones. A
/// rename is atomic: the file that loses a name and the file that gets it change together.
fn later(
    now: &BTreeMap<String, FileId>,
    durable: &BTreeMap<String, FileId>,
    dice: &mut StdRng,
) -> BTreeSet<FileId> {
    let mut groups: Vec<BTreeSet<FileId>> = Vec::new();
    for (name, id) in now.iter().chain(durable) {
        let mut group = BTreeSet::from([*id]);
        group.extend(now.get(name).into_iter().chain(durable.get(name)));
        let (met, rest): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|other| !other.is_disjoint(&group));
        group.extend(met.into_iter().flatten());
        groups = rest;
        groups.push(group);
    }
    groups.into_iter().filter(|_| dice.random()).flatten().collect()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn word(change: DiskChange<'_>) -> &'static str {
    match change {
        DiskChange::Create(_) => "create",
        DiskChange::SetLength => "set length",
        DiskChange::TakeRoom => "take room",
        DiskChange::Sync(_) => "sync",
        DiskChange::SyncDir(_) => "sync directory",
        DiskChange::MakeDir => "make directory",
        DiskChange::Rename(..) => "rename",
        DiskChange::Link => "link",
        DiskChange::Remove(_) => "remove",
    }
}

/// What is left of a file: the durable part for certain; of the rest a random part, perhaps not as written.
pub(crate) fn survivor(durable: &[u8], now: &[u8], dice: &mut StdRng) -> Vec<u8> {
    let common = durable.iter().zip(now).take_while(|(a, b)| a == b).count();
    let mut left = now[..common].to_vec();
    let unsynced = &now[common..];
    match dice.random_range(0..4) {
        0 => left.extend_from_slice(&durable[common..]),
        1 => left.extend_from_slice(unsynced),
        2 => left.extend_from_slice(&unsynced[..dice.random_range(0..=unsynced.len())]),
        _ => {
            let mut torn = unsynced.to_vec();
            if !torn.is_empty() {
                let from = dice.random_range(0..torn.len());
                if dice.random() {
                    dice.fill_bytes(&mut torn[from..]);
                } else {
                    torn[from..].fill(0);
                }
            }
            left.extend(torn);
        }
    }
    // A file that was truncated since keeps at least its durable length.
    if left.len() < durable.len() {
        left.extend_from_slice(&durable[left.len()..]);
    }
    left
}
