//! W4: what was set aside comes back as new files, and nothing else does.

use std::ops::ControlFlow;

use super::*;
use crate::files::Files;
use crate::vault::{AsideFolder, Recovery};
use crate::vfs::{RenameMode, TreeWalk};

/// Changes of each kind on machine `a` while the store is away, and a machine that takes over.
async fn fenced(world: &World) {
    let one = world.open("a").await;
    let vfs = one.vfs();
    for (name, seed) in [("kept", 1), ("changed", 2), ("renamed", 3), ("read", 4), ("removed", 5)] {
        write(&vfs, name, &bytes(seed, 50_000)).await;
    }
    one.sync(LONG).await.unwrap();
    world.faulty.disappear();
    write(&vfs, "late", &bytes(6, 1_200_000)).await;
    // In the middle of the file: the rest of its content is in the bucket.
    let changed = vfs.lookup(InodeNo::ROOT, b"changed").await.unwrap().ino;
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let handle = vfs.open(changed, flags).await.unwrap();
    vfs.write(handle, WriteAt::Offset(20_000), b"in the middle").await.unwrap();
    vfs.release(handle).await.unwrap();
    let to = (InodeNo::ROOT, &b"new name"[..]);
    vfs.rename((InodeNo::ROOT, b"renamed"), to, RenameMode::Replace).await.unwrap();
    vfs.unlink(InodeNo::ROOT, b"removed").await.unwrap();
    let read = vfs.lookup(InodeNo::ROOT, b"read").await.unwrap().ino;
    let handle = vfs.open(read, OpenFlags { read: true, ..OpenFlags::default() }).await.unwrap();
    vfs.read_data(handle, 0, 10).await.unwrap();
    vfs.release(handle).await.unwrap();
    let dir = vfs.mkdir(&USER, InodeNo::ROOT, b"dir", 0o750).await.unwrap().ino;
    vfs.mkdir(&USER, dir, b"empty", 0o700).await.unwrap();
    vfs.symlink(&USER, dir, b"link", b"../late").await.unwrap();
    let late = vfs.lookup(InodeNo::ROOT, b"late").await.unwrap().ino;
    vfs.link(late, dir, b"the same").await.unwrap();
    drop(vfs);
    kill(one).await;
    world.faulty.heal();
    let other = world.try_open(Machines { take_over: true, ..machine("b") }).await.unwrap();
    write(&other.vfs(), "changed", b"theirs").await;
    write(&other.vfs(), "late", b"theirs, too").await;
    other.close(LONG).await.unwrap();
}

async fn recover(vault: &Vault, folder: &AsideFolder) -> crate::vault::Result<Recovery> {
    let mut tell = |_: &crate::vault::Restored| ControlFlow::Continue(());
    vault.recover(folder, (&[], b"recovered"), &mut tell).await
}

/// All paths below a directory, with the content of regular files.
async fn below(vault: &Vault, name: &str) -> BTreeMap<String, Option<Vec<u8>>> {
    let (vfs, mut found) = (vault.vfs(), BTreeMap::new());
    let top = vfs.lookup(InodeNo::ROOT, name.as_bytes()).await.unwrap().ino;
    let mut walk = TreeWalk::new(&vfs, top, Vec::new(), true);
    while let Some(entry) = walk.next().await.unwrap() {
        let mut content = None;
        if entry.is_directory() {
            walk.enter(&entry);
        } else if entry.kind == libc::S_IFREG {
            let flags = OpenFlags { read: true, ..OpenFlags::default() };
            let handle = vfs.open(entry.ino, flags).await.unwrap();
            let size = entry.attributes.unwrap().size as u32;
            content = Some(vfs.read_data(handle, 0, size).await.unwrap().to_vec());
            vfs.release(handle).await.unwrap();
        }
        found.insert(String::from_utf8(entry.path).unwrap(), content);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_what_was_set_aside_comes_back_beside_what_is_there() {
    let world = World::new().await;
    fenced(&world).await;
    let vault = world.open("a").await;
    let before = tree(&vault).await;
    let [folder] = &vault.set_aside().unwrap()[..] else { panic!("one folder") };
    let recovered = recover(&vault, folder).await.unwrap();
    assert_eq!((recovered.failures, recovered.place), (0, Some(vec![b"recovered".to_vec()])));

    let mut changed = bytes(2, 50_000);
    changed[20_000..20_013].copy_from_slice(b"in the middle");
    let late = Some(bytes(6, 1_200_000));
    let wanted: BTreeMap<_, _> = [
        ("changed", Some(changed)),
        ("dir", None),
        ("dir/empty", None),
        ("dir/link", None),
        ("dir/the same", late.clone()),
        ("late", late),
        ("new name", Some(bytes(3, 50_000))),
    ]
    .into_iter()
    .map(|(path, content)| (path.to_owned(), content))
    .collect();
    let found = below(&vault, "recovered").await;
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    assert!(found == wanted, "content");
    assert_eq!(tree(&vault).await, before, "nothing that was there is replaced");
    let files = Files::new(vault.vfs(), USER);
    let link = vault.vfs().directory_at(&[b"recovered".to_vec(), b"dir".to_vec()]).await.unwrap();
    let link = vault.vfs().lookup(link, b"link").await.unwrap();
    assert_eq!(files.read_link(link.ino).await.unwrap(), b"../late");
    let dir = vault.vfs().lookup(InodeNo::ROOT, b"recovered").await.unwrap().ino;
    let dir = vault.vfs().lookup(dir, b"dir").await.unwrap();
    assert_eq!(dir.mode & 0o777, 0o750);
    let late = vault.vfs().lookup(dir.ino, b"the same").await.unwrap();
    assert_eq!(late.nlink, 2);

    // It is all there on another machine, without what is on this one.
    vault.close(LONG).await.unwrap();
    let other = world.open("b").await;
    assert!(below(&other, "recovered").await == wanted);
    other.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_recovery_may_be_repeated_and_what_it_was_for_removed() {
    let world = World::new().await;
    fenced(&world).await;
    let vault = world.open("a").await;
    let folder = vault.set_aside().unwrap().remove(0);
    recover(&vault, &folder).await.unwrap();
    let again = recover(&vault, &folder).await.unwrap();
    assert_eq!(again.place, Some(vec![b"recovered-2".to_vec()]));
    assert!(below(&vault, "recovered").await == below(&vault, "recovered-2").await);
    vault.remove_aside(&folder).unwrap();
    assert_eq!(vault.set_aside().unwrap(), []);
    vault.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn w4_a_file_whose_pack_is_damaged_is_named_and_the_others_come_back() {
    let world = World::new().await;
    fenced(&world).await;
    let vault = world.open("a").await;
    let folder = vault.set_aside().unwrap().remove(0);
    for pack in std::fs::read_dir(folder.path.join("staging")).unwrap() {
        let path = pack.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        if content.len() > 1_000_000 {
            content.iter_mut().for_each(|byte| *byte ^= 1);
            std::fs::write(&path, content).unwrap();
        }
    }
    let recovered = recover(&vault, &folder).await.unwrap();
    assert!(recovered.failures > 0, "{recovered:?}");
    assert!(recovered.failed.iter().any(|(path, _)| path == b"late"), "{recovered:?}");
    let found = below(&vault, "recovered").await;
    assert_eq!(found["new name"], Some(bytes(3, 50_000)));
    assert!(!found.contains_key("late"));
    vault.close(LONG).await.unwrap();
}

/// The same machine with another state directory is warned of changes that it does not see there (W2).
#[tokio::test(flavor = "multi_thread")]
async fn w2_another_state_directory_of_this_machine_is_told() {
    let world = World::new().await;
    let one = world.open("a").await;
    one.sync(LONG).await.unwrap();
    world.faulty.disappear();
    write(&one.vfs(), "late", b"1").await;
    kill(one).await;
    world.faulty.heal();
    let state = world.state_dir("a");
    let hidden = state.with_extension("hidden");
    std::fs::rename(&state, &hidden).unwrap();
    let elsewhere = world.open("a").await;
    let said = elsewhere.status().warnings.concat();
    assert!(said.contains("another state directory"), "{said}");
    elsewhere.close(LONG).await.unwrap();
    drop(elsewhere);
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&hidden, &state).unwrap();
    let back = world.open("a").await;
    let said = back.status().warnings.concat();
    assert!(said.contains("this machine wrote this vault from another state directory"), "{said}");
    let folder = back.set_aside().unwrap().remove(0);
    recover(&back, &folder).await.unwrap();
    assert_eq!(below(&back, "recovered").await["late"], Some(b"1".to_vec()));
    kill(back).await;
    // The state directory that wrote last gets no warning.
    let again = world.open("a").await;
    assert_eq!(again.status().warnings, Vec::<String>::new());
    again.close(LONG).await.unwrap();
}
