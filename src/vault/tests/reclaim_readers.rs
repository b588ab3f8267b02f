//! A reader of a state that is no longer kept, while what it needs is deleted (K4): it gets what was there, or
//! an error.

use super::*;
use crate::vfs::Error as VfsError;

const RETENTION: Duration = Duration::from_secs(100);

/// What a reader gets of a file by its name; an error as its errno.
async fn seen(vault: &Vault, name: &str) -> Result<Vec<u8>, i32> {
    let vfs = vault.vfs();
    let errno = |error: VfsError| error.errno();
    let found = vfs.lookup(InodeNo::ROOT, name.as_bytes()).await.map_err(errno)?;
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let handle = vfs.open(found.ino, flags).await.map_err(errno)?;
    let mut all = Vec::new();
    let read = loop {
        match vfs.read_data(handle, all.len() as u64, 1 << 20).await {
            Ok(part) if part.is_empty() => break Ok(all),
            Ok(part) => all.extend(&part),
            Err(error) => break Err(errno(error)),
        }
    };
    vfs.release(handle).await.unwrap();
    read
}

#[tokio::test]
async fn k4_a_reader_of_a_state_that_is_gone_gets_what_was_there_or_an_error() {
    let world = World::new().await;
    world.store.set_time(std::time::SystemTime::now());
    let vault = world.open("a").await;
    vault.set_retention(RETENTION).await.unwrap();
    let mut model = fill(&vault, "old").await;
    for n in 0..300 {
        let (name, data) = (format!("small{n}"), bytes(n, 3000 + n));
        write(&vault.vfs(), &name, &data).await;
        model.insert(name, data);
    }
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    // It has the table of the map's pages, and nothing else.
    let reader = world.try_open(Machines { read_only: true, ..machine("b") }).await.unwrap();
    assert_eq!(seen(&reader, "old3").await.as_ref(), Ok(&model["old3"]));
    // All is rewritten, under the same names and others, and the old states are deleted.
    for name in model.keys() {
        match name.len() % 2 {
            0 => vault.vfs().unlink(InodeNo::ROOT, name.as_bytes()).await.unwrap(),
            _ => write(&vault.vfs(), name, b"written anew").await,
        }
    }
    let mut gone = 0;
    for n in 0..4 {
        world.store.advance(RETENTION + Duration::from_secs(2));
        write(&vault.vfs(), "clock", &bytes(n, 100)).await;
        gone += vault.reclaim(false, &|_| {}).await.unwrap().packs.objects;
    }
    assert!(gone > 2, "{gone}");
    let says_so = || reader.status().warnings.iter().any(|said| said.contains("mount it again"));
    assert!(!says_so());
    let (mut right, mut refused) = (0, 0);
    for (name, data) in &model {
        match seen(&reader, name).await {
            Ok(found) => {
                assert!(found == *data, "{name}: {} bytes that it never had", found.len());
                right += 1;
            }
            Err(errno) => {
                assert_eq!(errno, libc::EIO, "{name}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100 && right > 0, "{right} right, {refused} refused");
    assert!(seen(&reader, "clock").await.is_err(), "it is not followed");
    assert!(says_so(), "{:?}", reader.status().warnings);
    reader.close(LONG).await.unwrap();
    drop(reader);
    // Opened again, the same machine, with what it has cached, shows the current state.
    let again = world.try_open(Machines { read_only: true, ..machine("b") }).await.unwrap();
    assert_eq!(tree(&again).await, tree(&vault).await);
    again.close(LONG).await.unwrap();
    vault.close(LONG).await.unwrap();
}
