//! Reading a large file sequentially.

use super::*;

/// A file of `count` messages of 16 MiB, all with the same bytes, since sealing takes most of the time here.
fn large(world: &World, count: u64) -> (Vec<(u64, Extent)>, Vec<u8>) {
    let plain = noise(5, 16 << 20);
    let list = (0..count).map(|n| (n * EXTENT_MAX, world.lone(&plain).remove(0).1)).collect();
    (list, plain)
}

/// Reads in requests of 128 KiB, as the kernel does, with only the extents of the window.
async fn read_through(world: &World, list: &[(u64, Extent)], plain: &[u8]) {
    let file = Readahead::default();
    let size = list.len() as u64 * EXTENT_MAX;
    read_part(world, &file, list, plain, 0..size).await;
}

async fn read_part(
    world: &World,
    file: &Readahead,
    list: &[(u64, Extent)],
    plain: &[u8],
    part_of_file: Range<u64>,
) {
    let size = list.len() as u64 * EXTENT_MAX;
    for at in part_of_file.step_by(128 << 10) {
        let range = at..at + 128 * KIB;
        let window = file.window(&range);
        let known: Vec<_> = list
            .iter()
            .filter(|(at, extent)| *at < window.end && at + extent.length > window.start)
            .cloned()
            .collect();
        let read = world.read_as(file, &known, range, Overlay::default(), size).await.unwrap();
        let within = at % EXTENT_MAX;
        assert!(read == part(plain, within..within + 128 * KIB), "at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequential_reader_gets_large_pieces_ahead_each_once() {
    let world = World::new();
    let (list, plain) = large(&world, 5);
    read_through(&world, &list, &plain).await;
    let usage = world.reader().cache.usage();
    assert!(usage.fetched_bytes < 81 * MIB + MIB / 2, "{usage:?}");
    assert!(usage.fetches <= 32, "{usage:?}");
    assert!(usage.block_bytes < MIB, "a scan leaves nothing in memory: {usage:?}");
}

/// A newcomer gets its share of the memory at once, although another reader had all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_in_parallel_share_the_room() {
    let world = World::new();
    let (list, plain) = large(&world, 3);
    let files: Vec<_> = (0..6).map(|_| (large(&world, 3).0, Readahead::default())).collect();
    let old = Readahead::default();
    read_part(&world, &old, &list, &plain, 0..24 * MIB).await;
    let step = 2 * MIB;
    for from in (0..24 * MIB).step_by(2 << 20) {
        for (list, file) in &files {
            read_part(&world, file, list, &plain, from..from + step).await;
        }
        let from = 24 * MIB + from;
        read_part(&world, &old, &list, &plain, from..from + step).await;
    }
    let usage = world.reader().cache.usage();
    // Without read-ahead each request would be a fetch: 192 for each file.
    assert!(usage.fetches < 490, "{usage:?}");
    assert!(usage.fetched_bytes < 6 * 36 * MIB + 49 * MIB, "{usage:?}");
}
