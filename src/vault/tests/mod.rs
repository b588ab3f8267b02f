//! A whole vault over a store in memory, reopened from each of its forms.

mod aside;
mod checkpoints;
mod dropped;
mod durable;
mod following;
mod index;
mod listing;
mod looking_back;
mod looking_far_back;
mod opening;
mod random;
mod read_ahead;
mod reclaim;
mod reclaim_gives_way;
mod reclaim_random;
mod reclaim_readers;
mod recovering;
mod salts;
mod shared_back;
mod simulation;
mod staged;
mod writers;

use crate::log::Ground;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::superblock::{self, Superblock};
use super::*;
use crate::crypto::Keys;
use crate::types::{Generation, InodeNo, MIB, StateAt};
use crate::vfs::{Caller, HandleId, OpenFlags, SetAttributes, Vfs, WriteAt};

pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) const USER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

/// A bucket and the machines that use it.
pub(super) struct World {
    ground: Ground,
}

impl Deref for World {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

/// One machine's name, and its mount options.
#[derive(Clone, Copy, Default)]
pub(super) struct Machines<'a> {
    pub name: &'a str,
    pub take_over: bool,
    pub accept_rollback: bool,
    pub accept_damage: bool,
    pub read_only: bool,
    /// Makes the reader follow, and look by itself only after this long.
    pub refresh: Option<Duration>,
    pub at: Option<&'a StateAt>,
    /// Replaces the default cache size.
    pub cache_size: Option<u64>,
}

pub(super) fn machine(name: &str) -> Machines<'_> {
    Machines { name, ..Machines::default() }
}

impl World {
    pub(super) async fn new() -> Self {
        let ground = Ground::new(Duration::from_secs(2));
        // Without a passphrase: Argon2's floor would make thousands of reopenings slow.
        let superblock = Superblock::first(ground.keys.vault(), Vec::new());
        superblock::write(&ground.bucket, &ground.keys, &superblock).await.unwrap();
        Self { ground }
    }

    pub(super) fn state_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name).join("state")
    }

    pub(super) async fn try_open(&self, who: Machines<'_>) -> Result<Arc<Vault>> {
        let secret = MasterKey::from_bytes(self.master);
        let unlocked = unlock(&self.bucket, None, &secret).await?;
        self.open_unlocked(unlocked, who).await
    }

    pub(super) async fn open_unlocked(
        &self,
        unlocked: Unlocked,
        who: Machines<'_>,
    ) -> Result<Arc<Vault>> {
        let data = self.dir.path().join(who.name).join("data");
        // The machine lock is shared by all processes: the test's own directory is part of the name.
        let id = format!("{} {}", who.name, self.dir.path().display());
        let machine = Machine::identify(Some(id), &data)?;
        let options = VaultOptions {
            bucket: self.bucket.clone(),
            unlocked,
            state_dir: self.state_dir(who.name),
            machine,
            memory: 64 * MIB,
            cache_size: who.cache_size.or(Some(512 * MIB)),
            at: who.at.cloned(),
            read_only: who.read_only,
            refresh: who.refresh,
            take_over: who.take_over,
            accept_rollback: who.accept_rollback,
            accept_damage: who.accept_damage,
            single_machine: false,
            fsync: Fsync::Local,
            mountpoint: format!("/mnt/{}", who.name),
        };
        Vault::open(options).await
    }

    pub(super) async fn open(&self, name: &str) -> Arc<Vault> {
        self.try_open(machine(name)).await.unwrap()
    }

    /// Another machine, which has only the bucket, finds exactly this.
    pub(super) async fn shows_elsewhere(&self, model: &BTreeMap<String, Vec<u8>>) {
        let elsewhere = self.open("b").await;
        assert_eq!(tree(&elsewhere).await, *model);
        elsewhere.close(LONG).await.unwrap();
    }
}

/// As after kill -9: nothing is finished or released. What dropping still writes (sled flushes then) is undone: the state
/// directory becomes what it was while everything was open.
pub(super) async fn kill(vault: Arc<Vault>) {
    let dir = vault.options().state_dir.clone();
    let at_the_kill = tempfile::tempdir().unwrap();
    copy_state(&dir, at_the_kill.path());
    let writer = vault.writer.as_ref();
    let ending = writer.map(|writer| (Arc::downgrade(&writer.journal), writer.staging.ending()));
    drop(vault);
    // The tasks end when the runtime next runs them, and their disk work goes on in threads; until then the files are
    // theirs.
    let begun = std::time::Instant::now();
    while ending.as_ref().is_some_and(|(journal, staging)| journal.strong_count() > 0 || !staging())
    {
        assert!(begun.elapsed() < LONG, "what was killed is still at work");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    std::fs::remove_dir_all(&dir).unwrap();
    copy_state(at_the_kill.path(), &dir);
}

/// Copies a state directory that may be in use: first the index, then the journal, then staging, so that each copy has at
/// least what the one before relies on. Starts over if a segment or a pack came, went or was renamed meanwhile: that copy
/// would be a state which no kill leaves.
pub(super) fn copy_state(from: &std::path::Path, to: &std::path::Path) {
    for _ in 0..1000 {
        let before = in_use(from);
        copy_once(from, to);
        if in_use(from) == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
    panic!("the journal or staging of {} changes all the time", from.display());
}

/// The names of journal segments and packs.
fn in_use(dir: &std::path::Path) -> std::collections::BTreeSet<std::path::PathBuf> {
    let rooms =
        ["journal", "staging"].into_iter().flat_map(|room| walkdir::WalkDir::new(dir.join(room)));
    rooms.filter_map(Result::<_, _>::ok).map(walkdir::DirEntry::into_path).collect()
}

fn copy_once(from: &std::path::Path, to: &std::path::Path) {
    let order = |name: &std::ffi::OsStr| match name.to_str() {
        Some("index") => 0,
        Some("journal") => 1,
        _ => 2,
    };
    let files = walkdir::WalkDir::new(from)
        .sort_by(move |a, b| order(a.file_name()).cmp(&order(b.file_name())));
    for entry in files.into_iter().filter_map(Result::<_, _>::ok) {
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else if entry.file_type().is_file() {
            match std::fs::copy(entry.path(), &target) {
                // A file of the index or the cache; or the copy starts over anyway.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

pub(super) async fn write(vfs: &Vfs, name: &str, data: &[u8]) {
    try_write(vfs, name, data).await.unwrap();
}

pub(super) async fn try_write(vfs: &Vfs, name: &str, data: &[u8]) -> crate::vfs::Result<()> {
    let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
    let (_, handle) = vfs.create(&USER, InodeNo::ROOT, name.as_bytes(), 0o644, flags).await?;
    let mut at = 0;
    for part in data.chunks(128 << 10) {
        vfs.write(handle, WriteAt::Offset(at), part).await?;
        at += part.len() as u64;
    }
    vfs.flush(handle).await?;
    vfs.release(handle).await
}

pub(super) async fn read(vfs: &Vfs, name: &[u8]) -> Vec<u8> {
    let found = vfs.lookup(InodeNo::ROOT, name).await.unwrap();
    let data = read_at(vfs, found.ino).await.unwrap();
    assert_eq!(data.len() as u64, found.size);
    data
}

/// Reads a file by its inode number.
pub(super) async fn read_at(vfs: &Vfs, ino: InodeNo) -> crate::vfs::Result<Vec<u8>> {
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let handle = vfs.open(ino, flags).await?;
    let data = read_handle(vfs, handle).await;
    vfs.release(handle).await?;
    data
}

/// Reads all that an open file shows.
pub(super) async fn read_handle(vfs: &Vfs, handle: HandleId) -> crate::vfs::Result<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let part = vfs.read_data(handle, data.len() as u64, 128 << 10).await?;
        if part.is_empty() {
            return Ok(data);
        }
        data.extend_from_slice(&part);
    }
}

/// Names and contents of the root's files.
pub(super) async fn tree(vault: &Vault) -> BTreeMap<String, Vec<u8>> {
    let vfs = vault.vfs();
    let mut found = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let part = vfs.read_dir(InodeNo::ROOT, cookie, 100).await.unwrap();
        let Some(last) = part.last() else { break };
        cookie = last.cookie;
        for entry in part {
            if entry.kind == libc::S_IFREG {
                let data = read(&vfs, &entry.name).await;
                found.insert(String::from_utf8(entry.name).unwrap(), data);
            }
        }
    }
    found
}

pub(super) fn bytes(seed: usize, length: usize) -> Vec<u8> {
    crate::types::noise(seed as u64, length)
}

/// Writes files of various sizes, and returns their content.
pub(super) async fn fill(vault: &Vault, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let mut model = BTreeMap::new();
    for (n, length) in [0, 1, 4096, 16_384, 16_385, 300_000, 2 << 20].into_iter().enumerate() {
        let name = format!("{prefix}{n}");
        let data = bytes(n, length);
        write(&vault.vfs(), &name, &data).await;
        model.insert(name, data);
    }
    model
}
