//! The rules of `PROTOCOL.md` that the write path keeps.

use super::*;

#[test]
fn v1_what_streams_is_on_its_way_before_the_file_is_closed() {
    let world = world();
    let mut inode = TestFile::new(&world, 1);
    let piece = noise(1, 1 << 20);
    for i in 0..40 {
        inode.write(i << 20, &piece);
    }
    let closed = world.closed_packs();
    assert_eq!(closed.len(), 2, "two full extents of 40 MiB");
    assert_eq!(closed[0].1, closed[1].1, "full packs are of one length");
    assert!(world.content.buffered() < MIB, "a stream needs no more than a chunk or so");
    assert_eq!(now(inode.file.seal()).unwrap().pieces.len(), 3);
    inode.publish();
    inode.check(&world);
}

#[test]
fn v1_writes_a_little_out_of_order_still_stream() {
    let world = world();
    let mut inode = TestFile::new(&world, 1);
    // The order in which the kernel's parallel requests may arrive.
    let order = [1u64, 0, 3, 2, 5, 7, 6, 4];
    for round in 0..32 {
        for i in order {
            let at = (round * 8 + i) << 17;
            inode.write(at, &noise(at, 1 << 17));
        }
    }
    assert_eq!(world.closed_packs().len(), 2);
    inode.publish();
    assert_eq!(inode.map.len(), 2, "32 MiB are two extents");
    inode.check(&world);
}

#[test]
fn v1_a_short_end_rides_in_the_shared_pack() {
    let world = world();
    let mut inode = TestFile::new(&world, 1);
    for i in 0..129 {
        inode.write(i << 17, &noise(i, 1 << 17));
    }
    inode.publish();
    inode.check(&world);
    assert_eq!(
        (inode.map.len(), world.closed_packs().len(), world.staging.packs().len()),
        (2, 1, 2)
    );
}

#[test]
fn v1_one_publication_at_a_time() {
    let world = world();
    let mut inode = TestFile::new(&world, 1);
    inode.write(0, b"old");
    let first = now(inode.file.seal()).unwrap();
    let file = inode.file.clone();
    let mut second = std::pin::pin!(file.seal());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(second.as_mut().poll(&mut context).is_pending(), "the first is not published yet");
    inode.write(0, b"new");
    inode.commit(&first);
    inode.file.published(first);
    let second = now(second).unwrap();
    inode.commit(&second);
    inode.file.published(second);
    inode.check(&world);
    assert!(inode.file.unpublished().is_none());
}

#[test]
fn v1_limits_ask_for_publication() {
    let limits = Limits { unpublished: 8 * MIB, ..Limits::default() };
    let staging = StagingLimits { budget: 1 << 30, free_floor: 0, wait: Duration::from_millis(50) };
    let world = world_with(limits, staging);
    let file = world.content.file(InodeNo(1));
    let piece = noise(1, 1 << 20);
    for i in 0..7 {
        assert!(!now(file.write(i << 20, &piece)).unwrap());
    }
    assert!(world.content.overdue(Duration::from_secs(30)).is_empty());
    assert!(now(file.write(7 << 20, &piece)).unwrap());
    assert_eq!(world.content.overdue(Duration::from_secs(30)).len(), 1);
    let publication = now(file.seal()).unwrap();
    file.published(publication);
    assert!(!now(file.write(8 << 20, &piece)).unwrap());
    assert_eq!(world.content.overdue(Duration::ZERO).len(), 1, "by age");

    // Many records, from scattered bytes.
    let file = world.content.file(InodeNo(2));
    let asked = (0..20_000).find(|i| now(file.write(i * 3, b"x")).unwrap());
    assert!(asked.is_some_and(|i| i < 6_000), "2 MiB of records: {asked:?}");
}

#[test]
fn j1_extents_are_in_staging_before_they_are_published() {
    let world = world();
    let mut inode = TestFile::new(&world, 1);
    inode.write(0, &noise(1, 5000));
    inode.write(10_000, &noise(2, 5000));
    inode.write(1 << 30, &noise(3, 3 << 20));
    let publication = now(inode.file.seal()).unwrap();
    assert_eq!(publication.pieces.len(), 3);
    // What another process sees in the directory: only what `write(2)` has put there.
    for (_, extent) in &publication.pieces {
        let reference = &extent.reference;
        let path = |end| world.dir.path().join(format!("staging/{}.{end}", reference.pack));
        let file = std::fs::read(path("open")).or_else(|_| std::fs::read(path("pack"))).unwrap();
        let sealed = &file[at(reference.offset)..at(reference.offset + reference.sealed_length)];
        world.keys.open(Place::Extent(reference.extent), sealed).unwrap();
    }
}

#[test]
fn j7_a_pack_ends_in_a_footer_that_says_what_is_in_it() {
    let world = world();
    let mut files = Vec::new();
    for i in 1..=20u64 {
        let mut inode = TestFile::new(&world, i);
        inode.file.note_name(format!("name {i}").as_bytes());
        inode.write(i, &noise(i, 1000 * at(i)));
        let publication = now(inode.file.seal()).unwrap();
        files.push((publication.pieces[0].clone(), publication));
    }
    let pack = files[0].0.1.reference.pack;
    assert!(files.iter().all(|((_, extent), _)| extent.reference.pack == pack), "one pack");
    assert!(world.closed_packs().is_empty());
    world.content.close_packs().unwrap();
    let closed = world.closed_packs();
    let footer = world.footer(closed[0]);
    assert_eq!(footer.entries.len(), 20);
    for (i, (entry, ((offset, extent), _))) in footer.entries.iter().zip(&files).enumerate() {
        assert_eq!((&entry.reference, entry.offset), (&extent.reference, *offset));
        assert_eq!(entry.inode, InodeNo(i as u64 + 1));
        assert_eq!(entry.name, format!("name {}", i + 1).as_bytes());
    }
    // The next extent begins a new pack.
    let mut inode = TestFile::new(&world, 99);
    inode.write(0, b"later");
    inode.publish();
    assert_ne!(inode.map[0].1.reference.pack, pack);
}

#[test]
fn j7_packs_close_when_they_have_lingered() {
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(3600));
    for linger in [Linger { age: short, quiet: long }, Linger { age: long, quiet: short }] {
        let world = lingering_world(Limits::default(), ROOMY, linger);
        let file = world.content.file(InodeNo(1));
        let began = std::time::Instant::now();
        _ = now(file.write(0, b"x")).unwrap();
        let _publication = now(file.seal()).unwrap();
        while world.closed_packs().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "{linger:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(began.elapsed() >= short, "{linger:?}");
    }
}

#[test]
fn j8_a_full_staging_area_is_refused_at_the_write() {
    let staging =
        StagingLimits { budget: 24 * MIB, free_floor: 0, wait: Duration::from_millis(50) };
    let world = world_with(Limits::default(), staging);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let file = world.content.file(InodeNo(1));
    let piece = noise(1, 1 << 20);
    let mut accepted = 0;
    let error = loop {
        match runtime.block_on(file.write(accepted << 20, &piece)) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Staging(crate::upload::Error::Full)), "{error}");
    assert!((10..24).contains(&accepted), "{accepted}");
    // There is room for what was accepted: it can be sealed, and is complete.
    let publication = now(file.seal()).unwrap();
    assert_eq!(publication.end, accepted << 20);
    let used = world.staging.usage().used;
    assert!(used <= 24 * MIB, "{used}");
}
