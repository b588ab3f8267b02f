//! What is reported to be in the bucket is there.

use super::*;
use crate::store::{Fault, On, Verb};
use crate::vfs::{Inspected, RenameMode};

async fn inspect(vault: &Vault) -> Inspected {
    vault.vfs().inspect(InodeNo::ROOT, b"f", b"user.none").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_file_is_durable_when_the_log_has_it_also_after_a_remount() {
    let world = World::new().await;
    let one = world.open("a").await;
    world.faulty.inject(On::next(Verb::Put, "pack/").always(), Fault::Breaks);
    write(&one.vfs(), "f", b"content").await;
    assert!(!inspect(&one).await.is_durable);
    kill(one).await;
    let one = world.open("a").await;
    let before = inspect(&one).await;
    assert!(!before.is_durable, "the claim is in the log, the file is not");
    world.faulty.heal();
    one.vfs().in_bucket().await.unwrap();
    let after = inspect(&one).await;
    assert!(after.is_durable);
    one.checkpoint().await.unwrap();
    assert!(inspect(&one).await.is_durable);
    one.vfs()
        .rename((InodeNo::ROOT, b"f"), (InodeNo::ROOT, b"g"), RenameMode::Replace)
        .await
        .unwrap();
    one.close(LONG).await.unwrap();
    drop(one);
    let reader = world.try_open(Machines { read_only: true, ..machine("b") }).await.unwrap();
    let seen = reader.vfs().inspect(InodeNo::ROOT, b"g", b"user.none").await.unwrap();
    assert!(seen.is_durable);
    assert_eq!((seen.version, after.version), (before.version, before.version));
}
