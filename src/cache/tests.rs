//! The cache over a store that counts, stalls and fails.

use std::fs::OpenOptions;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::store::{Bucket, Deadlines, Fault, Faulty, MemoryStore, On, Verb};
use crate::types::MIB;

mod ahead;

const PACK: &str = "pack/ab/abcd";

struct Setup {
    cache: Cache,
    faults: Arc<Faulty>,
    store: Arc<MemoryStore>,
    bucket: Bucket,
    dir: tempfile::TempDir,
}

fn setup() -> Setup {
    let store = Arc::new(MemoryStore::new());
    let faults = Faulty::over(store.clone());
    let bucket = Bucket::over(faults.clone(), "", Deadlines::of(Duration::from_secs(2)));
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir, &bucket);
    Setup { cache, faults, store, bucket, dir }
}

fn open(dir: &tempfile::TempDir, bucket: &Bucket) -> Cache {
    let budgets = Budgets { memory: 64 * MIB, disk: 256 * MIB };
    Cache::open(&dir.path().join("cache"), bucket.clone(), budgets).unwrap()
}

fn pattern(length: u64) -> Bytes {
    crate::types::noise(1, usize::try_from(length).unwrap()).into()
}

/// Waits until no flight is in memory any more: what was fetched is on disk.
async fn settled(cache: &Cache) {
    let begun = std::time::Instant::now();
    while cache.usage().flight_bytes > 0 {
        assert!(begun.elapsed().as_secs() < 60, "flights do not end: {:?}", cache.usage());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_range_is_fetched_once_and_survives_a_restart() {
    let s = setup();
    let bytes = pattern(100_000);
    s.store.plant(PACK, bytes.clone());
    assert_eq!(s.cache.sealed_local(PACK, 10..20), None);
    assert_eq!(s.cache.sealed(PACK, 10..5_000).await.unwrap(), bytes.slice(10..5_000));
    settled(&s.cache).await;
    assert_eq!(s.cache.sealed(PACK, 20..4_000).await.unwrap(), bytes.slice(20..4_000));
    assert_eq!(s.cache.usage().fetches, 1);
    let again = open(&s.dir, &s.bucket);
    assert_eq!(again.sealed_local(PACK, 4_999..5_000), Some(bytes.slice(4_999..5_000)));
}

#[tokio::test]
async fn many_who_ask_for_parts_of_one_range_cause_one_get() {
    let s = setup();
    let bytes = pattern(50_000);
    s.store.plant(PACK, bytes.clone());
    s.faults.inject(On::next(Verb::Get, "pack/"), Fault::Delays(Duration::from_millis(50)));
    let ask = |range: Range<u64>| {
        let cache = s.cache.clone();
        tokio::spawn(async move { cache.sealed(PACK, range).await })
    };
    let first = ask(0..40_000);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let others: Vec<_> = (0..20).map(|n| (n, ask(n * 1000..n * 1000 + 500))).collect();
    // A cancelled caller takes nobody with it.
    first.abort();
    for (n, other) in others {
        let from = usize::try_from(n * 1000).unwrap();
        assert_eq!(other.await.unwrap().unwrap(), bytes.slice(from..from + 500));
    }
    assert_eq!(s.cache.usage().fetches, 1);
}

#[tokio::test]
async fn the_second_miss_in_a_pack_brings_its_neighbours() {
    let s = setup();
    let bytes = pattern(9 * MIB);
    s.store.plant(PACK, bytes.clone());
    let get = |at: u64| s.cache.sealed_and_neighbours(PACK, at..at + 100);
    assert_eq!(get(100).await.unwrap(), bytes.slice(100..200));
    assert_eq!(s.cache.usage().fetched_bytes, 100);
    assert_eq!(get(5_000_000).await.unwrap(), bytes.slice(5_000_000..5_000_100));
    settled(&s.cache).await;
    assert_eq!(s.cache.usage().fetches, 4);
    for at in (0..90).map(|n| n * 100_000) {
        let from = usize::try_from(at).unwrap();
        assert_eq!(get(at).await.unwrap(), bytes.slice(from..from + 100));
    }
    assert_eq!(s.cache.usage().fetches, 4);
}

#[tokio::test]
async fn a_small_disk_is_not_filled_with_neighbours() {
    let s = setup();
    let packs: Vec<_> = (0..8).map(|n| format!("pack/{n:02x}/abcd")).collect();
    packs.iter().for_each(|name| s.store.plant(name, pattern(16 * MIB)));
    let bytes = pattern(16 * MIB);
    let budgets = Budgets { memory: 64 * MIB, disk: 32 * MIB };
    let cache = Cache::open(&s.dir.path().join("small"), s.bucket.clone(), budgets).unwrap();
    // Small files in an order that has nothing to do with packs.
    for n in 0..400 {
        let (pack, at) = (&packs[n * 5 % 8], (n * 7919 % 1000) * 16_000);
        let range = at as u64..at as u64 + 8000;
        let got = cache.sealed_and_neighbours(pack, range).await.unwrap();
        assert_eq!(got, bytes.slice(at..at + 8000));
    }
    settled(&cache).await;
    let fetched = cache.usage().fetched_bytes;
    assert!(fetched < 400 * 4 * MIB, "{} MiB", fetched / MIB);
    // Close to each other they come together.
    let before = cache.usage().fetches;
    for at in (0..100).map(|n| n * 10_000) {
        cache.sealed_and_neighbours(&packs[0], at..at + 8000).await.unwrap();
    }
    assert!(cache.usage().fetches - before <= 2, "{}", cache.usage().fetches - before);
}

#[tokio::test]
async fn who_waits_comes_before_the_neighbours_of_what_others_asked_for() {
    let s = setup();
    let (bytes, other) = (pattern(19 * MIB), "pack/cd/cdef");
    s.store.plant(PACK, bytes.clone());
    s.store.plant(other, pattern(1000));
    // Room for two pieces.
    let budgets = Budgets { memory: 48 * MIB, disk: 256 * MIB };
    let cache = Cache::open(&s.dir.path().join("small"), s.bucket.clone(), budgets).unwrap();
    let get = async |at: u64| cache.sealed_and_neighbours(PACK, at..at + 100).await.unwrap();
    get(100).await;
    let slow = Fault::Delays(Duration::from_millis(150));
    s.faults.inject(On::next(Verb::Get, "pack/").always(), slow);
    s.faults.take_requests();
    let began = cache.clone();
    let first = tokio::spawn(async move { began.sealed_and_neighbours(PACK, 5..50).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Its neighbours are in the queue, or on the wire as far as there is room.
    assert_eq!(cache.sealed(other, 10..20).await.unwrap(), pattern(20).slice(10..));
    // The last of the neighbours, which somebody waits for now.
    assert_eq!(get(18 * MIB).await, bytes.slice(18 * 1024 * 1024..).slice(..100));
    let asked = s.faults.take_requests();
    assert!(asked.len() <= 4, "the first piece, what was waited for, and one neighbour: {asked:?}");
    assert_eq!(first.await.unwrap().unwrap(), bytes.slice(5..50));
    settled(&cache).await;
    assert_eq!(cache.usage().fetches, 1 + 5 + 1, "all of the pack, once");
}

#[tokio::test]
async fn what_did_not_open_is_forgotten_and_fetched_anew() {
    let s = setup();
    let bytes = pattern(1000);
    s.store.plant(PACK, Bytes::from(vec![0; 1000]));
    assert_ne!(s.cache.sealed(PACK, 0..1000).await.unwrap(), bytes);
    s.store.plant(PACK, bytes.clone());
    s.cache.forget(PACK);
    assert_eq!(s.cache.sealed(PACK, 0..1000).await.unwrap(), bytes);
    settled(&s.cache).await;
    s.store.plant(PACK, Bytes::from(vec![1; 1000]));
    assert_eq!(s.cache.sealed(PACK, 0..1000).await.unwrap(), bytes, "from disk");
    assert_eq!(s.cache.sealed_anew(PACK, 5..9).await.unwrap(), [1; 4][..]);
    assert_eq!(s.cache.sealed_local(PACK, 5..9).unwrap(), [1; 4][..]);
    assert_eq!(s.cache.sealed_local(PACK, 0..9), None);
}

/// The object is forgotten while its flight's bytes are being written to the disk (here: into a pipe).
#[tokio::test]
async fn what_is_forgotten_while_it_is_written_does_not_come_back() {
    let s = setup();
    let bytes = pattern(200_000);
    s.store.plant(PACK, bytes.clone());
    let pipe = s.dir.path().join("cache/new-0");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut written =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
    assert_eq!(s.cache.sealed(PACK, 0..200_000).await.unwrap(), bytes);
    let (mut length, mut buffer) = (0, vec![0; 65_536]);
    for _ in 0..5_000 {
        match written.read(&mut buffer) {
            Ok(more) => {
                if length == 0 && more > 0 {
                    // A pipe holds fewer bytes, so the writer is in the middle.
                    s.cache.forget(PACK);
                }
                length += more;
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        if length == bytes.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(length, bytes.len());
    settled(&s.cache).await;
    assert_eq!(s.cache.sealed_local(PACK, 0..1), None, "it came back");
    assert_eq!(std::fs::read_dir(s.dir.path().join("cache")).unwrap().count(), 0);
}

/// A cache with deadlines of 30 s, and a pack.
fn patient() -> (Setup, Cache) {
    let s = setup();
    let cache = open(&s.dir, &Bucket::over(s.faults.clone(), "", Deadlines::default()));
    s.store.plant(PACK, pattern(1000));
    (s, cache)
}

async fn timed(cache: &Cache, object: &str, from: u64) -> (Result<Bytes>, Duration) {
    let begun = tokio::time::Instant::now();
    (cache.sealed(object, from..from + 10).await, begun.elapsed())
}

/// Callers one after the other, as behind the kernel's lock of a directory, with a pause between them.
async fn in_line(cache: &Cache, object: &str, between: Duration) -> Duration {
    let mut waited = Duration::ZERO;
    for at in 0..12 {
        let (answer, took) = timed(cache, object, at).await;
        assert!(answer.is_err(), "{answer:?}");
        waited += took;
        tokio::time::sleep(between).await;
    }
    waited
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_down_those_who_stand_in_line_do_not_wait_a_deadline_each() {
    let (s, cache) = patient();
    s.faults.inject(On::next(Verb::Get, "").always(), Fault::Stalls);
    let waited = in_line(&cache, PACK, Duration::from_secs(3)).await;
    assert!(waited > Duration::from_secs(29) && waited < Duration::from_secs(50), "{waited:?}");
    assert!(matches!(timed(&cache, PACK, 1).await.0, Err(Error::Down)));
    s.faults.heal();
    // The store is back. If nothing else finds that out, the first caller after a rest does,
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(timed(&cache, PACK, 20).await.0.unwrap(), pattern(30).slice(20..));
    // and later callers wait as long as ever.
    s.faults.inject(On::next(Verb::Get, ""), Fault::Delays(Duration::from_secs(9)));
    assert_eq!(timed(&cache, PACK, 40).await.0.unwrap(), pattern(50).slice(40..));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_slowly_is_noticed_by_the_request_that_was_not_waited_for() {
    let (s, cache) = patient();
    s.faults.inject(On::next(Verb::Get, "").always(), Fault::Stalls);
    timed(&cache, PACK, 0).await.0.unwrap_err();
    s.faults.heal();
    s.faults.inject(On::next(Verb::Get, "").always(), Fault::Delays(Duration::from_secs(8)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (trial, waited) = timed(&cache, PACK, 20).await;
    assert!(matches!(trial, Err(Error::Down)) && waited == Duration::from_secs(5), "{waited:?}");
    let (rest, waited) = timed(&cache, PACK, 40).await;
    assert!(matches!(rest, Err(Error::Down)) && waited == Duration::ZERO, "{waited:?}");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(timed(&cache, PACK, 20).await.1, Duration::ZERO, "it came after all");
    let (other, waited) = timed(&cache, PACK, 60).await;
    assert!(other.is_ok() && waited >= Duration::from_secs(8), "{other:?} {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_hangs_alone_is_not_waited_for_again_and_again_and_others_are() {
    let (s, cache) = patient();
    let other = "pack/cd/cdef";
    s.store.plant(other, pattern(1_000_000));
    s.faults.inject(On::next(Verb::Get, PACK).always(), Fault::Stalls);
    let others = tokio::spawn({
        let cache = cache.clone();
        async move {
            for at in 0..100 {
                let (answer, waited) = timed(&cache, other, at * 10).await;
                assert!(answer.is_ok() && waited < Duration::from_secs(1), "{answer:?} {waited:?}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let waited = in_line(&cache, PACK, Duration::from_secs(3)).await;
    assert!(waited > Duration::from_secs(29) && waited < Duration::from_secs(50), "{waited:?}");
    others.await.unwrap();
    s.faults.heal();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(timed(&cache, PACK, 20).await.0.unwrap(), pattern(30).slice(20..));
    s.faults.inject(On::next(Verb::Get, PACK), Fault::Delays(Duration::from_secs(9)));
    assert_eq!(timed(&cache, PACK, 40).await.0.unwrap(), pattern(50).slice(40..));
}

#[tokio::test]
async fn a_lasting_error_is_told_at_once_and_a_passing_one_is_over_later() {
    let s = setup();
    assert!(s.cache.sealed(PACK, 0..10).await.unwrap_err().is_not_found());
    s.store.plant(PACK, pattern(10));
    assert_eq!(s.cache.sealed(PACK, 0..10).await.unwrap(), pattern(10));
}

#[tokio::test]
async fn a_whole_object_is_kept_as_such() {
    let s = setup();
    let commit = "log/0000000000000001";
    assert_eq!(s.cache.whole_local(commit), None);
    s.cache.insert_whole(commit, pattern(5_000));
    assert_eq!(s.cache.whole_local(commit), Some(pattern(5_000)));
    assert_eq!(s.cache.sealed(commit, 5..9).await.unwrap(), pattern(9).slice(5..));
}

/// Eviction, publication and removal race with each other, but no byte is ever wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_disk_under_many_readers_answers_right() {
    let s = setup();
    let bytes = pattern(MIB);
    let names: Vec<_> = (0..8).map(|n| format!("pack/aa/{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        s.store.plant(name, bytes.slice(n..));
    }
    let budgets = Budgets { memory: 16 * MIB, disk: MIB };
    let cache = Cache::open(&s.dir.path().join("small"), s.bucket.clone(), budgets).unwrap();
    let readers = (0..8_u64).map(|reader| {
        let (cache, names, bytes) = (cache.clone(), names.clone(), bytes.clone());
        tokio::spawn(async move {
            let mut state = reader * 77 + 1;
            for _ in 0..300 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let n = usize::try_from(state >> 61).unwrap();
                let from = state >> 20 & 0xf_0000;
                let range = from..from + (state >> 40 & 0x7fff) + 1;
                if (state >> 50).is_multiple_of(32) {
                    cache.forget(&names[n]);
                }
                let got = if reader % 2 == 0 {
                    cache.sealed(&names[n], range.clone()).await
                } else {
                    cache.sealed_and_neighbours(&names[n], range.clone()).await
                };
                let at = |at: u64| usize::try_from(at).unwrap() + n;
                assert!(got.unwrap() == bytes[at(range.start)..at(range.end)]);
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    settled(&cache).await;
    let usage = cache.usage();
    let files = std::fs::read_dir(s.dir.path().join("small")).unwrap().count();
    assert!(usage.disk_bytes <= MIB && files <= usage.disk_files, "{files} files, {usage:?}");
}

#[tokio::test]
async fn the_end_leaves_nobody_who_waits_and_nothing_that_writes() {
    let s = setup();
    s.store.plant(PACK, pattern(100_000));
    s.faults.inject(On::next(Verb::Get, "pack/"), Fault::Delays(Duration::from_secs(3600)));
    let cache = s.cache.clone();
    let waits = tokio::spawn(async move { cache.sealed(PACK, 0..10).await });
    while s.cache.is_idle() {
        tokio::task::yield_now().await;
    }
    s.cache.end().await;
    assert!(s.cache.is_idle());
    assert!(matches!(waits.await.unwrap(), Err(Error::Stopped)));
    assert!(matches!(s.cache.sealed(PACK, 20..30).await, Err(Error::Stopped)));
    assert!(s.cache.read_ahead(PACK, 0..10).is_none());
    assert_eq!(s.cache.usage().disk_files, 0);
}

#[tokio::test]
async fn what_was_fetched_is_on_the_disk_at_the_end() {
    let s = setup();
    let bytes = pattern(4 * FETCH_MAX);
    s.store.plant(PACK, bytes.clone());
    for start in (0..4).map(|n| n * FETCH_MAX) {
        s.cache.sealed(PACK, start..start + FETCH_MAX).await.unwrap();
    }
    // Callers get their bytes before these are written.
    s.cache.end().await;
    let again = open(&s.dir, &s.bucket);
    for start in (0..4).map(|n| n * FETCH_MAX) {
        assert!(again.sealed_local(PACK, start..start + FETCH_MAX).is_some(), "{start}");
    }
}
