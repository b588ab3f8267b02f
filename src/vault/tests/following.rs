//! Readers that follow (W5). Each looks when the test tells it to: by itself it would only look after an hour.

use super::*;
use crate::crypto::random;
use crate::log::{CommitContent, commit_name, open_commit, seal_commit};
use crate::records::{Change, Key, Transaction};
use crate::store::{Fault, On, Verb};
use crate::types::{CommitNo, Hash, Timestamp};
use crate::vfs::{Error as VfsError, Invalidation, RenameMode, Setter};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROOT: InodeNo = InodeNo::ROOT;

struct Two {
    world: World,
    writer: Arc<Vault>,
    reader: Arc<Vault>,
}

impl Two {
    async fn new() -> Self {
        let world = World::new().await;
        world.store.set_time(std::time::SystemTime::now());
        let writer = world.open("a").await;
        fill(&writer, "f").await;
        writer.sync(LONG).await.unwrap();
        let reader = world.try_open(following("b")).await.unwrap();
        Self { world, writer, reader }
    }

    async fn written(&self, name: &str, data: &[u8]) {
        write(&self.writer.vfs(), name, data).await;
        self.writer.sync(LONG).await.unwrap();
    }

    async fn look(&self) -> Result<()> {
        self.reader.following.as_ref().unwrap().look().await
    }

    async fn is_same(&self) -> bool {
        self.reader.status().fingerprint == self.writer.status().fingerprint
            && tree(&self.reader).await == tree(&self.writer).await
    }

    fn trouble(&self) -> Option<String> {
        self.reader.status().following.unwrap().trouble
    }

    fn next(&self) -> String {
        commit_name(self.reader.status().head.next())
    }
}

/// Lets more time pass than a listing of the log counts for, by this machine's clock.
async fn half_an_hour_later() {
    tokio::time::pause();
    tokio::time::advance(HOUR / 2).await;
    tokio::time::resume();
}

fn following(name: &str) -> Machines<'_> {
    Machines { read_only: true, refresh: Some(HOUR), ..machine(name) }
}

#[tokio::test]
async fn w5_a_reader_shows_each_commit_whole_and_what_was_open() {
    let two = Two::new().await;
    let (vfs, shown) = (two.writer.vfs(), two.reader.vfs());
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let ino = |name: &'static [u8]| {
        let vfs = vfs.clone();
        async move { vfs.lookup(ROOT, name).await.unwrap().ino }
    };
    let (changed, removed) = (ino(b"f3").await, ino(b"f4").await);
    let open_changed = shown.open(changed, flags).await.unwrap();
    let open_removed = shown.open(removed, flags).await.unwrap();
    assert!(shown.xattr(changed, b"user.x").await.is_err());
    write(&vfs, "f3", b"other bytes").await;
    vfs.set_xattr(changed, b"user.x", b"1", 0, &Setter::Superuser).await.unwrap();
    vfs.unlink(ROOT, b"f4").await.unwrap();
    vfs.rename((ROOT, b"f2"), (ROOT, b"f1"), RenameMode::Replace).await.unwrap();
    vfs.mkdir(&USER, ROOT, b"d", 0o755).await.unwrap();
    two.written("new", &bytes(9, 500_000)).await;
    assert!(!two.is_same().await);
    two.look().await.unwrap();
    assert!(two.is_same().await);
    assert_eq!(read_handle(&shown, open_changed).await.unwrap(), b"other bytes");
    assert_eq!(shown.xattr(changed, b"user.x").await.unwrap(), b"1");
    let stale = shown.read_data(open_removed, 0, 10).await;
    assert!(matches!(stale, Err(VfsError::Stale)), "{stale:?}");
    assert!(matches!(shown.lookup(ROOT, b"f4").await, Err(VfsError::NotFound)));
    assert_eq!(two.reader.status().inodes, two.writer.status().inodes);
    // Many commits in a row; what the machine saw is remembered (O2).
    for n in 0..5 {
        two.written(&format!("many{n}"), &bytes(n, 2000)).await;
    }
    two.look().await.unwrap();
    assert!(two.is_same().await && two.trouble().is_none());
    shown.release(open_changed).await.unwrap();
    shown.release(open_removed).await.unwrap();
    let head = two.reader.status().head;
    let seen = crate::log::Seen::load(&two.world.dir.path().join("b/data"), &two.world.keys);
    assert_eq!(seen.unwrap().unwrap().number, head);
    two.writer.close(LONG).await.unwrap();
    two.reader.close(LONG).await.unwrap();
}

#[tokio::test]
async fn w5_a_removed_file_that_the_writer_has_open_is_read_on() {
    let two = Two::new().await;
    let (vfs, shown) = (two.writer.vfs(), two.reader.vfs());
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let ino = vfs.lookup(ROOT, b"f5").await.unwrap().ino;
    let (theirs, ours) =
        (vfs.open(ino, flags).await.unwrap(), shown.open(ino, flags).await.unwrap());
    let before = read_handle(&shown, ours).await.unwrap();
    vfs.unlink(ROOT, b"f5").await.unwrap();
    two.written("x", b"").await;
    two.look().await.unwrap();
    assert_eq!(read_handle(&shown, ours).await.unwrap(), before);
    assert_eq!(shown.attributes(ino).await.unwrap().nlink, 0);
    vfs.release(theirs).await.unwrap();
    two.written("y", b"").await;
    two.look().await.unwrap();
    assert!(matches!(shown.read_data(ours, 0, 1).await, Err(VfsError::Stale)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w5_the_kernel_is_told_of_what_it_knows() {
    let two = Two::new().await;
    let (vfs, shown) = (two.writer.vfs(), two.reader.vfs());
    let kernel = shown.for_kernel();
    let mut inos = Vec::new();
    for name in [&b"f0"[..], b"f1", b"f2", b"f3"] {
        inos.push(kernel.lookup(ROOT, name).await.unwrap().told().ino);
    }
    let mut changes = shown.invalidations();
    let told = std::thread::spawn(move || {
        let mut all = Vec::new();
        while let Some(told) = changes.receive() {
            all.extend(told.changes.clone());
        }
        all
    });
    write(&vfs, "f0", b"longer").await;
    vfs.unlink(ROOT, b"f1").await.unwrap();
    vfs.rename((ROOT, b"f2"), (ROOT, b"g2"), RenameMode::Replace).await.unwrap();
    vfs.set_xattr(inos[3], b"user.x", b"1", 0, &Setter::Superuser).await.unwrap();
    write(&vfs, "f6", b"the kernel does not know it").await;
    two.written("new", b"n").await;
    let unknown = vfs.lookup(ROOT, b"f6").await.unwrap().ino;
    two.look().await.unwrap();
    shown.nobody_listens();
    let told = told.join().unwrap();
    let name = |name: &[u8]| Invalidation::Name(ROOT, name.to_vec());
    for expected in [
        Invalidation::Gone(ROOT, b"f1".to_vec(), inos[1]),
        name(b"f2"),
        name(b"g2"),
        name(b"new"),
        Invalidation::Content(inos[0]),
        Invalidation::Content(inos[3]),
        Invalidation::Content(ROOT),
    ] {
        assert!(told.contains(&expected), "{expected:?} is not in {told:?}");
    }
    assert!(!told.contains(&Invalidation::Content(unknown)), "{told:?}");
}

#[tokio::test]
async fn w5_what_does_not_open_at_the_next_number_is_ignored_and_said() {
    let two = Two::new().await;
    let before = tree(&two.reader).await;
    let (next, head) = (two.next(), two.reader.status().head);
    let old = two.world.store.peek(&commit_name(head)).unwrap();
    for forged in [bytes(1, 3000).into(), old, bytes::Bytes::new()] {
        two.world.store.plant(&next, forged);
        two.look().await.unwrap_err();
        assert!(two.trouble().is_some_and(|said| said.contains(&next)), "{:?}", two.trouble());
        assert_eq!((tree(&two.reader).await, two.reader.status().head), (before.clone(), head));
    }
    two.world.store.steal(&next);
    two.written("after", b"it").await;
    two.look().await.unwrap();
    assert!(two.is_same().await && two.trouble().is_none());
}

/// A commit of someone who has the key, with this number and predecessor, which removes all names.
fn crafted(world: &World, number: CommitNo, previous: Hash) -> bytes::Bytes {
    let last =
        open_commit(&world.keys, CommitNo(1), &world.store.peek("log/0000000000000001").unwrap());
    let header = last.unwrap().header;
    let header = crate::log::CommitHeader { number, previous, records: Vec::new(), ..header };
    let wipe = Change { key: Key::Inode(ROOT).encode(), value: None };
    let transactions = vec![Transaction::new(vec![wipe]).encode().unwrap()];
    seal_commit(&world.keys, &CommitContent { header, transactions })
}

#[tokio::test]
async fn w5_a_commit_of_another_log_is_not_applied() {
    let two = Two::new().await;
    let before = tree(&two.reader).await;
    let number = two.reader.status().head.next();
    two.world.store.plant(&two.next(), crafted(&two.world, number, Hash(random())));
    two.look().await.unwrap_err();
    assert!(two.trouble().is_some_and(|said| said.contains("does not continue")));
    assert_eq!(tree(&two.reader).await, before);
}

#[tokio::test]
async fn w5_a_store_that_fails_leaves_whole_commits_and_is_asked_again() {
    let two = Two::new().await;
    let head = two.reader.status().head;
    for n in 0..3 {
        two.written(&format!("n{n}"), &bytes(n, 100)).await;
    }
    let last = two.writer.status().head;
    two.world.faulty.inject(On::next(Verb::Head, "log/").always(), Fault::Breaks);
    two.look().await.unwrap_err();
    assert_eq!(two.reader.status().head, head);
    let failing = two.reader.status().following.unwrap();
    assert!(failing.failing_since.is_some() && failing.trouble.is_some());
    two.world.faulty.heal();
    // One of the commits cannot be fetched.
    let lacks = commit_name(last);
    two.world.faulty.inject(On::next(Verb::Get, &lacks).always(), Fault::Breaks);
    two.look().await.unwrap_err();
    assert_eq!(two.reader.status().head, CommitNo(last.0 - 1));
    let shown = tree(&two.reader).await;
    assert!(shown.contains_key("n1") && shown != tree(&two.writer).await);
    two.world.faulty.heal();
    // What changed on the way is fetched again.
    two.world.faulty.inject(On::next(Verb::Get, &lacks), Fault::FlipsBit);
    two.look().await.unwrap();
    assert!(two.is_same().await && two.trouble().is_none());
}

#[tokio::test]
async fn w5_an_idle_reader_asks_for_nothing_and_a_used_one_is_shown_what_is_new() {
    let two = Two::new().await;
    two.written("new", b"n").await;
    let Two { world, writer, reader } = two;
    writer.close(LONG).await.unwrap();
    drop(writer);
    tokio::time::pause();
    world.faulty.take_requests();
    tokio::time::sleep(10 * HOUR).await;
    assert_eq!(world.faulty.take_requests(), []);
    assert!(reader.vfs().lookup(ROOT, b"new").await.is_err(), "nobody waits for a look");
    let begun = tokio::time::Instant::now();
    while reader.vfs().lookup(ROOT, b"new").await.is_err() {
        assert!(begun.elapsed() < 2 * HOUR);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Makes enough commits that `history` has the one that the reader shows, and deletes the ones it has not seen.
async fn trimmed(two: &Two) {
    let (vfs, next) = (two.writer.vfs(), two.next());
    two.writer.set_retention(HOUR).await.unwrap();
    let ino = vfs.lookup(ROOT, b"f0").await.unwrap().ino;
    for n in 0..256 {
        let mtime = Some(crate::vfs::SetTime::To(crate::types::Timestamp { seconds: n, nanos: 0 }));
        let set = SetAttributes { mtime, ..SetAttributes::default() };
        vfs.set_attributes(ino, &set).await.unwrap();
        two.writer.sync(LONG).await.unwrap();
    }
    for name in ["f1", "f2", "f6"] {
        vfs.unlink(ROOT, name.as_bytes()).await.unwrap();
    }
    for n in 0..4 {
        two.world.store.advance(2 * DAY);
        two.written(&format!("n{n}"), &bytes(n, 3000)).await;
        two.writer.reclaim(false, &|_| {}).await.unwrap();
    }
    assert!(two.world.store.peek(&next).is_none(), "it was not trimmed");
}

#[tokio::test]
async fn w5_what_was_trimmed_behind_a_reader_is_no_end() {
    let two = Two::new().await;
    trimmed(&two).await;
    half_an_hour_later().await;
    two.look().await.unwrap();
    assert!(two.is_same().await);
    // From here on it follows by commits again, or after a day by another checkpoint.
    for n in 0..4 {
        two.written(&format!("m{n}"), b"m").await;
        two.look().await.unwrap();
        assert!(two.is_same().await);
        two.world.store.advance(if n == 0 { HOUR } else { 2 * DAY });
    }
    two.reader.close(LONG).await.unwrap();
    let past = two.world.state_dir("b").join("past");
    drop(two.reader);
    let begun = std::time::Instant::now();
    // The reader's task ends when the runtime next runs it.
    while std::fs::read_dir(&past).unwrap().next().is_some() {
        assert!(begun.elapsed() < LONG, "its index stays");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The clock that counts the time between listings stands still while a machine sleeps.
#[tokio::test]
async fn w5_a_machine_that_slept_takes_no_trimmed_log_for_its_end() {
    let two = Two::new().await;
    trimmed(&two).await;
    Timestamp::set_clock(Some(std::time::SystemTime::now() + HOUR));
    two.look().await.unwrap();
    assert!(two.is_same().await);
}

/// A writer that had slept puts a commit under a number that was trimmed: it fits the chain, but is not of this
/// log.
#[tokio::test]
async fn w5_after_a_day_a_commit_is_not_believed_by_the_chain_alone() {
    let two = Two::new().await;
    let shown = two.reader.status();
    let (next, forged) = (two.next(), crafted(&two.world, shown.head.next(), shown.fingerprint));
    trimmed(&two).await;
    two.world.store.plant(&next, forged);
    two.look().await.unwrap();
    assert!(two.is_same().await, "{:?}", tree(&two.reader).await.keys());
}

#[tokio::test]
async fn w5_a_bucket_that_went_back_is_not_followed() {
    let two = Two::new().await;
    let before = two.world.store.snapshot();
    two.written("new", b"n").await;
    two.look().await.unwrap();
    let shown = tree(&two.reader).await;
    two.world.store.restore(before);
    half_an_hour_later().await;
    for _ in 0..2 {
        let refused = two.look().await.unwrap_err();
        assert!(matches!(refused, Error::Rollback { .. }), "{refused}");
        assert_eq!(tree(&two.reader).await, shown);
        assert!(two.trouble().is_some());
        two.world.store.advance(DAY + HOUR);
    }
}

#[tokio::test]
async fn w5_a_reader_moves_to_newer_bases() {
    let two = Two::new().await;
    for n in 0..20 {
        two.written(&format!("n{n}"), &bytes(n, 3000)).await;
    }
    two.look().await.unwrap();
    two.writer.checkpoint().await.unwrap();
    let base = |vault: &Vault| vault.index().base_commit();
    assert!(base(&two.reader) < base(&two.writer));
    two.world.store.advance(7 * HOUR);
    two.written("last", b"x").await;
    two.look().await.unwrap();
    assert_eq!(base(&two.reader), base(&two.writer));
    assert!(two.is_same().await);
    assert_eq!(two.reader.status().inodes, two.writer.status().inodes);
}

/// A row of sled that does not open is found by a read, or by the move to another base, which opens every row.
#[tokio::test]
async fn w5_a_row_that_does_not_open_is_made_anew_by_the_next_look() {
    for is_read in [true, false] {
        let two = Two::new().await;
        two.written("new", &bytes(9, 3000)).await;
        two.look().await.unwrap();
        two.writer.checkpoint().await.unwrap();
        let (index, shown) = (two.reader.index(), two.reader.vfs());
        let ino = two.writer.vfs().lookup(ROOT, b"new").await.unwrap().ino;
        // So that sled has all of it.
        index.flush().unwrap();
        index.spoil(&Key::Inode(ino), b"damaged");
        let says_so =
            || two.reader.status().warnings.iter().any(|said| said.contains("index is damaged"));
        if is_read {
            assert!(shown.lookup(ROOT, b"new").await.is_err());
            assert!(says_so());
            // The next look cannot reach the store; the one after it succeeds.
            two.world.faulty.inject(On::next(Verb::List, "").always(), Fault::Breaks);
            two.look().await.unwrap_err();
            assert!(two.trouble().is_some() && says_so());
            two.world.faulty.heal();
        } else {
            two.world.store.advance(7 * HOUR);
            two.written("last", b"x").await;
        }
        two.look().await.unwrap();
        assert!(two.is_same().await && two.trouble().is_none() && !says_so());
        assert_eq!(shown.lookup(ROOT, b"new").await.unwrap().ino, ino);
        // From here on it follows as before.
        two.written("after", b"it").await;
        two.look().await.unwrap();
        assert!(two.is_same().await);
        two.reader.close(LONG).await.unwrap();
    }
}

#[tokio::test]
async fn w5_new_slots_are_followed_and_a_new_key_is_not() {
    let two = Two::new().await;
    let secret = MasterKey::from_bytes(two.world.master);
    let unlocked = unlock(&two.world.bucket, None, &secret).await.unwrap();
    let slot = seal_recovery(&unlocked, &RecoveryKey::generate()).unwrap();
    two.writer.change_keys(&KeyChange::Add(slot)).await.unwrap();
    two.written("slot", b"s").await;
    two.look().await.unwrap();
    assert!(two.is_same().await);
    let open = |generation, bytes: &bytes::Bytes| {
        let (superblock, wire) = superblock::decode(generation, bytes)?;
        let unlocked = superblock::verified(&superblock, &wire, bytes, secret.clone())?;
        Ok(OpenedBySecret { unlocked, superblock, slot: 0 })
    };
    let opened = superblock::read(&two.world.bucket, open).await.unwrap();
    let new = NewKey::make(&opened);
    let slot = seal_recovery(&new.unlocked, &RecoveryKey::generate()).unwrap();
    two.writer.rotate_key(&new.rotation(vec![slot])).await.unwrap();
    two.written("rotated", b"r").await;
    let shown = tree(&two.reader).await;
    two.look().await.unwrap_err();
    assert!(two.trouble().is_some_and(|said| said.contains("mount again")), "{:?}", two.trouble());
    assert_eq!(tree(&two.reader).await, shown);
}

#[tokio::test]
async fn w5_what_is_past_or_was_asked_to_stay_is_not_followed() {
    let two = Two::new().await;
    let at = StateAt::Commit(two.reader.status().head.0);
    let past = Machines { at: Some(&at), ..following("c") };
    let stays = Machines { refresh: None, ..following("d") };
    for who in [past, stays] {
        let vault = two.world.try_open(who).await.unwrap();
        assert!(vault.following.is_none() && vault.status().following.is_none());
    }
}
