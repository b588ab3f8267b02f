//! One machine's disk, a store and a clock, all from one seed; the lives of the program on them; and a look at what it
//! shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;

use super::keys::KnownKeys;
use super::model::{ModelFile, ModelNode, Tree};
use crate::log::Ground;
use crate::os::{Simulated, SimulatedDisk};
use crate::store::Bucket;
use crate::types::{InodeNo, MIB, Timestamp};
use crate::vault::superblock::{self, Superblock};
use crate::vault::tests::read_at;
use crate::vault::{Error, Fsync, Machine, Result, Unlocked, Vault, VaultOptions, unlock};
use crate::vfs::Vfs;

/// The time at which every run begins.
const BEGIN: Duration = Duration::from_secs(1_800_000_000);
/// Longer than any deadline of the program: what takes longer hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(1200);

/// A life of the program, from start to end.
pub(super) struct Life {
    // In this order: the tasks end first, then what they used.
    pub(super) runtime: Runtime,
    pub(super) vault: Option<Arc<Vault>>,
    began: tokio::time::Instant,
}

impl Life {
    fn elapsed(&self) -> Duration {
        self.runtime.block_on(async { self.began.elapsed() })
    }
}

pub(super) struct World {
    pub(super) ground: Ground,
    pub(super) disk: Arc<SimulatedDisk>,
    pub(super) dice: StdRng,
    pub(super) ring: KnownKeys,
    boot: u32,
    elapsed: Duration,
    /// How many readers there were that had only the bucket.
    strangers: u32,
    _simulated: Simulated,
}

/// Who opens the vault, and how.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) name: &'a str,
    pub(super) read_only: bool,
    pub(super) take_over: bool,
    /// Its own access to the bucket, and how often it looks there for what others write.
    pub(super) follows: Option<(&'a Bucket, Duration)>,
}

impl<'a> Who<'a> {
    /// A machine of this name that writes.
    pub(super) const fn writes(name: &'a str) -> Self {
        Self { name, read_only: false, take_over: false, follows: None }
    }
}

pub(super) const OWNER: Who<'_> = Who::writes("a");

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let simulated = Simulated::begin(seed);
        Timestamp::set_clock(Some(SystemTime::UNIX_EPOCH + BEGIN));
        let dir = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
        let ground = Ground::below("", Duration::from_secs(30), dir);
        let disk = SimulatedDisk::at(&ground.dir.path().join("a"), &["index", "cache"]);
        let superblock = Superblock::first(ground.keys.vault(), Vec::new());
        let written = superblock::write(&ground.bucket, &ground.keys, &superblock);
        runtime().block_on(written).unwrap();
        let dice = StdRng::seed_from_u64(seed.rotate_left(7));
        let (boot, elapsed, strangers) = (0, Duration::ZERO, 0);
        let ring = KnownKeys::of(ground.master);
        Self { ground, disk, dice, ring, boot, elapsed, strangers, _simulated: simulated }
    }

    pub(super) fn state_dir(&self, name: &str) -> PathBuf {
        self.ground.dir.path().join(name).join("state")
    }

    /// A life of the program, without a vault yet.
    pub(super) fn begin(&self) -> Life {
        let runtime = runtime();
        let began = runtime.block_on(async { tokio::time::Instant::now() });
        Life { runtime, vault: None, began }
    }

    /// Sets the clocks of the store and of the machine to the program's time.
    pub(super) fn tick(&self, life: &Life) {
        let lived = life.elapsed();
        let time = SystemTime::UNIX_EPOCH + BEGIN + self.elapsed + lived;
        self.ground.store.set_time(time);
        Timestamp::set_clock(Some(time));
    }

    /// Unlocks with the keys that may open the vault.
    async fn unlock(&self, bucket: &Bucket) -> Result<Unlocked> {
        let mut refused = None;
        for master in self.ring.masters() {
            match unlock(bucket, None, master).await {
                Ok(unlocked) => return Ok(unlocked),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or(Error::WrongSecret))
    }

    /// The machine is off for `time`.
    pub(super) fn sleep(&mut self, time: Duration) {
        self.elapsed += time;
    }

    pub(super) async fn open(&self, who: Who<'_>) -> Result<Arc<Vault>> {
        let bucket = who.follows.map_or(&self.ground.bucket, |(bucket, _)| bucket);
        let unlocked = self.unlock(bucket).await?;
        let data = self.ground.dir.path().join(who.name).join("data");
        // Unique to this thread, and the same when it runs the seed again.
        let id = format!("{} {} {:?}", who.name, std::process::id(), std::thread::current().id());
        let machine = Machine::identify(Some(id), &data)?;
        let options = VaultOptions {
            bucket: bucket.clone(),
            unlocked,
            state_dir: self.state_dir(who.name),
            machine: Machine { boot: format!("boot {}", self.boot), ..machine },
            memory: 64 * MIB,
            cache_size: Some(128 * MIB),
            at: None,
            read_only: who.read_only,
            refresh: who.follows.map(|(_, every)| every),
            take_over: who.take_over,
            accept_rollback: false,
            accept_damage: false,
            single_machine: false,
            fsync: Fsync::Local,
            mountpoint: format!("/mnt/{}", who.name),
        };
        Vault::open(options).await
    }

    /// The name of a machine that has only the bucket.
    pub(super) fn stranger(&mut self) -> String {
        self.strangers += 1;
        format!("stranger {}", self.strangers)
    }

    /// Ends the process. sled would still write to its files, so they are restored to what they were.
    pub(super) fn end(&mut self, life: Life) {
        self.disk.end();
        self.elapsed += life.elapsed();
        let (index, kept) =
            (self.state_dir("a").join("index"), self.ground.dir.path().join("kept"));
        copy(&index, &kept);
        let Life { runtime, vault, .. } = life;
        drop(runtime);
        drop(vault);
        drop(std::fs::remove_dir_all(&index));
        if kept.exists() {
            std::fs::rename(&kept, &index).unwrap();
        }
    }

    /// Another boot of the machine: what was not fsynced is there, or not.
    pub(super) fn reboot(&mut self) {
        self.disk.after_power_cut(&mut self.dice);
        self.boot += 1;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        Timestamp::set_clock(None);
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in walkdir::WalkDir::new(from).into_iter().filter_map(std::result::Result::ok) {
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        match entry.file_type().is_dir() {
            true => std::fs::create_dir_all(&target).unwrap(),
            // One that sled has just removed.
            false => drop(std::fs::copy(entry.path(), &target)),
        }
    }
}

/// Everything that a vault shows.
pub(super) async fn look(vault: &Vault) -> std::result::Result<Tree, crate::vfs::Error> {
    let vfs = vault.vfs();
    let mut tree = Tree::new();
    let mut open = vec![(InodeNo::ROOT, String::new())];
    while let Some((directory, above)) = open.pop() {
        for (ino, name) in list(&vfs, directory).await? {
            let (path, is) = (format!("{above}{name}"), vfs.attributes(ino).await?);
            if is.kind() == libc::S_IFDIR {
                open.push((ino, format!("{path}/")));
                tree.insert(path, ModelNode::Directory);
                continue;
            }
            let content = read_at(&vfs, ino).await?;
            assert_eq!(content.len() as u64, is.size, "{path}");
            let file = ModelFile::new(ino.0, is.mode & 0o7777, content);
            tree.insert(path, ModelNode::File(file));
        }
    }
    Ok(tree)
}

async fn list(
    vfs: &Vfs,
    directory: InodeNo,
) -> std::result::Result<Vec<(InodeNo, String)>, crate::vfs::Error> {
    let (mut found, mut cookie) = (Vec::new(), 0);
    loop {
        let part = vfs.read_dir(directory, cookie, 100).await?;
        let Some(last) = part.last() else { return Ok(found) };
        cookie = last.cookie;
        for entry in part.iter().filter(|entry| entry.name != b"." && entry.name != b"..") {
            found.push((entry.ino, String::from_utf8_lossy(&entry.name).into_owned()));
        }
    }
}
