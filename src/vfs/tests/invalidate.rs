//! What the kernel is told of changes that it did not make.

use super::*;

const ROOT: InodeNo = InodeNo::ROOT;

/// Takes invalidations as they come, on a thread of its own; returns all of them at the end.
fn listen(mut changes: Invalidations) -> std::thread::JoinHandle<Vec<Invalidation>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        while let Some(told) = changes.receive() {
            all.extend(told.changes.clone());
        }
        all
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_that_others_change_is_told() {
    let world = World::new().await;
    let (vfs, kernel) = (world.vfs(), world.vfs().for_kernel());
    kernel.mkdir(&ALICE, ROOT, b"the kernel knows", 0o755).await.unwrap().told();
    let listener = listen(vfs.invalidations());
    let name = |name: &[u8]| Invalidation::Name(ROOT, name.to_vec());
    let gone = |name: &[u8], ino| Invalidation::Gone(ROOT, name.to_vec(), ino);
    let root = Invalidation::Attributes(ROOT);
    let mut expected = Vec::new();
    let dir = vfs.mkdir(&ALICE, ROOT, b"d", 0o755).await.unwrap().ino;
    expected.extend([name(b"d"), root.clone()]);
    let a = world.file("a", b"x").await;
    expected.extend([name(b"a"), root.clone()]);
    let first = Invalidation::Attributes(a);
    vfs.link(a, ROOT, b"b").await.unwrap();
    expected.extend([name(b"b"), root.clone(), first.clone()]);
    vfs.unlink(ROOT, b"b").await.unwrap();
    expected.extend([name(b"b"), first.clone(), root.clone()]);
    let handle = vfs.create_unnamed(&ALICE, 0o644, b"a").await.unwrap();
    let note = (&b"user.note"[..], |_| Vec::new());
    vfs.give_name(handle, ROOT, b"a", RenameMode::Replace, note).await.unwrap();
    vfs.release(handle).await.unwrap();
    expected.extend([gone(b"a", a), first, root.clone()]);
    let replaced = vfs.lookup(ROOT, b"a").await.unwrap().ino;
    let (last, moved) = (world.file("c", b"y").await, Invalidation::Attributes);
    expected.extend([name(b"c"), root.clone()]);
    vfs.rename((ROOT, b"c"), (ROOT, b"a"), RenameMode::Replace).await.unwrap();
    expected.extend([name(b"c"), root.clone()]);
    expected.extend([gone(b"a", replaced), moved(replaced), root.clone(), moved(last)]);
    // Attributes too, but not those of a file without a name, which the kernel does not know.
    let mode = SetAttributes { mode: Some(0o700), ..SetAttributes::default() };
    vfs.set_attributes(dir, &mode).await.unwrap();
    let acl = [
        &b"\x02\0\0\0"[..],
        b"\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff",
    ];
    vfs.set_xattr(dir, b"system.posix_acl_access", &acl.concat(), 0, &Setter::Superuser)
        .await
        .unwrap();
    vfs.set_xattr(dir, b"user.note", b"x", 0, &Setter::Superuser).await.unwrap();
    expected.extend([moved(dir), moved(dir), moved(dir)]);
    let unnamed = vfs.create_unnamed(&ALICE, 0o644, b"u").await.unwrap();
    vfs.set_attributes(vfs.inode_of(unnamed).unwrap(), &mode).await.unwrap();
    vfs.release(unnamed).await.unwrap();
    vfs.rmdir(ROOT, b"d").await.unwrap();
    expected.extend([gone(b"d", dir), moved(dir), root.clone()]);
    // A failed call changes nothing, and the kernel knows what it changes itself.
    assert!(vfs.unlink(ROOT, b"none").await.is_err());
    kernel.rmdir(ROOT, b"the kernel knows").await.unwrap();
    vfs.nobody_listens();
    vfs.unlink(ROOT, b"a").await.unwrap();
    assert_eq!(listener.join().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn without_a_place_for_the_news_nothing_is_changed_and_none_is_lost() {
    let world = World::new().await;
    let vfs = world.vfs();
    let changes = vfs.invalidations();
    // Nobody takes them: each caller goes on after a while.
    let made = futures_util::future::join_all((0..256).map(|i| async move {
        vfs.mkdir(&ALICE, ROOT, format!("{i}").as_bytes(), 0o755).await.map(drop)
    }));
    assert!(made.await.iter().all(std::result::Result::is_ok));
    let refused = vfs.mkdir(&ALICE, ROOT, b"one more", 0o755).await;
    assert!(matches!(refused, Err(Error::Unheard)));
    assert!(matches!(vfs.lookup(ROOT, b"one more").await, Err(Error::NotFound)));
    for name in [&b"0"[..], b"1"] {
        assert!(matches!(vfs.rmdir(ROOT, name).await, Err(Error::Unheard)));
        vfs.lookup(ROOT, name).await.unwrap();
    }
    vfs.for_kernel().rmdir(ROOT, b"2").await.unwrap();
    tokio::time::resume();
    let listener = listen(changes);
    vfs.rmdir(ROOT, b"0").await.unwrap();
    vfs.nobody_listens();
    let told = listener.join().unwrap();
    let names = told.iter().filter(|change| matches!(change, Invalidation::Name(..))).count();
    assert_eq!(names, 256);
    // A mount that has just ended is no reason to refuse a change.
    drop(vfs.invalidations());
    vfs.rmdir(ROOT, b"1").await.unwrap();
}
