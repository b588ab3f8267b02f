//! What takes more than one transaction is made in a workshop, and removed after a crash.

use super::*;
use crate::records::Orphan;

const ROOT: InodeNo = InodeNo::ROOT;

async fn names(world: &World, dir: InodeNo) -> Vec<String> {
    let list = world.vfs().read_dir(dir, 0, 1000).await.unwrap();
    let names = list.into_iter().map(|entry| String::from_utf8(entry.name).unwrap());
    names.filter(|name| !matches!(&**name, "." | "..")).collect()
}

/// A workshop with a tree in it.
async fn at_work(world: &World) -> Workshop {
    let vfs = world.vfs();
    let workshop = vfs.workshop(&ALICE, ROOT).await.unwrap();
    let into = workshop.ino().unwrap();
    let tree = vfs.mkdir(&ALICE, into, b"tree", 0o755).await.unwrap().ino;
    let below = vfs.mkdir(&ALICE, tree, b"below", 0o755).await.unwrap().ino;
    for number in 0..300 {
        vfs.symlink(&ALICE, below, format!("{number}").as_bytes(), b"x").await.unwrap();
    }
    workshop
}

async fn inodes(world: &World) -> u64 {
    world.vfs().read(|view| Ok(view.stats().inodes)).await.unwrap()
}

#[tokio::test]
async fn v3_a_workshop_goes_with_a_crash_and_what_left_it_stays() {
    let mut world = World::new().await;
    let before = inodes(&world).await;
    let workshop = at_work(&world).await;
    world.vfs().finish_recovery().await.unwrap();
    let into = workshop.ino().unwrap();
    assert_eq!(names(&world, into).await, ["tree"], "somebody works in it");
    drop(workshop);
    world.reopen(Reopen::Kill).await;
    assert_eq!((names(&world, ROOT).await.len(), inodes(&world).await), (0, before));
    assert!(world.vfs().orphans().await.unwrap().is_empty());

    let workshop = at_work(&world).await;
    let from = (workshop.ino().unwrap(), &b"tree"[..]);
    world.vfs().rename(from, (ROOT, b"here"), RenameMode::NoReplace).await.unwrap();
    drop(workshop);
    world.reopen(Reopen::Kill).await;
    assert_eq!(names(&world, ROOT).await, ["here"]);
    let tree = world.vfs().lookup(ROOT, b"here").await.unwrap().ino;
    let below = world.vfs().lookup(tree, b"below").await.unwrap().ino;
    assert_eq!(names(&world, below).await.len(), 300);
    assert_eq!(world.vfs().attributes(ROOT).await.unwrap().nlink, 3);
    assert!(world.vfs().orphans().await.unwrap().is_empty());
}

#[tokio::test]
async fn v3_who_gives_up_or_is_done_leaves_no_workshop() {
    let world = World::new().await;
    let before = inodes(&world).await;
    at_work(&world).await.end().await;
    assert_eq!((names(&world, ROOT).await.len(), inodes(&world).await), (0, before));
    drop(at_work(&world).await);
    assert!(world.vfs().inner.left_over.take());
    world.vfs().finish_recovery().await.unwrap();
    assert_eq!((names(&world, ROOT).await.len(), inodes(&world).await), (0, before));
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    // Somebody removes the workshop as any directory.
    let workshop = world.vfs().workshop(&ALICE, ROOT).await.unwrap();
    world.vfs().rmdir(ROOT, names(&world, ROOT).await[0].as_bytes()).await.unwrap();
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    workshop.end().await;
}

#[tokio::test]
async fn v3_a_workshop_that_somebody_moves_is_theirs() {
    let mut world = World::new().await;
    for place in [&b"mine"[..], b"as it was"] {
        let workshop = at_work(&world).await;
        let name = names(&world, ROOT).await.into_iter().find(|name| name.starts_with('.'));
        let name = name.unwrap().into_bytes();
        let dir = world.vfs().mkdir(&ALICE, ROOT, place, 0o755).await.unwrap().ino;
        let to = if place == b"mine" { (dir, &name[..]) } else { (ROOT, &b"theirs"[..]) };
        world.vfs().rename((ROOT, &name), to, RenameMode::NoReplace).await.unwrap();
        drop(workshop);
        world.reopen(Reopen::Kill).await;
        let seen = world.vfs().lookup(to.0, to.1).await.unwrap().ino;
        assert_eq!(names(&world, seen).await, ["tree"]);
        assert!(world.vfs().orphans().await.unwrap().is_empty());
    }
}

/// What a program does that does not know keys 1 and 2 of the record.
#[tokio::test]
async fn an_older_program_finds_a_directory_and_deletes_the_record() {
    let mut world = World::new().await;
    let workshop = at_work(&world).await;
    let ino = workshop.ino().unwrap();
    let known = Orphan { directory: None, name: None, ..Orphan::tree(ROOT, b"any") };
    let put = |draft: &mut Draft<'_>| -> Result<()> {
        draft.put_orphan(ino, &known);
        Ok(())
    };
    world.vfs().change(put).await.unwrap();
    drop(workshop);
    world.reopen(Reopen::Kill).await;
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    assert_eq!(names(&world, ino).await, ["tree"]);
    assert_eq!(names(&world, ROOT).await.len(), 1);
}

#[tokio::test]
async fn a_rename_puts_aside_what_was_there() {
    let world = World::new().await;
    let vfs = world.vfs();
    let mut dirs = Vec::new();
    for name in [&b"one"[..], b"two", b"aside"] {
        dirs.push(vfs.mkdir(&ALICE, ROOT, name, 0o755).await.unwrap().ino);
    }
    let [one, two, aside] = dirs[..] else { unreachable!() };
    let moving = vfs.mkdir(&ALICE, one, b"d", 0o755).await.unwrap().ino;
    let there = world.file("f", b"content").await;
    vfs.rename((ROOT, b"f"), (two, b"e"), RenameMode::NoReplace).await.unwrap();
    vfs.rename_aside((one, b"d"), (two, b"e"), (moving, b"x")).await.unwrap();
    assert_eq!(vfs.lookup(moving, b"x").await.unwrap().ino, there, "it can go into what comes");
    vfs.rename((moving, b"x"), (one, b"d"), RenameMode::NoReplace).await.unwrap();
    // The target is a directory, and the source a file.
    vfs.rename_aside((one, b"d"), (two, b"e"), (aside, b"a")).await.unwrap();
    assert_eq!(vfs.lookup(two, b"e").await.unwrap().ino, there);
    assert_eq!(vfs.lookup(aside, b"a").await.unwrap().ino, moving);
    assert_eq!(vfs.lookup(aside, b"..").await.unwrap().ino, ROOT);
    assert_eq!(vfs.lookup(moving, b"..").await.unwrap().ino, aside);
    assert!(names(&world, one).await.is_empty());
    for (dir, nlink) in [(one, 2), (two, 2), (aside, 3), (ROOT, 5)] {
        assert_eq!(vfs.attributes(dir).await.unwrap().nlink, nlink);
    }
    // Into the directory that is put aside; then onto an existing name.
    vfs.rename((aside, b"a"), (one, b"a"), RenameMode::NoReplace).await.unwrap();
    let refused = vfs.rename_aside((two, b"e"), (one, b"a"), (moving, b"x")).await;
    assert!(matches!(refused, Err(Error::Invalid)), "{refused:?}");
    let refused = vfs.rename_aside((two, b"e"), (one, b"a"), (ROOT, b"aside")).await;
    assert!(matches!(refused, Err(Error::Exists)), "{refused:?}");
}
