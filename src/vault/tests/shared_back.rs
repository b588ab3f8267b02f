//! V4, step by step: what a restoration decided before a deletion is checked again when it takes
//! effect.

use super::*;
use crate::types::CommitNo;
use crate::vault::past::Sharing;
use crate::vfs;

/// Writes and removes a file in one pack; returns the last commit that has it.
async fn had(vault: &Vault) -> CommitNo {
    write(&vault.vfs(), "f", &bytes(1, 3 << 20)).await;
    vault.sync(LONG).await.unwrap();
    let had = vault.status().head;
    vault.vfs().unlink(InodeNo::ROOT, b"f").await.unwrap();
    vault.sync(LONG).await.unwrap();
    had
}

/// Lets a new file refer to all of the old one; whether that was allowed.
async fn shared(
    vault: &Vault,
    pieces: &[(u64, crate::types::Extent)],
    ask: Option<&Sharing>,
) -> bool {
    let to = vault.vfs().create_unnamed(&USER, 0o644, b"f").await.unwrap();
    let may = |draft: &crate::index::Draft<'_>| ask.map_or(Ok(true), |sharing| sharing.may(draft));
    let is_shared = vault.vfs().share_old(to, pieces, may).await.unwrap();
    vault.vfs().release(to).await.unwrap();
    is_shared
}

#[tokio::test]
async fn v4_a_state_that_deletion_passed_meanwhile_is_not_shared() {
    let world = World::new().await;
    let mut now = std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(480_000);
    world.store.set_time(now);
    let vault = world.open("a").await;
    vault.set_retention(Duration::from_secs(100)).await.unwrap();
    let had = had(&vault).await;

    let past = vault.past(&StateAt::Commit(had.0)).await.unwrap();
    let file = past.vfs.lookup(InodeNo::ROOT, b"f").await.unwrap().ino;
    let flags = vfs::OpenFlags { read: true, ..vfs::OpenFlags::default() };
    let from = past.vfs.open(file, flags).await.unwrap();
    let list = past.vfs.records_from(from, 0).await.unwrap();
    let mut sharing = Sharing::of(world.bucket.clone(), world.keys.clone(), had);
    let pieces = sharing.choose(&list).await.unwrap();
    assert_eq!(pieces, list);
    let pack = pieces[0].1.reference.pack;
    assert!(shared(&vault, &pieces, Some(&sharing)).await, "nothing stands against it");
    vault.sync(LONG).await.unwrap();

    // K5: while the pack is frozen, the state is still promised, but no append may refer to the pack.
    let writer = vault.writer.as_ref().unwrap();
    writer.staging.begin_deletion();
    let frozen = writer.staging.freeze(&[pack], writer.uploader.confirmed());
    assert_eq!(frozen, [pack]);
    assert!(!shared(&vault, &pieces, Some(&sharing)).await);
    writer.staging.end_deletion();

    // A deletion comes and goes between the decision and the transaction.
    let name = crate::upload::pack_object(pack);
    for n in 0..6 {
        now += Duration::from_secs(1000);
        world.store.set_time(now);
        write(&vault.vfs(), "g", &bytes(n, 1000)).await;
        vault.reclaim(false, &|_| {}).await.unwrap();
    }
    assert!(world.store.peek(&name).is_none(), "the pack is gone");
    vault.cache().forget(&name);
    assert!(!shared(&vault, &pieces, Some(&sharing)).await);
    // Without the check the reference would be accepted, and refer to nothing.
    assert!(shared(&vault, &pieces, None).await);
    past.vfs.release(from).await.unwrap();
    drop(past);
    vault.close(LONG).await.unwrap();
}
