//! Files that are written before they have a name, and versions.

use super::*;
use crate::types::Hash;

const ROOT: InodeNo = InodeNo::ROOT;
const NOTE: &[u8] = b"user.note";

async fn unnamed(world: &World, data: &[u8]) -> HandleId {
    let vfs = world.vfs();
    let handle = vfs.create_unnamed(&ALICE, 0o666, b"likely").await.unwrap();
    for (i, part) in data.chunks(100_000).enumerate() {
        let at = WriteAt::Offset(i as u64 * 100_000);
        vfs.write(handle, at, part).await.unwrap();
    }
    handle
}

async fn name(world: &World, handle: HandleId, name: &[u8], mode: RenameMode) -> Result<Named> {
    let note = (NOTE, |version: Hash| version.0.to_vec());
    world.vfs().give_name(handle, ROOT, name, mode, note).await
}

async fn inspect(world: &World, name: &str) -> Inspected {
    world.vfs().inspect(ROOT, name.as_bytes(), NOTE).await.unwrap()
}

async fn names(world: &World) -> Vec<String> {
    let list = world.vfs().read_dir(ROOT, 0, 100).await.unwrap();
    let names = list.into_iter().map(|entry| String::from_utf8(entry.name).unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Whether nothing of an unnamed file is left: neither inode nor orphan record.
async fn is_gone(world: &World, ino: InodeNo) -> bool {
    let there = world.vfs().read(|view| Ok(view.inode(ino)?.is_some())).await.unwrap();
    !there && world.vfs().orphans().await.unwrap().is_empty()
}

fn ino_of(world: &World, handle: HandleId) -> InodeNo {
    world.vfs().inner.handles.get(handle).unwrap().file.ino()
}

fn data() -> Vec<u8> {
    crate::types::noise(1, 300_000)
}

#[tokio::test]
async fn v3_an_unnamed_file_is_named_whole_in_one_transaction() {
    let mut world = World::new().await;
    let handle = unnamed(&world, &data()).await;
    assert!(names(&world).await.is_empty());
    let before = world.transactions();
    let named = name(&world, handle, b"f", RenameMode::NoReplace).await.unwrap();
    assert_eq!(world.transactions(), before + 1);
    let seen = named.attributes;
    assert_eq!((seen.size, seen.nlink, seen.mode), (300_000, 1, libc::S_IFREG | 0o644));
    assert_eq!((seen.uid, seen.gid, named.has_replaced), (1000, 100, false));
    world.vfs().release(handle).await.unwrap();
    for _ in 0..2 {
        let now = inspect(&world, "f").await;
        assert_eq!(now.note.as_deref(), now.version.as_ref().map(|version| &version.0[..]));
        assert_eq!(world.bytes(seen.ino).await, data());
        assert!(world.vfs().orphans().await.unwrap().is_empty());
        world.reopen(Reopen::Kill).await;
    }
}

#[tokio::test]
async fn v3_a_crash_or_a_close_before_the_name_leaves_nothing() {
    let mut world = World::new().await;
    let closed = unnamed(&world, &data()).await;
    let ino = ino_of(&world, closed);
    world.vfs().release(closed).await.unwrap();
    assert!(is_gone(&world, ino).await);
    // It is published before it has a name, as happens during a long upload.
    let open = unnamed(&world, &data()).await;
    let ino = ino_of(&world, open);
    world.vfs().publish_all().await.unwrap();
    world.vfs().finish_recovery().await.unwrap();
    assert!(!is_gone(&world, ino).await, "what is open stays");
    world.reopen(Reopen::Kill).await;
    assert!(is_gone(&world, ino).await);
    assert!(names(&world).await.is_empty());
}

#[tokio::test]
async fn a_name_that_is_there_stays_or_is_replaced_as_asked() {
    let mut world = World::new().await;
    let old = world.file("f", b"old").await;
    world.vfs().mkdir(&ALICE, ROOT, b"d", 0o755).await.unwrap();
    let handle = unnamed(&world, b"new").await;
    let refused = name(&world, handle, b"f", RenameMode::NoReplace).await;
    assert!(matches!(refused, Err(Error::Exists)));
    let refused = name(&world, handle, b"d", RenameMode::Replace).await;
    assert!(matches!(refused, Err(Error::IsDirectory)));
    assert_eq!(world.bytes(old).await, b"old");
    let named = name(&world, handle, b"f", RenameMode::Replace).await.unwrap();
    assert!(named.has_replaced && is_gone(&world, old).await);
    let again = name(&world, handle, b"g", RenameMode::NoReplace).await;
    assert!(matches!(again, Err(Error::Invalid)), "it has its name");
    world.vfs().write(handle, WriteAt::End, b" and more").await.unwrap();
    world.vfs().release(handle).await.unwrap();
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.bytes(named.attributes.ino).await, b"new and more");
}

/// A name asked for in one version is given only while the file has that version.
#[tokio::test]
async fn a_file_takes_the_name_of_the_version_that_was_asked_about_alone() {
    let world = World::new().await;
    let vfs = world.vfs();
    let note = || (NOTE, |version: Hash| version.0.to_vec());
    let old = world.file("f", b"one").await;
    let version = |ino| async move { vfs.version(ino).await.unwrap().unwrap() };
    let first = version(old).await;
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let open = vfs.open(old, flags).await.unwrap();
    let new = unnamed(&world, b"new").await;
    let refused = |of: NameOf, why: &'static str| async move {
        let named = vfs.give_name(new, ROOT, b"f", of, note()).await;
        assert!(matches!(named, Err(Error::Exists)), "{why}: {named:?}");
        assert_eq!(vfs.lookup(ROOT, b"f").await.unwrap().ino, old, "{why}");
    };
    // The file is changed through the mount: first unpublished, then published as another version.
    vfs.write(open, WriteAt::Offset(0), b"two").await.unwrap();
    refused(NameOf::Version(old, first), "it is being written").await;
    vfs.flush(open).await.unwrap();
    refused(NameOf::Version(old, first), "it is another version").await;
    let other = world.file("g", b"two").await;
    refused(NameOf::Version(other, version(other).await), "it is another file").await;
    vfs.release(open).await.unwrap();
    let second = NameOf::Version(old, version(old).await);
    let named = vfs.give_name(new, ROOT, b"f", second, note()).await.unwrap();
    assert!(named.has_replaced);
    vfs.release(new).await.unwrap();
    assert_eq!(world.bytes(named.attributes.ino).await, b"new");
    // By then nothing has the name.
    let late = unnamed(&world, b"late").await;
    vfs.unlink(ROOT, b"f").await.unwrap();
    let named = vfs.give_name(late, ROOT, b"f", second, note()).await;
    assert!(matches!(named, Err(Error::Exists)), "{named:?}");
    vfs.release(late).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_want_one_name_one_gets_it() {
    let world = World::new().await;
    let mut tasks = Vec::new();
    for i in 0..16_u8 {
        let (vfs, handle) = (world.vfs().clone(), unnamed(&world, &[i; 1000]).await);
        tasks.push(tokio::spawn(async move {
            let note = (NOTE, |version: Hash| version.0.to_vec());
            let named = vfs.give_name(handle, ROOT, b"f", RenameMode::NoReplace, note).await;
            vfs.release(handle).await.unwrap();
            named.is_ok().then_some(i)
        }));
    }
    let mut winners = Vec::new();
    for task in tasks {
        winners.extend(task.await.unwrap());
    }
    let [winner] = winners[..] else { panic!("{winners:?}") };
    let ino = inspect(&world, "f").await.attributes.ino;
    assert_eq!(world.bytes(ino).await, [winner; 1000]);
    assert!(world.vfs().orphans().await.unwrap().is_empty(), "the others left nothing");
}

#[tokio::test]
async fn v3_a_file_unlinked_right_after_it_was_named_goes_with_its_last_close() {
    let world = World::new().await;
    let handle = unnamed(&world, &data()).await;
    let ino = ino_of(&world, handle);
    name(&world, handle, b"f", RenameMode::NoReplace).await.unwrap();
    world.vfs().unlink(ROOT, b"f").await.unwrap();
    assert!(!is_gone(&world, ino).await);
    world.vfs().release(handle).await.unwrap();
    assert!(is_gone(&world, ino).await);
}

#[tokio::test]
async fn a_version_is_that_of_the_content() {
    let mut world = World::new().await;
    let vfs = world.vfs().clone();
    let handle = unnamed(&world, &data()).await;
    let ino = name(&world, handle, b"f", RenameMode::NoReplace).await.unwrap().attributes.ino;
    let first = inspect(&world, "f").await;
    // What does not change the content does not change the version.
    let touch = SetAttributes {
        mode: Some(0o600),
        uid: Some(5),
        mtime: Some(SetTime::Now),
        ..SetAttributes::default()
    };
    vfs.set_attributes(ino, &touch).await.unwrap();
    vfs.link(ino, ROOT, b"link").await.unwrap();
    vfs.rename((ROOT, b"f"), (ROOT, b"g"), RenameMode::Replace).await.unwrap();
    let now = inspect(&world, "g").await;
    assert_eq!((now.version, now.note.clone()), (first.version, first.note));
    // While it has unpublished writes there is no version; then there is another.
    vfs.write(handle, WriteAt::Offset(7), b"x").await.unwrap();
    let during = inspect(&world, "g").await;
    assert_eq!((during.version, during.is_durable), (None, false));
    vfs.flush(handle).await.unwrap();
    let after = inspect(&world, "g").await;
    assert!(after.version.is_some() && after.version != first.version);
    let cut = SetAttributes { size: Some(10), ..SetAttributes::default() };
    vfs.set_attributes(ino, &cut).await.unwrap();
    let short = inspect(&world, "g").await;
    let grow = SetAttributes { size: Some(300_000), ..SetAttributes::default() };
    vfs.set_attributes(ino, &grow).await.unwrap();
    let sparse = inspect(&world, "g").await;
    let versions = [first.version, after.version, short.version, sparse.version];
    for (i, version) in versions.iter().enumerate() {
        assert!(version.is_some() && !versions[..i].contains(version), "{i}");
    }
    vfs.release(handle).await.unwrap();
    // Shared extents have the same bytes, but in another file.
    let copy = world.file("copy", b"").await;
    let (from, to) = (vfs.open(ino, READ).await.unwrap(), vfs.open(copy, WRITE).await.unwrap());
    vfs.copy_range((from, 0), (to, 0), 300_000).await.unwrap();
    vfs.flush(to).await.unwrap();
    assert_ne!(inspect(&world, "copy").await.version, sparse.version);
    for handle in [from, to] {
        vfs.release(handle).await.unwrap();
    }
    drop(vfs);
    world.reopen(Reopen::Clean).await;
    assert_eq!(inspect(&world, "g").await.version, sparse.version);
}
