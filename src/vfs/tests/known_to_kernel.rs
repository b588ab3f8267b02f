//! V3: an inode that the kernel was told of lives until the kernel forgets it.

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::background::none_left;
use super::rules::{extents_of, scattered};
use super::*;
use crate::vfs::departing::AT_ONCE;
use crate::vfs::remove::STEP;

const ROOT: InodeNo = InodeNo::ROOT;

/// Forgets as a request of the kernel does.
async fn forget(vfs: &Vfs, ino: InodeNo, times: u64) {
    if let Some(departure) = vfs.forget(ino, times) {
        vfs.depart(departure).await;
    }
}

/// Makes one inode of every kind, each with an attribute and told to the kernel once. Returns their numbers.
async fn one_of_each(world: &World) -> Vec<(&'static [u8], InodeNo)> {
    let vfs = world.vfs().for_kernel();
    let dir = vfs.mkdir(&ALICE, ROOT, b"dir", 0o755).await.unwrap().told();
    let link = vfs.symlink(&ALICE, ROOT, b"link", b"target").await.unwrap().told();
    let fifo = vfs.mknod(&ALICE, ROOT, b"fifo", libc::S_IFIFO | 0o644, 0).await.unwrap().told();
    let (file, handle) = vfs.create(&ALICE, ROOT, b"file", 0o644, WRITE).await.unwrap();
    vfs.write(handle, WriteAt::Offset(0), b"content").await.unwrap();
    vfs.release(handle).await.unwrap();
    let file = file.told();
    let all: Vec<(&[u8], InodeNo)> =
        vec![(b"dir", dir.ino), (b"link", link.ino), (b"fifo", fifo.ino), (b"file", file.ino)];
    for (_, ino) in &all {
        vfs.set_xattr(*ino, b"trusted.a", b"1", 0, &Setter::Superuser).await.unwrap();
    }
    all
}

async fn remove(vfs: &Vfs, name: &[u8]) {
    match vfs.unlink(ROOT, name).await {
        Err(Error::IsDirectory) => vfs.rmdir(ROOT, name).await.unwrap(),
        done => done.unwrap(),
    }
}

#[tokio::test]
async fn v3_what_the_kernel_was_told_of_lives_until_it_forgets_it() {
    let world = World::new().await;
    let all = one_of_each(&world).await;
    let vfs = world.vfs().for_kernel();
    for (name, ino) in &all {
        // It does not matter who removes it.
        remove(if *name == b"link" { world.vfs() } else { &vfs }, name).await;
        let seen = vfs.attributes(*ino).await.unwrap();
        assert_eq!((seen.ino, seen.nlink), (*ino, 0));
        assert_eq!(vfs.xattr(*ino, b"trusted.a").await.unwrap(), b"1");
        vfs.set_xattr(*ino, b"trusted.b", b"2", 0, &Setter::Superuser).await.unwrap();
        let set = SetAttributes { uid: Some(77), ..SetAttributes::default() };
        assert_eq!(vfs.set_attributes(*ino, &set).await.unwrap().uid, 77);
        assert!(matches!(vfs.lookup(ROOT, name).await, Err(Error::NotFound)));
        assert!(matches!(vfs.link(*ino, ROOT, b"again").await.unwrap_err().errno(), 1 | 2));
    }
    let [dir, link, _, file] = [all[0].1, all[1].1, all[2].1, all[3].1];
    assert!(vfs.read_dir(dir, 0, 10).await.unwrap().is_empty());
    assert!(matches!(vfs.mkdir(&ALICE, dir, b"in it", 0o755).await, Err(Error::NotFound)));
    let moved = vfs.rename((ROOT, b"x"), (dir, b"x"), RenameMode::Replace).await;
    assert!(matches!(moved, Err(Error::NotFound)));
    assert_eq!(vfs.read_link(link).await.unwrap(), b"target");
    let handle = vfs.open(file, WRITE).await.unwrap();
    vfs.write(handle, WriteAt::End, b", still").await.unwrap();
    vfs.flush(handle).await.unwrap();
    vfs.release(handle).await.unwrap();
    assert_eq!(world.bytes(file).await, b"content, still");
    assert_eq!(vfs.orphans().await.unwrap().len(), 4);
    for (_, ino) in &all {
        forget(&vfs, *ino, 1).await;
        assert!(matches!(vfs.attributes(*ino).await, Err(Error::Stale)));
    }
    assert!(vfs.orphans().await.unwrap().is_empty());
    assert_eq!(vfs.inner.holds.len(), 0);
}

#[tokio::test]
async fn v3_a_replaced_directory_and_file_live_on_too() {
    let world = World::new().await;
    let all = one_of_each(&world).await;
    let vfs = world.vfs().for_kernel();
    for kept in [all[0], all[3]] {
        let over = match kept.0 {
            b"dir" => vfs.mkdir(&ALICE, ROOT, b"new", 0o755).await.unwrap().told().ino,
            _ => world.file("new", b"new content").await,
        };
        vfs.rename((ROOT, b"new"), (ROOT, kept.0), RenameMode::Replace).await.unwrap();
        assert_eq!(vfs.attributes(kept.1).await.unwrap().nlink, 0);
        assert_eq!(vfs.lookup(ROOT, kept.0).await.unwrap().ino, over);
        forget(&vfs, kept.1, 1).await;
        assert!(matches!(vfs.attributes(kept.1).await, Err(Error::Stale)));
        assert!(vfs.orphans().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn v3_a_crash_or_the_end_of_the_mount_forgets_all() {
    let mut world = World::new().await;
    let all = one_of_each(&world).await;
    for (name, _) in &all {
        remove(&world.vfs().for_kernel(), name).await;
    }
    world.reopen(Reopen::Kill).await;
    for (_, ino) in &all {
        assert!(matches!(world.vfs().attributes(*ino).await, Err(Error::Stale)));
    }
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    let all = one_of_each(&world).await;
    for (name, _) in &all {
        remove(&world.vfs().for_kernel(), name).await;
    }
    let handle = world.vfs().open(all[3].1, READ).await.unwrap();
    world.vfs().forget_all().await;
    assert_eq!(world.vfs().orphans().await.unwrap().len(), 1, "one is open");
    world.vfs().release(handle).await.unwrap();
    assert!(world.vfs().orphans().await.unwrap().is_empty());
}

#[tokio::test]
async fn v3_it_counts_how_often_the_kernel_was_told_and_only_that() {
    let world = World::new().await;
    let vfs = world.vfs().for_kernel();
    let ino = world.file("f", b"x").await;
    assert_eq!(vfs.inner.holds.len(), 0, "others do not count");
    drop(vfs.lookup(ROOT, b"f").await.unwrap());
    drop(vfs.read_dir_plus(ROOT, 0, 10).await.unwrap());
    assert_eq!(vfs.inner.holds.len(), 0, "what was not told was not told");
    vfs.lookup(ROOT, b"f").await.unwrap().told();
    vfs.link(ino, ROOT, b"g").await.unwrap().told();
    for entry in vfs.read_dir_plus(ROOT, 0, 10).await.unwrap() {
        entry.attributes.unwrap().told();
    }
    assert_eq!(vfs.inner.holds.len(), 1, "without . and ..");
    vfs.unlink(ROOT, b"f").await.unwrap();
    vfs.unlink(ROOT, b"g").await.unwrap();
    forget(&vfs, ino, 1).await;
    forget(&vfs, ino, 2).await;
    assert_eq!(vfs.attributes(ino).await.unwrap().nlink, 0);
    // It is no longer found by its number.
    assert!(matches!(vfs.lookup(ino, b".").await, Err(Error::NotFound)));
    forget(&vfs, ino, 1).await;
    assert!(matches!(vfs.attributes(ino).await, Err(Error::Stale)));
    assert!(matches!(vfs.lookup(ino, b".").await, Err(Error::NotFound)));
    assert!(vfs.orphans().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_inode_is_found_by_its_number() {
    let mut world = World::new().await;
    let vfs = world.vfs();
    let dir = vfs.mkdir(&ALICE, ROOT, b"d", 0o755).await.unwrap().ino;
    let sub = vfs.mkdir(&ALICE, dir, b"e", 0o755).await.unwrap().ino;
    let file = world.file("f", b"x").await;
    world.reopen(Reopen::Clean).await;
    let vfs = world.vfs();
    for ino in [ROOT, dir, sub, file] {
        assert_eq!(vfs.lookup(ino, b".").await.unwrap().ino, ino);
    }
    assert_eq!(vfs.lookup(sub, b"..").await.unwrap().ino, dir);
    assert_eq!(vfs.lookup(dir, b"..").await.unwrap().ino, ROOT);
    vfs.rmdir(dir, b"e").await.unwrap();
    for name in [&b"."[..], b".."] {
        assert!(matches!(vfs.lookup(sub, name).await, Err(Error::NotFound)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v3_what_was_found_by_its_name_can_be_opened_whatever_replaces_it() {
    let world = World::new().await;
    let kernel = world.vfs().for_kernel();
    world.file("f", b"x").await;
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let openers: Vec<_> = (0..3)
        .map(|i| {
            let (vfs, over) = (kernel.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let (known, handle) = if i == 0 {
                        vfs.create(&ALICE, ROOT, b"f", 0o644, WRITE).await.unwrap()
                    } else {
                        let known = vfs.lookup(ROOT, b"f").await.unwrap();
                        let handle = vfs.open(known.ino, READ).await.unwrap();
                        (known, handle)
                    };
                    let ino = known.told().ino;
                    assert_eq!(vfs.read_data(handle, 0, 9).await.unwrap(), &b"x"[..]);
                    vfs.release(handle).await.unwrap();
                    forget(&vfs, ino, 1).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..1500 {
        world.file("new", b"x").await;
        kernel.rename((ROOT, b"new"), (ROOT, b"f"), RenameMode::Replace).await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    for opener in openers {
        opener.await.unwrap();
    }
    assert!(kernel.orphans().await.unwrap().is_empty());
    assert_eq!(kernel.inner.holds.len(), 0);
}

/// Makes this many files that the kernel was told of and that have lost their names. The second has `extents` extents.
async fn unlinked(world: &World, files: usize, extents: u64) -> Vec<InodeNo> {
    let vfs = world.vfs().for_kernel();
    let mut all = Vec::new();
    for n in 0..files {
        let name = format!("f{n}");
        if n == 1 {
            let (_, handle) = scattered(world, &name, extents).await;
            vfs.release(handle).await.unwrap();
        } else {
            world.file(&name, b"x").await;
        }
        all.push(vfs.lookup(ROOT, name.as_bytes()).await.unwrap().told().ino);
        vfs.unlink(ROOT, name.as_bytes()).await.unwrap();
    }
    assert_eq!(vfs.orphans().await.unwrap().len(), files);
    all
}

#[tokio::test]
async fn v3_what_the_kernel_forgets_together_goes_by_few_transactions() {
    let world = World::new().await;
    let vfs = world.vfs().for_kernel();
    let (files, steps) = (AT_ONCE + 16, 3);
    let all = unlinked(&world, files, (STEP * steps) as u64).await;
    // One of them is opened by its number: whoever lets go of it last removes it.
    let handle = vfs.open(all[5], READ).await.unwrap();
    let before = world.transactions();
    join_all(all.iter().map(|ino| forget(&vfs, *ino, 1))).await;
    // Two records each, and `STEP` of them in a transaction.
    let most = (files * 2).div_ceil(STEP) + steps + 2;
    assert!(world.transactions() - before <= most as u64, "{}", world.transactions() - before);
    assert_eq!(vfs.orphans().await.unwrap().len(), 1, "one is open");
    assert_eq!(vfs.read_data(handle, 0, 9).await.unwrap(), &b"x"[..]);
    vfs.release(handle).await.unwrap();
    assert!(vfs.orphans().await.unwrap().is_empty());
    assert_eq!(vfs.inner.holds.len(), 0);
    assert!(extents_of(&world, all[1]).await.is_empty());
}

#[tokio::test]
async fn v3_who_waits_to_be_removed_is_not_forgotten() {
    let mut world = World::new().await;
    for how in ["sync", "given up", "the end", "a kill"] {
        let all = unlinked(&world, 2, 1).await;
        let vfs = world.vfs().for_kernel();
        let mut first = Box::pin(forget(&vfs, all[0], 1));
        assert!((&mut first).now_or_never().is_none());
        assert!(vfs.forget(all[1], 1).is_none(), "somebody takes it");
        assert_eq!(vfs.orphans().await.unwrap().len(), 2, "{how}");
        match how {
            "sync" => vfs.publish_all().await.unwrap(),
            "the end" => vfs.forget_all().await,
            "given up" => {
                let periodic = vfs.start(&tokio::runtime::Handle::current());
                drop(first);
                none_left(&world).await;
                drop(periodic);
                // The next one to be forgotten is the first again.
                let ino = unlinked(&world, 1, 1).await[0];
                forget(&vfs, ino, 1).await;
            }
            _ => {
                drop(first);
                drop(vfs);
                world.reopen(Reopen::Kill).await;
            }
        }
        assert!(world.vfs().orphans().await.unwrap().is_empty(), "{how}");
    }
}
