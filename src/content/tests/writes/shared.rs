//! What files share: threads, memory, room in staging.

use super::*;

#[test]
fn threads_on_one_file() {
    let limits = Limits { buffers: MIB, unpublished: 16 * MIB, ..Limits::default() };
    let staging = StagingLimits { budget: 4 << 30, free_floor: 0, wait: Duration::from_millis(50) };
    let world = world_with(limits, staging);
    let file = world.content.file(InodeNo(1));
    let done = std::sync::atomic::AtomicBool::new(false);
    let map: Vec<(u64, Extent)> = std::thread::scope(|scope| {
        let writers = [0u64, 1, 2, 3].map(|thread| {
            let file = &file;
            scope.spawn(move || {
                for i in 0..600u64 {
                    let at = (thread * 600 + i * 7 % 600) * 10_000;
                    _ = now(file.write(at, &noise(at, 10_000))).unwrap();
                    if i % 50 == 0 {
                        let overlay = file.overlay(at..at + 10_000).unwrap();
                        assert!(
                            overlay.pieces.iter().map(OverlayPiece::length).sum::<u64>() <= 10_000
                        );
                    }
                }
            })
        });
        let (world, file, done) = (&world, &file, &done);
        let publisher = scope.spawn(move || {
            let mut map = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) || file.unpublished().is_some() {
                let publication = now(file.seal()).unwrap();
                let packs = publication.pieces.iter().map(|(_, extent)| extent.reference.pack);
                _ = world.staging.appending(Seq(1), &packs.collect::<Vec<_>>()).unwrap();
                map = extents::apply(&map, &extents::publish(&map, &publication.pieces));
                file.published(publication);
                std::thread::sleep(Duration::from_millis(1));
            }
            map
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        publisher.join().unwrap()
    });
    let bytes = world.read(&file, &map, 0..24_000_000);
    for (i, part) in bytes.chunks(10_000).enumerate() {
        assert!(part == noise(i as u64 * 10_000, 10_000), "{i}");
    }
    assert_eq!((world.content.buffered(), world.staging.usage().reserved), (0, 0));
}

#[test]
fn what_is_discarded_is_given_back() {
    let world = world();
    let file = world.content.file(InodeNo(1));
    for i in 0..20 {
        _ = now(file.write(i << 20, &noise(i, 1 << 20))).unwrap();
    }
    _ = now(file.write(100 << 20, b"scattered")).unwrap();
    assert!(world.staging.usage().reserved > 0 && world.content.buffered() > 0);
    file.discard();
    assert!(file.unpublished().is_none());
    assert!(file.overlay(0..200 << 20).unwrap().pieces.is_empty());
    assert_eq!((world.staging.usage().reserved, world.content.buffered()), (0, 0));
    assert_eq!(world.staging.packs(), [], "nothing refers to its packs");
    drop(file);
    assert!(world.content.known(InodeNo(1)).is_none());
}

#[test]
fn what_is_unpublished_is_kept_without_a_handle() {
    let world = world();
    let file = world.content.file(InodeNo(1));
    _ = now(file.write(0, b"kept")).unwrap();
    drop(file);
    let files = world.content.unpublished();
    assert_eq!(files.len(), 1);
    let publication = now(files[0].seal()).unwrap();
    files[0].published(publication);
    drop(files);
    assert!(world.content.known(InodeNo(1)).is_none());
}

#[test]
fn scattered_writes_keep_to_the_memory_budget() {
    let limits = Limits { buffers: 4 * MIB, ..Limits::default() };
    let staging = StagingLimits { budget: 1 << 30, free_floor: 0, wait: Duration::from_millis(50) };
    let world = world_with(limits, staging);
    let mut inodes: Vec<_> = (1..=8).map(|ino| TestFile::new(&world, ino)).collect();
    let mut most = 0;
    for i in 0..4000u64 {
        let inode = &mut inodes[at(i * 7919 % 8)];
        inode.write(i * 104_729 % 2048 * 4096, &noise(i, 4096));
        most = most.max(world.content.buffered());
    }
    assert!(most <= 4 * MIB + 64 * KIB, "{most}");
    assert!(most > 3 * MIB, "it is used");
    for inode in &mut inodes {
        inode.check(&world);
        inode.publish();
        inode.check(&world);
    }
    assert_eq!(world.content.buffered(), 0);
}

#[test]
fn many_threads_share_packs() {
    let world = world();
    let files: Vec<(Arc<File>, Vec<(u64, Extent)>, Vec<u8>)> = std::thread::scope(|scope| {
        let write = |thread: u64| {
            let world = &world;
            move || {
                let mut done = Vec::new();
                for i in 0..500 {
                    let file = world.content.file(InodeNo(thread * 1000 + i));
                    let data = noise(thread * 1000 + i, at(100 + i * 37 % 9000));
                    _ = now(file.write(0, &data)).unwrap();
                    let publication = now(file.seal()).unwrap();
                    let map = publication.pieces.clone();
                    // Never published and never dropped, so that packs stay whatever the order of events.
                    std::mem::forget(publication);
                    done.push((file, map, data));
                }
                done
            }
        };
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(write(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    world.content.close_packs().unwrap();
    let packs = world.closed_packs();
    assert_eq!(packs.len(), world.staging.packs().len(), "all are closed, and whole");
    assert!(packs.len() < 40, "{}", packs.len());
    for (_, map, data) in &files {
        assert_eq!(world.open(&map[0].1), *data);
    }
    let entries: usize = packs.iter().map(|pack| world.footer(*pack).entries.len()).sum();
    assert_eq!(entries, 4000);
}
