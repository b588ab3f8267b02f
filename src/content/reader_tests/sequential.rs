//! Reading a large file in order; figures.

use super::*;

/// A file of `count` messages of 16 MiB with the same bytes: sealing is what takes time here.
fn large(world: &World, count: u64) -> (Vec<(u64, Extent)>, Vec<u8>) {
    let plain = noise(EXTENT_MAX, 5);
    let list = (0..count).map(|n| (n * EXTENT_MAX, world.lone(&plain).remove(0).1)).collect();
    (list, plain)
}

/// Reads in requests of 128 KiB, as the kernel does, with the extents of the window alone.
async fn read_through(world: &World, list: &[(u64, Extent)], plain: &[u8]) {
    let file = PerFile::default();
    let size = list.len() as u64 * EXTENT_MAX;
    read_part(world, &file, list, plain, 0..size).await;
}

async fn read_part(
    world: &World,
    file: &PerFile,
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
    let usage = world.inner().cache.usage();
    assert!(usage.fetched_bytes < 81 * MIB + MIB / 2, "{usage:?}");
    assert!(usage.fetches <= 32, "{usage:?}");
    assert!(usage.block_bytes < MIB, "a scan leaves nothing in memory: {usage:?}");
}

/// A newcomer gets its share of the room at once, though another had all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_in_parallel_share_the_room() {
    let world = World::new();
    let (list, plain) = large(&world, 3);
    let files: Vec<_> = (0..6).map(|_| (large(&world, 3).0, PerFile::default())).collect();
    let old = PerFile::default();
    read_part(&world, &old, &list, &plain, 0..24 * MIB).await;
    let step = 2 * MIB;
    for from in (0..24 * MIB).step_by(2 << 20) {
        for (list, file) in &files {
            read_part(&world, file, list, &plain, from..from + step).await;
        }
        let from = 24 * MIB + from;
        read_part(&world, &old, &list, &plain, from..from + step).await;
    }
    let usage = world.inner().cache.usage();
    // Without read-ahead it would be a fetch for each request: 192 of each file.
    assert!(usage.fetches < 490, "{usage:?}");
    assert!(usage.fetched_bytes < 6 * 36 * MIB + 49 * MIB, "{usage:?}");
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    // SAFETY: all zeros is a value of it, and the call fills it in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it points to a `rusage` of ours.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    #[allow(clippy::cast_precision_loss, reason = "a few seconds")]
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Figures, not a judgement: `cargo test --release --lib reads_in_figures -- --ignored --nocapture`.
#[test]
#[ignore = "prints timings"]
fn reads_in_figures() {
    runtime().block_on(async {
        let world = World::new();
        let (list, plain) = large(&world, 32);
        let delay = Fault::Delays(Duration::from_millis(30));
        world.faults.inject(On::next(Verb::Get, "pack/").always(), delay);
        let (begun, used) = (Instant::now(), cpu());
        read_through(&world, &list, &plain).await;
        let (took, used) = (begun.elapsed().as_secs_f64(), cpu() - used);
        println!("512 MiB sequential, cold, 30 ms: {:.0} MiB/s, {used:.2} s CPU", 512. / took);
        println!("{:?}", world.inner().cache.usage());
        let begun = Instant::now();
        let gets = list.iter().flat_map(|(_, extent)| {
            (0..4).map(|n| (pack_object(extent.reference.pack), n * 4 * MIB..(n + 1) * 4 * MIB))
        });
        let mut running = tokio::task::JoinSet::new();
        for (object, range) in gets {
            if running.len() == 10 {
                running.join_next().await.unwrap().unwrap();
            }
            let bucket = world.bucket.clone();
            running.spawn(async move { drop(bucket.get(&object, Some(range)).await.unwrap()) });
        }
        running.join_all().await;
        let took = begun.elapsed();
        println!("512 MiB by ten parallel bare GETs: {:.0} MiB/s", 512. / took.as_secs_f64());
        let begun = Instant::now();
        for n in 0..200_000_u64 {
            let at = n * 7919 % 400 * 16 * KIB;
            world.read(&list, at..at + 4096).await.unwrap();
        }
        let each = begun.elapsed() / 200_000;
        println!("4 KiB from memory: {each:?}");
        let begun = Instant::now();
        for n in 0..2_000_u64 {
            let at = n * 128 * KIB;
            world.read(&list, at..at + 128 * KIB).await.unwrap();
        }
        println!("128 KiB from disk: {:?}", begun.elapsed() / 2000);
        let begun = Instant::now();
        let object = pack_object(list[0].1.reference.pack);
        let _ = layout::CHUNK;
        for n in 0..20_u64 {
            world.inner().cache.forget(&object);
            let at = (500 + n) * 16 * KIB;
            let file =
                [(0, Extent { skip: at, length: 4096, reference: list[0].1.reference.clone() })];
            world.read(&file, 0..4096).await.unwrap();
        }
        println!("4 KiB cold at 30 ms: {:?}", begun.elapsed() / 20);
    });
}
