//! Where holes and data begin.

use super::rules::{open_new, write};
use super::*;

async fn seek(world: &World, handle: HandleId, offset: u64, what: Seek) -> Option<u64> {
    match world.vfs().seek(handle, offset, what).await {
        Ok(found) => Some(found),
        Err(Error::NoMoreData) => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn holes_and_data_begin_with_blocks_as_on_ext4() {
    let world = World::new().await;
    let (ino, handle) = open_new(&world, "f").await;
    write(&world, handle, 10_000, &[1; 100]).await;
    world.vfs().flush(handle).await.unwrap();
    write(&world, handle, 30_000, b"x").await;
    let data = async |offset| seek(&world, handle, offset, Seek::Data).await;
    let hole = async |offset| seek(&world, handle, offset, Seek::Hole).await;
    assert_eq!((data(0).await, hole(0).await), (Some(8192), Some(0)));
    // An offset in the block, before its bytes.
    assert_eq!((data(8193).await, hole(8193).await), (Some(8193), Some(12_288)));
    // An offset in the block, behind its bytes.
    assert_eq!((data(12_287).await, hole(12_287).await), (Some(12_287), Some(12_288)));
    assert_eq!((data(12_288).await, hole(12_288).await), (Some(28_672), Some(12_288)));
    // The end of the file is a hole, wherever in a block it is.
    assert_eq!((data(30_000).await, hole(28_672).await), (Some(30_000), Some(30_001)));
    assert_eq!((data(30_001).await, hole(30_001).await), (None, None));
    let set = SetAttributes { size: Some(100_000), ..SetAttributes::default() };
    world.vfs().set_attributes(ino, &set).await.unwrap();
    assert_eq!((data(28_672).await, hole(28_672).await), (Some(28_672), Some(32_768)));
    assert_eq!((data(32_768).await, hole(99_999).await), (None, Some(99_999)));
}

#[tokio::test]
async fn data_in_many_pieces_is_gone_over_to_its_end() {
    let world = World::new().await;
    let (_, handle) = open_new(&world, "f").await;
    for block in (0..40_u64).filter(|block| *block != 30) {
        write(&world, handle, block * 4096 + block * 7, b"x").await;
        // Half of it is unpublished.
        if block < 20 {
            world.vfs().flush(handle).await.unwrap();
        }
    }
    assert_eq!(seek(&world, handle, 5, Seek::Hole).await, Some(30 * 4096));
    assert_eq!(seek(&world, handle, 30 * 4096, Seek::Data).await, Some(31 * 4096));
    let end = 39 * 4096 + 39 * 7 + 1;
    assert_eq!(seek(&world, handle, 31 * 4096, Seek::Hole).await, Some(end));
    world.vfs().flush(handle).await.unwrap();
    assert_eq!(seek(&world, handle, 5, Seek::Hole).await, Some(30 * 4096));
    assert_eq!(seek(&world, handle, 31 * 4096, Seek::Hole).await, Some(end));
}
