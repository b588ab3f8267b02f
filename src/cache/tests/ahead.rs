use super::*;

#[tokio::test]
async fn read_ahead_is_bounded_and_found_while_it_is_held() {
    let s = setup();
    let bytes = pattern(64 * MIB);
    s.store.plant(PACK, bytes.clone());
    let flights: Vec<_> = (0..16)
        .map_while(|n| s.cache.read_ahead(PACK, n * FETCH_MAX..(n + 1) * FETCH_MAX))
        .collect();
    assert_eq!(flights.len() as u64, s.cache.ahead_capacity() / FETCH_MAX);
    for flight in &flights {
        flight.wait().await.unwrap();
    }
    assert_eq!(s.cache.sealed_local(PACK, 10..20), Some(bytes.slice(10..20)));
    assert!(s.cache.usage().flight_bytes >= flights.len() as u64 * FETCH_MAX);
    drop(flights);
    settled(&s.cache).await;
    assert!(s.cache.read_ahead(PACK, 40_000_000..40_000_100).is_some());
}

#[tokio::test]
async fn what_is_read_ahead_comes_from_the_disk_if_it_is_there() {
    let s = setup();
    let bytes = pattern(8 * MIB);
    s.store.plant(PACK, bytes.clone());
    // A range that does not begin at a disk block.
    let fetched = 100..FETCH_MAX + 100;
    s.cache.sealed(PACK, fetched).await.unwrap();
    settled(&s.cache).await;
    s.faults.take_requests();
    let range = 5_000..FETCH_MAX - 5_000;
    assert!(!s.cache.expects(PACK, &range), "it is not in memory");
    let flight = s.cache.read_ahead(PACK, range.clone()).unwrap();
    assert_eq!(flight.wait().await.unwrap(), bytes.slice(5_000..4 * (1 << 20) - 5_000));
    assert!(s.cache.expects(PACK, &range) && s.faults.take_requests().is_empty());
    // It is found in memory, whatever happens to the disk.
    for entry in std::fs::read_dir(s.dir.path().join("cache")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(s.cache.sealed_local(PACK, 9_000..9_010), Some(bytes.slice(9_000..9_010)));
    drop(flight);
    settled(&s.cache).await;
    // If somebody has deleted the files, the range comes from the bucket.
    let flight = s.cache.read_ahead(PACK, range).unwrap();
    assert_eq!(flight.wait().await.unwrap(), bytes.slice(5_000..4 * (1 << 20) - 5_000));
    assert_eq!(s.faults.take_requests().len(), 1);
}
