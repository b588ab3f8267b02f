//! Paths and trees, over the real layers below.

use std::ops::ControlFlow;

use super::*;
use crate::vfs::tests::World;
use crate::vfs::{SetAttributes, SetTime, Setter};

const OWNER: Caller = Caller { uid: 1000, gid: 100, pid: 1, umask: 0o022 };

fn files(world: &World) -> Files {
    Files::new(world.vfs().clone(), OWNER)
}

async fn put(files: &Files, path: &str, content: &[u8]) {
    let mut file = files.create(b"x").await.unwrap();
    file.write(0, content).await.unwrap();
    let place = files.place(path.as_bytes()).await.unwrap();
    file.keep(files, &place, content.len() as u64, &Dress::default()).await.unwrap();
}

async fn content(files: &Files, path: &str) -> Result<Vec<u8>> {
    let found = files.find(path.as_bytes(), true).await?;
    let mut reading = files.read(found.attributes.ino).await?;
    let mut all = vec![0; usize::try_from(reading.size()).unwrap()];
    while let Some(piece) = reading.next(7).await? {
        let at = usize::try_from(piece.offset).unwrap();
        all[at..at + piece.data.len()].copy_from_slice(&piece.data);
    }
    Ok(all)
}

async fn link(files: &Files, path: &str, target: &str) {
    let place = files.place(path.as_bytes()).await.unwrap();
    let dress = Dress::default();
    files.make_other(&place, libc::S_IFLNK, target.as_bytes(), 0, &dress).await.unwrap();
}

/// Accepts every step, and keeps the failures.
fn keep(failed: &mut Vec<String>) -> impl FnMut(TreeStep<'_>) -> ControlFlow<()> + Send {
    |step| {
        if let TreeStep::Failed(path, error) = step {
            failed.push(format!("{}: {error}", String::from_utf8_lossy(path)));
        }
        ControlFlow::Continue(())
    }
}

#[tokio::test]
async fn paths_lead_through_symlinks_but_not_out() {
    let world = World::new().await;
    let files = files(&world);
    files.make_directory(b"a/b/c", true).await.unwrap();
    put(&files, "a/b/c/f", b"content").await;
    link(&files, "a/l", "b/c").await;
    link(&files, "a/b/up", "../l/f").await;
    link(&files, "a/out", "../../etc").await;
    link(&files, "a/abs", "/etc").await;
    link(&files, "a/round", "round").await;
    for path in ["a/b/c/f", "/a//b/./c/f", "a/l/f", "a/b/up", "a/b/c/../../l/f", "../a/b/up"] {
        assert_eq!(content(&files, path).await.unwrap(), b"content", "{path}");
    }
    let ino = async |path: &str| files.find(path.as_bytes(), true).await.unwrap().attributes.ino;
    assert_eq!(ino("a/b/c/..").await, ino("a/b").await);
    assert_eq!(files.find(b"a/b/c/..", true).await.unwrap().name, b"b");
    assert_eq!(ino("a/..").await, InodeNo::ROOT);
    assert!(files.find(b"a/l", false).await.unwrap().attributes.kind() == libc::S_IFLNK);
    assert!(files.find(b"a/l/", false).await.unwrap().is_directory());
    for path in ["a/out", "a/abs", "a/out/passwd"] {
        assert!(matches!(files.find(path.as_bytes(), true).await, Err(Error::Outside)), "{path}");
    }
    assert!(matches!(files.find(b"a/round", true).await, Err(Error::Loop)));
    let not_found = files.find(b"a/none", true).await;
    assert!(matches!(not_found, Err(Error::Vfs(VfsError::NotFound))));
    let below_a_file = files.find(b"a/b/c/f/", true).await;
    assert!(matches!(below_a_file, Err(Error::Vfs(VfsError::NotDirectory))));
    assert!(matches!(files.place(b"/").await.unwrap().names(), Err(Error::Root)));
}

#[tokio::test]
async fn a_tree_is_copied_with_all_that_it_has_and_removed_whole() {
    let world = World::new().await;
    let files = files(&world);
    files.make_directory(b"from/sub/empty", true).await.unwrap();
    let large: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    put(&files, "from/f", &large).await;
    put(&files, "from/sub/g", b"").await;
    link(&files, "from/l", "nowhere").await;
    let f = files.find(b"from/f", false).await.unwrap();
    files.link(&f, &files.place(b"from/sub/again").await.unwrap()).await.unwrap();
    let sub = files.find(b"from/sub", false).await.unwrap().attributes.ino;
    let time = crate::types::Timestamp { seconds: 1000, nanos: 7 };
    let set = SetAttributes {
        mode: Some(0o2750),
        mtime: Some(SetTime::To(time)),
        ..SetAttributes::default()
    };
    world.vfs().set_attributes(sub, &set).await.unwrap();
    let by = Setter::Superuser;
    world.vfs().set_xattr(f.attributes.ino, b"user.a", b"kept", 0, &by).await.unwrap();
    let mut failed = Vec::new();
    let from = files.find(b"from", false).await.unwrap();
    let place = files.place(b"to").await.unwrap();
    let refused = files.copy(&from, &place, false, &mut keep(&mut failed)).await;
    assert!(matches!(refused, Err(Error::Omitted)));
    let inside = files.place(b"from/sub/x").await.unwrap();
    let refused = files.copy(&from, &inside, true, &mut keep(&mut failed)).await;
    assert!(matches!(refused, Err(Error::IntoItself)));
    // A directory is in the way of a file; everything else is copied.
    files.make_directory(b"to/l", true).await.unwrap();
    let place = files.place(b"to").await.unwrap();
    files.copy(&from, &place, true, &mut keep(&mut failed)).await.unwrap();
    assert_eq!(failed, ["l: is a directory"]);
    assert_eq!(content(&files, "to/f").await.unwrap(), large);
    assert_eq!(content(&files, "to/sub/g").await.unwrap(), b"");
    let (f, again) = (files.find(b"to/f", false).await, files.find(b"to/sub/again", false).await);
    let f = f.unwrap().attributes;
    assert_eq!((f.ino, f.nlink), (again.unwrap().attributes.ino, 2));
    assert_eq!(
        files.attributes_beyond(f.ino).await.unwrap(),
        [(b"user.a".to_vec(), b"kept".to_vec())]
    );
    let sub = files.find(b"to/sub", false).await.unwrap().attributes;
    assert_eq!((sub.mode & 0o7777, sub.mtime), (0o2750, time));

    let place = files.place(b"to").await.unwrap();
    let refused = files.remove(&place, false, &mut keep(&mut failed)).await;
    assert!(matches!(refused, Err(Error::Omitted)));
    let removed = files.remove(&place, true, &mut keep(&mut failed)).await.unwrap();
    assert_eq!((removed, failed.len()), (7, 1));
    assert!(matches!(files.find(b"to", false).await, Err(Error::Vfs(VfsError::NotFound))));
    assert_eq!(content(&files, "from/f").await.unwrap(), large);
}

/// A program makes it by way of a directory that it has open, and then the one below.
#[tokio::test]
async fn a_tree_too_deep_for_a_path_is_copied_to_its_bottom() {
    let world = World::new().await;
    let (vfs, files) = (world.vfs(), files(&world));
    let name = vec![b'x'; 250];
    let bottom = async |name_at_root: &[u8]| {
        let mut at = vfs.lookup(InodeNo::ROOT, name_at_root).await?.ino;
        for _ in 0..30 {
            at = vfs.lookup(at, &name).await?.ino;
        }
        Ok::<_, VfsError>(at)
    };
    let mut at = vfs.mkdir(&OWNER, InodeNo::ROOT, b"from", 0o755).await.unwrap().ino;
    for _ in 0..30 {
        at = vfs.mkdir(&OWNER, at, &name, 0o755).await.unwrap().ino;
    }
    drop(vfs.mkdir(&OWNER, at, b"last", 0o755).await.unwrap());
    let (from, to) = (files.find(b"from", false).await, files.place(b"to").await);
    let mut failed = Vec::new();
    let copied = files.copy(&from.unwrap(), &to.unwrap(), true, &mut keep(&mut failed)).await;
    assert_eq!((copied.unwrap(), failed), (32, Vec::new()));
    assert!(vfs.lookup(bottom(b"to").await.unwrap(), b"last").await.is_ok());
}

#[tokio::test]
async fn another_name_takes_the_place_of_what_had_it_and_nothing_is_left_over() {
    let world = World::new().await;
    let files = files(&world);
    put(&files, "a", b"a").await;
    put(&files, "b", b"b").await;
    files.make_directory(b"d", false).await.unwrap();
    let a = files.find(b"a", false).await.unwrap();
    for name in ["b", "b", "a", "new"] {
        let place = files.place(name.as_bytes()).await.unwrap();
        files.link(&a, &place).await.unwrap();
        assert_eq!(content(&files, name).await.unwrap(), b"a");
    }
    let place = files.place(b"d").await.unwrap();
    let refused = files.link(&a, &place).await;
    assert!(matches!(refused, Err(Error::Vfs(VfsError::IsDirectory))));
    let root = files.directory(b"").await.unwrap();
    let (page, _) = files.list(root, 0).await.unwrap().unwrap();
    let mut names: Vec<_> = page.into_iter().map(|found| found.name).collect();
    names.sort();
    assert_eq!(names, [&b"a"[..], b"b", b"d", b"new"]);
    assert_eq!(files.find(b"a", false).await.unwrap().attributes.nlink, 3);
}

#[tokio::test]
async fn a_file_is_seen_when_it_is_whole_and_holes_are_left_out() {
    let world = World::new().await;
    let files = files(&world);
    put(&files, "f", b"old").await;
    let mut file = files.create(b"f").await.unwrap();
    file.write(1 << 20, b"data").await.unwrap();
    assert_eq!(content(&files, "f").await.unwrap(), b"old");
    let place = files.place(b"f").await.unwrap();
    let size = (1 << 20) + 5000;
    let seen = file.keep(&files, &place, size, &Dress::default()).await.unwrap();
    assert_eq!((seen.size, seen.blocks < 32), (size, true));
    let found = files.find(b"f", false).await.unwrap();
    let mut reading = files.read(found.attributes.ino).await.unwrap();
    let first = reading.next(1 << 16).await.unwrap().unwrap();
    assert_eq!(first.offset, 1 << 20);
    assert_eq!(content(&files, "f").await.unwrap()[1 << 20..][..4], *b"data");
    // The content changes meanwhile: what was read is a mix.
    put(&files, "f", b"new").await;
    while reading.next(1 << 16).await.unwrap().is_some() {}
    let dropped = files.create(b"g").await.unwrap();
    drop(dropped);
    assert!(matches!(files.find(b"g", false).await, Err(Error::Vfs(VfsError::NotFound))));
}
