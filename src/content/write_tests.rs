//! The write path against a byte array, on a real staging area; what was sealed is opened with nothing but the keys.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::overlay::Source;
use super::*;
use crate::cache::Budgets;
use crate::crypto::{FIRST_EPOCH, MasterKey, Place, Plain};
use crate::store::{Bucket, Deadlines, MemoryStore};
use crate::types::{EXTENT_MAX, Extent, ExtentId, KIB, PackId, Reference, Seq, VaultId};
use crate::upload::StagingLimits;

struct World {
    content: Content,
    keys: Keys,
    staging: Staging,
    opened: Mutex<HashMap<ExtentId, Plain>>,
    dir: tempfile::TempDir,
}

fn world_with(limits: Limits, staging: StagingLimits) -> World {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::derive(&MasterKey::generate(), VaultId([7; 16]), FIRST_EPOCH);
    let bucket = Bucket::over(Arc::new(MemoryStore::new()), "", Deadlines::default());
    let budgets = Budgets { memory: MIB, disk: MIB };
    let cache = Cache::open(&dir.path().join("cache"), bucket, budgets).unwrap();
    let staging = Staging::open(&dir.path().join("staging"), staging).unwrap();
    let content = Content::new(keys.clone(), cache, staging.clone(), limits);
    World { content, keys, staging, opened: Mutex::default(), dir }
}

fn world() -> World {
    let staging = StagingLimits { budget: 4 << 30, free_floor: 0, wait: Duration::from_millis(50) };
    world_with(Limits::default(), staging)
}

fn now<T>(future: impl Future<Output = T>) -> T {
    // Everything here must be ready at the first poll.
    let mut future = std::pin::pin!(future);
    let waker = std::task::Waker::noop();
    match future.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("not ready at the first poll"),
    }
}

impl World {
    fn open(&self, extent: &Extent) -> Vec<u8> {
        let reference = &extent.reference;
        let mut opened = self.opened.lock();
        let plain = opened.entry(reference.extent).or_insert_with(|| self.open_whole(reference));
        plain[at(extent.skip)..at(extent.skip + extent.length)].to_vec()
    }

    fn open_whole(&self, reference: &Reference) -> Plain {
        let range = reference.offset..reference.offset + reference.sealed_length;
        let sealed = self.staging.read(reference.pack, range).unwrap().expect("in staging");
        assert_eq!(sealed[..24], reference.salt);
        assert_eq!(sealed[24..56], reference.commitment);
        let plain = self.keys.open(Place::Extent(reference.extent), &sealed).unwrap();
        assert_eq!(plain.len() as u64, reference.plain_length);
        plain
    }

    /// The overlay over the published map over zeros, `size` bytes of it.
    fn read(&self, file: &File, map: &[(u64, Extent)], range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; at(range.end - range.start)];
        let overlay = file.overlay(range.clone()).unwrap();
        let mut put = |offset: u64, part: &[u8]| {
            let from = at(offset - range.start);
            bytes[from..from + part.len()].copy_from_slice(part);
        };
        for (offset, extent) in extents::clip(map, range.clone()) {
            put(offset, &self.open(&extent));
        }
        let mut end = range.start;
        for piece in overlay.pieces {
            assert!(piece.offset >= end && piece.length() > 0, "sorted, disjoint, not empty");
            end = piece.offset + piece.length();
            assert!(end <= range.end, "clipped");
            match piece.source {
                Source::Bytes(part) => put(piece.offset, &part),
                Source::Sealed { extent, .. } => put(piece.offset, &self.open(&extent)),
            }
        }
        bytes
    }

    fn closed_packs(&self) -> Vec<(PackId, u64)> {
        let good = |(id, length): &(PackId, u64)| {
            crate::upload::Footers::is_good(
                &FooterKeys(self.keys.clone()),
                &self.staging,
                *id,
                *length,
            )
        };
        self.staging.packs().into_iter().filter(good).collect()
    }

    fn footer(&self, (pack, length): (PackId, u64)) -> Footer {
        let read = |range| self.staging.read(pack, range).map(Option::unwrap);
        open_footer(&self.keys, pack, length, read).unwrap()
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A file as the vfs would keep it: its published map, and beside it the bytes it must have.
struct Inode {
    file: Arc<File>,
    staging: Staging,
    map: Vec<(u64, Extent)>,
    size: u64,
    bytes: Vec<u8>,
}

impl Inode {
    fn new(world: &World, ino: u64) -> Self {
        let file = world.content.file(InodeNo(ino));
        Self { file, staging: world.staging.clone(), map: Vec::new(), size: 0, bytes: Vec::new() }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        _ = now(self.file.write(offset, data)).unwrap();
        let end = at(offset) + data.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at(offset)..end].copy_from_slice(data);
    }

    /// As the append of the transaction does.
    fn commit(&mut self, publication: &Publication) {
        let packs = publication.pieces.iter().map(|(_, extent)| extent.reference.pack);
        _ = self.staging.appending(Seq(1), &packs.collect::<Vec<_>>()).unwrap();
        self.map = extents::apply(&self.map, &extents::publish(&self.map, &publication.pieces));
        self.size = self.size.max(publication.end);
    }

    fn publish(&mut self) {
        let publication = now(self.file.seal()).unwrap();
        self.commit(&publication);
        self.file.published(publication);
    }

    fn truncate(&mut self, size: u64) {
        let publication = now(self.file.seal()).unwrap();
        self.commit(&publication);
        self.map = extents::apply(&self.map, &extents::truncate(&self.map, size));
        self.size = size;
        self.file.published_truncated(publication, size);
        self.bytes.resize(at(size), 0);
    }

    /// Every byte, and the size, as the reader sees them.
    fn check(&self, world: &World) {
        let size = self.size.max(self.file.unpublished().map_or(0, |now| now.end));
        assert_eq!(size, self.bytes.len() as u64);
        let bytes = world.read(&self.file, &self.map, 0..size);
        let wrong = bytes.iter().zip(&self.bytes).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "first byte that differs");
        // And as the read path does it, in pieces that are not aligned to anything.
        for start in (0..size).step_by(3_000_001) {
            let range = start..size.min(start + 300_001);
            let overlay = self.file.overlay(range.clone()).unwrap();
            let covered: Vec<_> =
                overlay.pieces.iter().map(|p| p.offset..p.offset + p.length()).collect();
            assert_eq!(self.file.ranges(range.clone()), covered);
            let published = extents::clip(&self.map, range.clone());
            let read = world.content.read(&self.file, range.clone(), overlay, published, size);
            assert!(now(read).unwrap() == self.bytes[at(range.start)..at(range.end)], "{range:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// At an offset, or (`None`) where the last write ended, but this much further on.
    Write(Option<u64>, u64, usize),
    Publish,
    /// Seals, writes, and only then says that it is published.
    PublishLate(u64, usize),
    /// Seals, and the transaction fails.
    Fail,
    Truncate(u64),
    Spill,
    Rewrite,
    Check,
}

fn op(size: u64) -> impl Strategy<Value = Op> {
    let length = prop_oneof![
        3 => 1..70_000usize,
        2 => Just(128 << 10),
        2 => Just(1 << 20),
        1 => 1..3_000_000usize,
        1 => Just(4096),
    ];
    let ahead = prop_oneof![8 => Just(0u64), 1 => Just(128 << 10), 1 => 1..100_000u64];
    prop_oneof![
        12 => (ahead, length.clone()).prop_map(|(ahead, n)| Op::Write(None, ahead, n)),
        5 => (0..size, length.clone()).prop_map(|(at, n)| Op::Write(Some(at), 0, n)),
        2 => Just(Op::Publish),
        1 => (0..size, length).prop_map(|(at, n)| Op::PublishLate(at, n)),
        1 => Just(Op::Fail),
        1 => (0..size).prop_map(Op::Truncate),
        1 => Just(Op::Spill),
        1 => Just(Op::Rewrite),
        2 => Just(Op::Check),
    ]
}

fn run(ops: Vec<Op>) {
    let world = world();
    let mut inode = Inode::new(&world, 5);
    let mut last = 0;
    for (seed, op) in ops.into_iter().enumerate() {
        let seed = seed as u64;
        match op {
            Op::Write(offset, ahead, length) => {
                let offset = offset.unwrap_or(last) + ahead;
                inode.write(offset, &pattern(seed, length));
                last = offset + length as u64;
            }
            Op::Publish => inode.publish(),
            Op::PublishLate(offset, length) => {
                let publication = now(inode.file.seal()).unwrap();
                inode.write(offset, &pattern(seed, length));
                inode.check(&world);
                inode.commit(&publication);
                inode.check(&world);
                inode.file.published(publication);
            }
            Op::Fail => drop(now(inode.file.seal()).unwrap()),
            Op::Truncate(size) => inode.truncate(size),
            Op::Spill => inode.file.spill().unwrap(),
            Op::Rewrite => {
                let range = 0..(inode.bytes.len() as u64).min(EXTENT_MAX);
                let mut publication = now(inode.file.seal()).unwrap();
                assert!(publication.covers(&inode.file.overlay(range.clone()).unwrap()));
                let data = world.read(&inode.file, &inode.map, range);
                now(inode.file.rewrite(&mut publication, 0, &data)).unwrap();
                inode.commit(&publication);
                inode.file.published(publication);
                inode.check(&world);
            }
            Op::Check => inode.check(&world),
        }
    }
    inode.check(&world);
    inode.publish();
    inode.check(&world);
    assert!(inode.file.unpublished().is_none());
    assert_eq!(world.staging.usage().reserved, 0, "room is given back");
    assert_eq!(world.content.buffered(), 0, "memory is given back");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_what_was_written(ops in prop::collection::vec(op(6 << 20), 1..40)) {
        run(ops);
    }

    #[test]
    fn a_large_file_is_what_was_written(ops in prop::collection::vec(op(40 << 20), 1..40)) {
        run(ops);
    }
}

#[test]
fn sizes_at_the_edges() {
    let world = world();
    for (i, edge) in [0, 1, 16 * KIB, MIB, EXTENT_MAX, EXTENT_MAX + MIB].into_iter().enumerate() {
        for (j, size) in [edge.saturating_sub(1), edge, edge + 1].into_iter().enumerate() {
            let mut inode = Inode::new(&world, (10 * i + j) as u64);
            let data = pattern(size, at(size));
            for (k, part) in data.chunks(128 << 10).enumerate() {
                inode.write((k as u64) << 17, part);
            }
            inode.check(&world);
            inode.publish();
            inode.check(&world);
            let expected = size.div_ceil(EXTENT_MAX);
            assert_eq!(
                inode.map.len() as u64,
                expected,
                "{size} bytes: one extent for each 16 MiB"
            );
        }
    }
}

#[test]
fn v1_what_streams_is_on_its_way_before_the_file_is_closed() {
    let world = world();
    let mut inode = Inode::new(&world, 1);
    let piece = pattern(1, 1 << 20);
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
    let mut inode = Inode::new(&world, 1);
    // As the kernel's parallel requests may arrive.
    let order = [1u64, 0, 3, 2, 5, 7, 6, 4];
    for round in 0..32 {
        for i in order {
            let at = (round * 8 + i) << 17;
            inode.write(at, &pattern(at, 1 << 17));
        }
    }
    assert_eq!(world.closed_packs().len(), 2);
    inode.publish();
    assert_eq!(inode.map.len(), 2, "32 MiB are two extents");
    inode.check(&world);
}

#[test]
fn v1_one_publication_at_a_time() {
    let world = world();
    let mut inode = Inode::new(&world, 1);
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
    let piece = pattern(1, 1 << 20);
    for i in 0..7 {
        assert_eq!(now(file.write(i << 20, &piece)).unwrap(), Written::Buffered);
    }
    assert!(world.content.overdue(Duration::from_secs(30)).is_empty());
    assert_eq!(now(file.write(7 << 20, &piece)).unwrap(), Written::Publish);
    assert_eq!(world.content.overdue(Duration::from_secs(30)).len(), 1);
    let publication = now(file.seal()).unwrap();
    file.published(publication);
    assert_eq!(now(file.write(8 << 20, &piece)).unwrap(), Written::Buffered);
    assert_eq!(world.content.overdue(Duration::ZERO).len(), 1, "by age");

    // Many records: scattered bytes.
    let file = world.content.file(InodeNo(2));
    let asked = (0..20_000).find(|i| now(file.write(i * 3, b"x")).unwrap() == Written::Publish);
    assert!(asked.is_some_and(|i| i < 6_000), "2 MiB of records: {asked:?}");
}

#[test]
fn j1_extents_are_in_staging_before_they_are_published() {
    let world = world();
    let mut inode = Inode::new(&world, 1);
    inode.write(0, &pattern(1, 5000));
    inode.write(10_000, &pattern(2, 5000));
    inode.write(1 << 30, &pattern(3, 3 << 20));
    let publication = now(inode.file.seal()).unwrap();
    assert_eq!(publication.pieces.len(), 3);
    // Another process's view of the directory: only what write(2) has put there.
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
        let mut inode = Inode::new(&world, i);
        inode.file.note_name(format!("name {i}").as_bytes());
        inode.write(i, &pattern(i, 1000 * at(i)));
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
    let mut inode = Inode::new(&world, 99);
    inode.write(0, b"later");
    inode.publish();
    assert_ne!(inode.map[0].1.reference.pack, pack);
}

#[test]
fn j7_packs_close_when_they_have_lingered() {
    let world = world();
    let began = std::time::Instant::now();
    let mut publications = Vec::new();
    // Never quiet for 50 ms, so what closes it is its age of 200 ms.
    for i in 0.. {
        let file = world.content.file(InodeNo(i));
        _ = now(file.write(0, b"x")).unwrap();
        publications.push(now(file.seal()).unwrap());
        if !world.closed_packs().is_empty() || began.elapsed() > Duration::from_secs(10) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(world.closed_packs().len(), 1);
    assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    // Then the one after it, quiet, after 50 ms; or it is the same when the last extent was in time.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(world.closed_packs().len(), world.staging.packs().len());
}

#[test]
fn a_pack_of_one_file_does_not_tell_its_length() {
    let world = world();
    let mut lengths = std::collections::BTreeSet::new();
    for size in 5_000..5_100 {
        let file = world.content.file(InodeNo(1));
        _ = now(file.write(0, &pattern(1, size))).unwrap();
        let publication = now(file.seal()).unwrap();
        world.content.close_packs().unwrap();
        let pack = publication.pieces[0].1.reference.pack;
        lengths.insert(world.staging.length(pack).unwrap());
        file.published(publication);
    }
    assert!(lengths.len() <= 2, "{lengths:?}");
    assert!(lengths.iter().all(|length| crate::crypto::padme(*length) == *length), "{lengths:?}");
}

#[test]
fn what_is_discarded_is_given_back() {
    let world = world();
    let file = world.content.file(InodeNo(1));
    for i in 0..20 {
        _ = now(file.write(i << 20, &pattern(i, 1 << 20))).unwrap();
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
    let mut inodes: Vec<_> = (1..=8).map(|ino| Inode::new(&world, ino)).collect();
    let mut most = 0;
    for i in 0..4000u64 {
        let inode = &mut inodes[at(i * 7919 % 8)];
        inode.write(i * 104_729 % 2048 * 4096, &pattern(i, 4096));
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
fn j8_a_full_staging_area_is_refused_at_the_write() {
    let staging =
        StagingLimits { budget: 24 * MIB, free_floor: 0, wait: Duration::from_millis(50) };
    let world = world_with(Limits::default(), staging);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let file = world.content.file(InodeNo(1));
    let piece = pattern(1, 1 << 20);
    let mut accepted = 0;
    let error = loop {
        match runtime.block_on(file.write(accepted << 20, &piece)) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Staging(crate::upload::Error::Full)), "{error}");
    assert!((10..24).contains(&accepted), "{accepted}");
    // What was accepted has room: it can be sealed, and is all there.
    let publication = now(file.seal()).unwrap();
    assert_eq!(publication.end, accepted << 20);
    let used = world.staging.usage().used;
    assert!(used <= 24 * MIB, "{used}");
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
                    let data = pattern(thread * 1000 + i, at(100 + i * 37 % 9000));
                    _ = now(file.write(0, &data)).unwrap();
                    let publication = now(file.seal()).unwrap();
                    let map = publication.pieces.clone();
                    // Kept unpublished, so that packs stay whatever the order of events.
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

#[test]
fn a_fragmented_window_becomes_one_extent_again() {
    let world = world();
    let mut inode = Inode::new(&world, 1);
    inode.write(0, &pattern(1, 3 << 20));
    inode.publish();
    for i in 0..100 {
        inode.write(i * 20_000, &pattern(i, 5000));
    }
    inode.publish();
    let window = extents::fragmented(&inode.map).unwrap();
    let range = window.start..window.end.min(inode.size);

    let mut publication = now(inode.file.seal()).unwrap();
    let data = world.read(&inode.file, &inode.map, range.clone());
    inode.write(7, b"newer");
    assert!(!publication.covers(&inode.file.overlay(range.clone()).unwrap()), "written meanwhile");
    now(inode.file.rewrite(&mut publication, 0, &data)).unwrap();
    assert!(publication.mtime.is_none());
    inode.commit(&publication);
    inode.file.published(publication);
    assert_eq!(inode.map.len(), 1);
    inode.check(&world);
    inode.publish();
    inode.check(&world);
    assert_eq!(extents::fragmented(&inode.map), None);
}

/// Not a judgement of time, so not run by itself: `cargo test --lib content::write_tests::figures -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn figures() {
    let world = world();
    let data = pattern(1, 4096);
    let began = std::time::Instant::now();
    let count = 50_000u32;
    for i in 0..count {
        let file = world.content.file(InodeNo(i.into()));
        _ = now(file.write(0, &data)).unwrap();
        let publication = now(file.seal()).unwrap();
        _ = world.staging.appending(Seq(1), &[publication.pieces[0].1.reference.pack]).unwrap();
        file.published(publication);
    }
    println!("a 4 KiB file, written, sealed, published: {:?}", began.elapsed() / count);
    for size in [4 << 10, 128 << 10, 1 << 20] {
        let file = world.content.file(InodeNo(u64::from(u32::MAX) + size as u64));
        let data = pattern(2, size);
        let began = std::time::Instant::now();
        let total = 512u64 << 20;
        for offset in (0..total).step_by(size) {
            _ = now(file.write(offset, &data)).unwrap();
        }
        let publication = now(file.seal()).unwrap();
        let took = began.elapsed();
        let rate = 512.0 / took.as_secs_f64();
        println!("a stream in pieces of {} KiB: {rate:.0} MiB/s", size >> 10);
        file.published(publication);
    }
    let file = world.content.file(InodeNo(u64::MAX));
    let began = std::time::Instant::now();
    for i in 0..count {
        _ = now(file.write(u64::from(i) * 7919 % 65536 * 8192, &data)).unwrap();
    }
    println!("a scattered 4 KiB write: {:?}", began.elapsed() / count);
    file.discard();
}

#[test]
fn a_stream_that_begins_within_older_buffers_does_not_shift() {
    let write = |offset, length| Op::Write(offset, 0, length);
    run(vec![
        write(None, 1 << 20),
        write(None, 1),
        write(Some(1_234_316), 66_196),
        write(None, 1_420_688),
        write(None, 1 << 20),
        write(Some(2_721_199), 1 << 20),
        write(None, 1 << 20),
    ]);
}
