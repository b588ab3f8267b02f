//! A map of several pages whose key was rotated (K8).

use std::ops::Range;

use super::*;
use crate::crypto::{EpochEnd, MasterKey};

fn epochs(world: &World, base: &Base) -> Vec<Option<u32>> {
    let pages = &base.manifest().unwrap().pages;
    let epoch = |page: &PageRef| world.keys.epoch_of(page.place(), &page.salt, &page.commitment);
    pages.iter().map(|page| epoch(page).map(|epoch| epoch.0)).collect()
}

async fn parts(base: &Base, before: u32) -> Vec<(InodeNo, Range<u64>)> {
    let mut found = Vec::new();
    for page in 0.. {
        let Some(parts) = older_parts(base, page, KeyEpoch(before)).await.unwrap() else { break };
        found.extend(parts);
    }
    found
}

#[tokio::test]
async fn k8_a_checkpoint_shares_no_page_that_an_older_epoch_sealed() {
    let mut world = World::new(SMALL);
    let mut expected = Vec::new();
    let mut changes = Vec::new();
    for n in 1..200 {
        let ino = InodeNo(n);
        changes.push(put(&Key::Inode(ino), file((n % 3 == 0).then(|| extent(1, n)))));
        expected.extend((n % 3 == 0).then_some((ino, 0..n)));
    }
    for n in 200..260 {
        let (ino, at) = (InodeNo(n), n * MIB);
        changes.push(put(&Key::Extent(ino, at), encode_value(&extent(2, 7))));
        expected.push((ino, at..at + 7));
    }
    world.commit(vec![], vec![changes]);
    let base = world.build(&Base::empty()).await;
    assert!(epochs(&world, &base).len() > 5);
    assert!(epochs(&world, &base).iter().all(|epoch| *epoch == Some(1)));
    assert_eq!(parts(&base, 2).await, expected);
    assert_eq!(parts(&base, 1).await, []);
    world.keys.add(&MasterKey::from_bytes([9; 32]), KeyEpoch(2));
    world.keys.begin_newest();
    world.keys.end_older(EpochEnd { last: world.head(), base: None });
    // By default, unchanged pages are shared.
    world.commit(vec![], vec![vec![put(&Key::Inode(InodeNo(1)), file(None))]]);
    let shared = world.build(&base).await;
    let of =
        |base: &Base, epoch| epochs(&world, base).iter().filter(|e| **e == Some(epoch)).count();
    assert!(of(&shared, 1) > 3 && of(&shared, 2) > 0, "{:?}", epochs(&world, &shared));
    world.commit(vec![], vec![vec![put(&Key::Inode(InodeNo(2)), file(None))]]);
    let anew = world.try_build_since(&shared, &world.cold(), KeyEpoch(2)).await.unwrap();
    assert!(epochs(&world, &anew).iter().all(|e| *e == Some(2)), "{:?}", epochs(&world, &anew));
    assert_eq!(all(&anew).await, world.expected());
    // Content of the older epoch is also found through pages of the new one.
    assert_eq!(parts(&anew, 2).await, expected);
    // From then on pages are shared again.
    world.commit(vec![], vec![vec![put(&Key::Inode(InodeNo(3)), file(None))]]);
    let next = world.try_build_since(&anew, &world.cold(), KeyEpoch(2)).await.unwrap();
    let is_kept = |page: &&PageRef| anew.manifest().unwrap().pages.contains(page);
    assert!(next.manifest().unwrap().pages.iter().filter(is_kept).count() > 3);
}
