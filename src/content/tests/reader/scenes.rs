//! What reads cost, and what they do when bytes or the store are bad.

use super::*;

#[tokio::test]
async fn damage_within_what_is_read_is_told_as_such() {
    let world = World::new();
    let plain = noise(1, 400_000);
    let list = world.lone(&plain);
    let object = &world.store.names()[0];
    let mut bytes = world.store.peek(object).unwrap().to_vec();
    bytes[20_000] ^= 1;
    world.store.plant(object, bytes);
    let error = world.read(&list, 20_000..20_010).await.unwrap_err();
    assert!(matches!(error, Error::Seal { .. }), "{error:?}");
    assert_eq!(world.read(&list, 0..16_384).await.unwrap(), part(&plain, 0..16_384));
    world.store.steal(object);
    let error = world.read(&list, 300_000..300_010).await.unwrap_err();
    assert!(matches!(&error, Error::Cache(error) if error.is_not_found()), "{error:?}");
}

#[tokio::test]
async fn an_extent_that_this_version_cannot_open_is_refused_and_never_fetched() {
    let world = World::new();
    let [(_, sound)] = &world.lone(&noise(1, 10_000))[..] else { panic!("one extent") };
    let mut other_codec = sound.clone();
    other_codec.reference.codec = Codec::Unknown(1);
    let mut other_key = sound.clone();
    other_key.reference.epoch = KeyEpoch(2);
    for (extent, why) in [(other_codec, "codec"), (other_key, "key")] {
        let error = world.read(&[(0, extent)], 0..100).await.unwrap_err();
        assert!(
            matches!(&error, Error::BadExtent { reason, .. } if reason.contains(why)),
            "{error}"
        );
    }
    assert_eq!(world.reader().cache.usage().fetches, 0);
}

#[tokio::test]
async fn a_damaged_cache_is_healed_from_the_bucket() {
    let mut world = World::new();
    let plain = noise(1, 100_000);
    let list = world.lone(&plain);
    world.read(&list, 0..100_000).await.unwrap();
    world.settled().await;
    for entry in std::fs::read_dir(world.dir.path().join("cache")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[50_000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    world.restart();
    assert_eq!(world.read(&list, 0..100_000).await.unwrap(), plain);
}

#[tokio::test]
async fn what_is_on_this_machine_is_answered_at_the_first_poll() {
    let mut world = World::new();
    let plain = noise(1, 300_000);
    let list = world.lone(&plain);
    assert!(world.read(&list, 0..1000).now_or_never().is_none());
    world.read(&list, 0..300_000).await.unwrap();
    let read = world.read(&list, 0..300_000).now_or_never().expect("in memory").unwrap();
    assert_eq!(read, plain);
    world.settled().await;
    world.restart();
    let read = world.read(&list, 7..290_000).now_or_never().expect("on disk").unwrap();
    assert_eq!(read, part(&plain, 7..290_000));
    let pack = PackId(random());
    let mut sealed = Vec::new();
    let reference = world.seal(pack, &plain, &mut sealed);
    world.stage(pack, &sealed);
    let extent = Extent { skip: 0, length: 300_000, reference: reference.clone() };
    let read = world.read(&[(0, extent.clone())], 0..300_000).now_or_never().expect("staged");
    assert_eq!(read.unwrap(), plain);
    // Unpublished pieces are read the same way.
    let hold = Arc::new(StagedExtent::new(reference, world.reader().staging.hold(pack)));
    let bytes = OverlayBytes::Sealed { extent, hold };
    let overlay = Overlay { pieces: vec![OverlayPiece { offset: 10, bytes }] };
    let file = Readahead::default();
    let read = world.read_as(&file, &[], 0..500, overlay, 300_010).now_or_never().unwrap();
    assert_eq!(read.unwrap()[10..], plain[..490]);
}

#[tokio::test]
async fn a_cold_small_read_is_one_get_of_its_group_of_chunks() {
    let world = World::new();
    let plain = noise(1, 16 << 20);
    let list = world.lone(&plain);
    for (n, at) in [5_000_000, 90_000, 12_000_000].into_iter().enumerate() {
        let before = world.reader().cache.usage();
        let read = world.read(&list, at..at + 4096).await.unwrap();
        assert_eq!(read, part(&plain, at..at + 4096));
        let after = world.reader().cache.usage();
        assert_eq!(after.fetches - before.fetches, 1, "{n}");
        assert!(after.fetched_bytes - before.fetched_bytes <= 129 * KIB);
    }
}

#[tokio::test]
async fn small_files_that_share_a_pack_cost_few_gets() {
    let world = World::new();
    let pack = PackId(random());
    let mut sealed = Vec::new();
    let files: Vec<_> = (0..2000_u64)
        .map(|n| {
            let plain = noise(n, 4096);
            let reference = world.seal(pack, &plain, &mut sealed);
            (vec![(0, Extent { skip: 0, length: 4096, reference })], plain)
        })
        .collect();
    world.store.plant(&pack_object(pack), sealed);
    for (n, (list, plain)) in files.iter().enumerate() {
        assert_eq!(world.read(list, 0..4096).await.unwrap(), plain);
        if n == 0 {
            assert!(world.reader().cache.usage().fetched_bytes <= 64 * KIB);
        }
    }
    let usage = world.reader().cache.usage();
    assert!(usage.fetches <= 4, "{usage:?}");
}

#[tokio::test]
async fn a_store_that_stalls_is_an_error_at_the_deadline() {
    let world = World::with_deadline(Duration::from_millis(200));
    let list = world.lone(&noise(1, 10_000));
    world.faulty.inject(On::next(Verb::Get, "pack/").always(), Fault::Stalls);
    let begun = Instant::now();
    let error = world.read(&list, 0..100).await.unwrap_err();
    assert!(matches!(error, Error::Deadline), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_read_that_failed_for_want_of_an_answer_fails_at_once_when_it_is_asked_for_again() {
    let world = World::with_deadline(Duration::from_secs(2));
    let plain = noise(3, 100_000);
    runtime().block_on(async {
        let file = world.lone(&plain);
        // No connection: requests are retried for longer than the read may take.
        world.faulty.inject(On::next(Verb::Get, "pack/").always(), Fault::Breaks);
        let began = Instant::now();
        assert!(matches!(world.read(&file, 0..50_000).await, Err(Error::Deadline)));
        let first = began.elapsed();
        // As the kernel does when its read-ahead of that page failed.
        let began = Instant::now();
        assert!(world.read(&file, 0..4096).await.is_err());
        assert!(began.elapsed() < first / 2, "{:?} of {first:?}", began.elapsed());
    });
}

/// Memory has less of a chunk than a record refers to. Nothing that is asked for again could change that.
#[tokio::test]
async fn a_decrypted_chunk_that_is_too_short_is_an_error_and_no_endless_search() {
    let world = World::new();
    let list = world.lone(&noise(1, 10_000));
    let chunk = BlockId::Extent(list[0].1.reference.extent, 0);
    world.reader().cache.insert_block(chunk, Bytes::from_static(b"short"));
    let read = world.read(&list, 0..100).now_or_never().expect("nothing is asked for");
    assert!(matches!(read, Err(Error::Seal { .. })), "{read:?}");
}
