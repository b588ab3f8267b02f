//! A large directory on a machine that has nothing of it.

use super::*;
use crate::store::Verb;

/// Names are in no order, so what they name lies all over the map: it is not fetched piece by piece.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_with_attributes_takes_few_requests_on_a_new_machine() {
    const ENTRIES: usize = 4000;
    let world = World::new().await;
    let vault = world.open("a").await;
    for n in 0..ENTRIES {
        vault.vfs().mkdir(&USER, InodeNo::ROOT, format!("{n}").as_bytes(), 0o755).await.unwrap();
    }
    vault.checkpoint().await.unwrap();
    vault.close(LONG).await.unwrap();

    let vault = world.open("b").await;
    world.faulty.take_requests();
    let (mut cookie, mut found) = (0, Vec::new());
    loop {
        let part = vault.vfs().read_dir_plus(InodeNo::ROOT, cookie, 128).await.unwrap();
        let Some(last) = part.last() else { break };
        cookie = last.cookie;
        found.extend(part);
    }
    assert_eq!(found.len(), ENTRIES + 2);
    assert!(found.iter().all(|entry| entry.attributes.is_some()));
    let asked = world.faulty.take_requests();
    let gets = asked.iter().filter(|request| request.verb == Verb::Get).count();
    assert!(gets <= 8, "{gets} requests");
    vault.close(LONG).await.unwrap();
}
