//! sled fails, panics, or finds the disk full: changes stay where readers find them, and the stored point never exceeds
//! the stored records.

use std::time::{Duration, Instant};

use super::*;
use crate::index::change::POSTPONED_MAX;
use crate::index::inner::DRAIN_AT;
use crate::os::SmallDisk;

/// The size of the values that fill the memtable.
const PIECE: usize = 60_000;
/// How long a background thread may take.
const SOON: Duration = Duration::from_secs(60);

async fn soon(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl World {
    /// Fills the memtable as if this many bytes had been changed, without a journal that holds them.
    fn fill_memtable(&self, bytes: usize) {
        let mut layers = self.index().0.layers.write();
        for n in 0..=(bytes / PIECE) as u64 {
            let length = PIECE.min(bytes - n as usize * PIECE);
            let record = DeltaRecord { count: 1, value: Some(vec![7; length].into()) };
            layers.active.insert(Key::Extent(InodeNo(3), n).encode(), record);
        }
    }

    fn in_memory(&self) -> usize {
        self.index().0.layers.read().active.bytes()
    }

    fn try_open(&self) -> Result<Index> {
        let dir = self.dir.path().join("index");
        let memory = IndexMemory::of(0);
        Index::open(IndexOptions { dir, keys: self.keys.clone(), base: self.base.clone(), memory })
    }

    async fn change(&self, ino: u64) -> Result<()> {
        let put = |draft: &mut Draft<'_>| {
            draft.put_inode(InodeNo(ino), &Inode::default());
            Ok(())
        };
        self.index().change(put).await.map(|((), _)| ())
    }

    /// Existing records can still be read, nothing can be changed any more, and the next mount begins with an empty
    /// index.
    async fn is_given_up(&mut self, inodes: &[u64]) {
        assert!(self.index().read_only().is_some());
        for ino in inodes {
            assert!(self.inode(*ino).await.is_some(), "{ino}");
        }
        let journaled = self.journal.appended();
        assert!(matches!(self.change(9).await, Err(Error::ReadOnly(_))));
        assert_eq!(self.journal.appended(), journaled);
        assert!(matches!(self.index().persist_point(), Err(Error::Damaged(_))));
        self.index = None;
        assert!(matches!(self.try_open(), Err(Error::Damaged(_))));
        Index::wipe(&self.dir.path().join("index")).unwrap();
        self.open();
        for ino in inodes {
            assert!(self.inode(*ino).await.is_some(), "{ino}: the journal has it");
        }
    }
}

#[tokio::test]
async fn j4_a_batch_that_fails_stays_where_readers_find_it() {
    for fault in [SledFault::Fails, SledFault::Panics] {
        let mut world = World::new();
        world.change(2).await.unwrap();
        world.index().drain().unwrap();
        let stored = world.index().0.sled().point().unwrap();
        world.change(3).await.unwrap();
        world.index().set_fault(Some(fault));
        let error = world.index().drain().unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
        world.index().set_fault(None);
        assert_eq!(world.index().0.sled().point().unwrap(), stored, "no point without its records");
        world.is_given_up(&[2, 3]).await;
    }
}

/// Nobody waits for the thread, so the index itself must report the panic.
#[tokio::test]
async fn j4_a_panic_of_the_drainer_is_seen() {
    let mut world = World::new();
    world.change(2).await.unwrap();
    world.index().set_fault(Some(SledFault::Panics));
    world.fill_memtable(DRAIN_AT);
    // Putting an extended attribute does not read sled.
    world.put(|draft| draft.put_xattr(InodeNo(2), b"user.a", b"value")).await;
    soon("it has panicked", || world.index().read_only().is_some()).await;
    assert!(world.index().read_only().unwrap().contains("damaged"));
    world.index().set_fault(None);
    let xattr = world.index().read(|view| view.xattr(InodeNo(2), b"user.a")).await.unwrap();
    assert_eq!(xattr.as_deref(), Some(&b"value"[..]));
    world.is_given_up(&[2]).await;
}

/// What is in memory may be half of a change: nothing may build on it.
#[tokio::test]
async fn j4_a_panic_in_the_middle_of_a_change_makes_the_index_anew() {
    let mut world = World::new();
    world.change(2).await.unwrap();
    let broken =
        world.index().0.whole("taking in a change", || -> Result<()> { panic!("planted") });
    assert!(matches!(broken, Err(Error::Damaged(_))), "{broken:?}");
    assert!(world.index().read_only().unwrap().contains("panic"));
    assert!(world.change(3).await.is_err() && world.inode(2).await.is_some());
    world.index = None;
    assert!(matches!(world.try_open(), Err(Error::Damaged(_))));
}

#[tokio::test]
async fn the_memtable_is_written_when_it_is_long_and_at_once_when_it_is_too_long() {
    let world = World::new();
    world.fill_memtable(DRAIN_AT - 10_000);
    world.change(2).await.unwrap();
    assert_eq!(world.index().rows(), 0);
    world.fill_memtable(DRAIN_AT);
    world.change(3).await.unwrap();
    soon("the thread has written it", || world.index().rows() > 0).await;
    soon("nothing is left in memory", || world.in_memory() == 0).await;
    world.fill_memtable(IndexMemory::of(0).memtable);
    world.change(4).await.unwrap();
    assert!(world.in_memory() < PIECE, "whoever made the change has waited");
}

/// sled makes garbage of many times a batch's length.
#[tokio::test]
async fn a_large_change_makes_no_batch_longer_than_the_memtable_may_be() {
    let world = World::new();
    world.change(2).await.unwrap();
    world.fill_memtable(IndexMemory::of(0).memtable - 2 * PIECE);
    let piece = vec![7; PIECE];
    let large = |draft: &mut Draft<'_>| {
        (0..4).for_each(|n| draft.put_xattr(InodeNo(2), &[b'a' + n], &piece));
    };
    world.put(large).await;
    assert!(world.index().rows() > 0, "what was there before is written");
    let left = world.in_memory();
    assert!((4 * PIECE..DRAIN_AT).contains(&left), "{left}: the change is not part of that batch");
    // A change that is too long by itself is written at once.
    let limit = IndexMemory::of(0).memtable;
    let larger = |draft: &mut Draft<'_>| {
        (0..=limit / PIECE).for_each(|n| draft.put_xattr(InodeNo(2), &n.to_be_bytes(), &piece));
    };
    world.put(larger).await;
    assert_eq!(world.in_memory(), 0);
}

#[tokio::test]
async fn j8_on_a_full_disk_the_memtable_takes_what_frees_room_beyond_its_limit() {
    let world = World::new();
    world.change(2).await.unwrap();
    world.index().set_fault(Some(SledFault::Full));
    world.fill_memtable(POSTPONED_MAX - PIECE);
    world.change(3).await.unwrap();
    world.fill_memtable(POSTPONED_MAX);
    let journaled = world.journal.appended();
    assert!(world.change(4).await.unwrap_err().is_full());
    assert_eq!(world.journal.appended(), journaled);
    world
        .put(|draft| {
            draft.frees_room();
            draft.delete_inode(InodeNo(2));
        })
        .await;
    assert_eq!((world.inode(2).await, world.index().rows()), (None, 0));
    assert!(world.index().read_only().is_none(), "nothing is wrong");
    // Now there is room: the next change writes what waits, and is accepted.
    world.index().set_fault(None);
    world.change(4).await.unwrap();
    soon("nothing waits", || world.in_memory() < DRAIN_AT).await;
    assert!(world.inode(3).await.is_some() && world.inode(4).await.is_some());
}

#[tokio::test]
async fn j4_a_change_that_the_index_cannot_take_is_not_journaled() {
    for panics in [false, true] {
        let world = World::new();
        let put = |draft: &mut Draft<'_>| {
            draft.put_inode(InodeNo(2), &Inode::default());
            Ok::<_, Error>(())
        };
        // Sled has the row, so it is asked.
        world.index().change(put).await.unwrap();
        world.index().drain().unwrap();
        world.index().fail(panics);
        let (before, journaled) = (world.index().point(), world.journal.appended());
        let error = world.index().change(put).await.unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
        assert_eq!(world.journal.appended(), journaled);
        assert_eq!(world.index().point(), before);
        let error = world.index().change(put).await.unwrap_err();
        assert!(matches!(error, Error::ReadOnly(_)), "{error}");
    }
}

#[tokio::test]
async fn j8_a_full_disk_holds_up_the_index_and_damages_nothing() {
    let disk = SmallDisk::of(64 * MIB);
    let mut world = World::in_dir(tempfile::tempdir_in(disk.path()).unwrap());
    let put = |n: u64| {
        move |draft: &mut Draft<'_>| {
            draft.put_inode(InodeNo(n), &Inode::default());
            Ok::<_, Error>(())
        }
    };
    world.index().change(put(2)).await.unwrap();
    world.index().flush().unwrap();
    world.index().change(put(3)).await.unwrap();
    disk.fill();
    // Uses up the room that was reserved before.
    for n in 4.. {
        world.index().change(put(n)).await.unwrap();
        if world.index().drain().is_err_and(|error| error.is_full()) {
            break;
        }
    }
    let stored = world.index().0.sled().point().unwrap().unwrap();
    assert!(world.index().flush().unwrap_err().is_full());
    world.index().persist_point().unwrap();
    // The base stays as it was, because a point that names another cannot be stored.
    world.checkpoint().await;
    let (before, rows) = (world.index().base_commit(), world.index().rows());
    assert!(before < world.base.manifest().unwrap().commit && rows > 0);
    assert_eq!(world.index().0.sled().point().unwrap().unwrap().seq, stored.seq);
    assert!(world.index().read_only().is_none(), "it is not damaged");
    assert!(!world.dir.path().join("index.damaged").exists());
    assert!(world.index().read(|view| view.inode(InodeNo(3))).await.unwrap().is_some());
    disk.empty();
    world.kill();
    let base = std::mem::replace(&mut world.base, Base::empty());
    world.open();
    assert!(world.index().read(|view| view.inode(InodeNo(3))).await.unwrap().is_some());
    world.index().change(put(2)).await.unwrap();
    world.base = base;
    world.checkpoint().await;
    assert!(world.index().base_commit() > before && world.index().rows() == 0);
}

/// The room reserved for a batch covers what sled makes of it, with some to spare.
#[test]
fn j8_the_room_for_a_batch_is_what_sled_takes() {
    let world = World::new();
    let (file, sled) = (world.dir.path().join("index/db"), world.index().0.sled());
    let length = || file.metadata().unwrap().len();
    for (n, (many, value)) in [(10_000, 20), (10_000, 20), (2000, 400)].into_iter().enumerate() {
        let mut memtable = Memtable::default();
        for m in 0..many {
            let hash = crate::crypto::sha256(format!("{n} {m}").as_bytes());
            let ino = u64::from_be_bytes(hash.0[..8].try_into().unwrap()) % 100_000;
            let slot = DeltaRecord { count: 1, value: Some(vec![7; value].into()) };
            memtable.insert(Key::Inode(InodeNo(ino)).encode(), slot);
        }
        let before = length();
        sled.apply(&memtable, &BTreeMap::new(), &Point::default()).unwrap();
        sled.db().flush().unwrap();
        let (took, bytes) = (length() - before, memtable.bytes() as u64);
        assert!(took > 0 && took < 4 * bytes, "{took} for {bytes}");
    }
}

#[test]
fn j4_a_note_of_damage_that_cannot_be_written_still_wipes() {
    let world = World::new();
    let dir = world.dir.path().join("index");
    // No file can have this name.
    std::fs::create_dir(dir.with_extension("damaged")).unwrap();
    world.index().0.sled().db().condemn("a test says so");
    assert!(!dir.join("db").exists());
}
