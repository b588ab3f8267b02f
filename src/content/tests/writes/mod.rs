//! The write path compared with a byte array, on a real staging area. What was sealed is opened with only the keys.

mod model;
mod rules;
mod shared;

use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cache::Budgets;
use crate::content::packer::Linger;
use crate::content::*;
use crate::crypto::{Place, Plain};
use crate::log::Ground;
use crate::types::noise;
use crate::types::{EXTENT_MAX, Extent, ExtentId, KIB, PackId, Reference, Seq};
use crate::upload::StagingLimits;

struct World {
    content: Content,
    staging: Staging,
    opened: Mutex<HashMap<ExtentId, Plain>>,
    ground: Ground,
}

impl Deref for World {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

/// Packs do not close by themselves, so that tests do not depend on how long they take.
const FOR_EVER: Linger =
    Linger { age: Duration::from_secs(3600), quiet: Duration::from_secs(3600) };

fn world_with(limits: Limits, staging: StagingLimits) -> World {
    lingering_world(limits, staging, FOR_EVER)
}

fn lingering_world(limits: Limits, staging: StagingLimits, linger: Linger) -> World {
    let ground = Ground::new(Duration::from_secs(20));
    let Ground { dir, bucket, keys, .. } = &ground;
    let budgets = Budgets { memory: MIB, disk: MIB };
    let cache = Cache::open(&dir.path().join("cache"), bucket.clone(), budgets).unwrap();
    let staging = Staging::open(&dir.path().join("staging"), staging).unwrap();
    let content = Content::lingering(keys.clone(), cache, staging.clone(), limits, linger);
    World { content, staging, opened: Mutex::default(), ground }
}

const ROOMY: StagingLimits =
    StagingLimits { budget: 4 << 30, free_floor: 0, wait: Duration::from_millis(50) };

fn world() -> World {
    world_with(Limits::default(), ROOMY)
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

    /// The bytes of `range`: the overlay, over the published map, over zeros.
    fn read(&self, file: &File, map: &[(u64, Extent)], range: Range<u64>) -> Vec<u8> {
        let overlay = file.overlay(range.clone()).unwrap();
        let mut bytes = self.published(map, range.clone());
        let mut put = |offset: u64, part: &[u8]| {
            let from = at(offset - range.start);
            bytes[from..from + part.len()].copy_from_slice(part);
        };
        let mut end = range.start;
        for piece in overlay.pieces {
            assert!(piece.offset >= end && piece.length() > 0, "sorted, disjoint, not empty");
            end = piece.offset + piece.length();
            assert!(end <= range.end, "clipped");
            match piece.bytes {
                OverlayBytes::Plain(part) => put(piece.offset, &part),
                OverlayBytes::Sealed { extent, .. } => put(piece.offset, &self.open(&extent)),
            }
        }
        bytes
    }

    /// The bytes of `range`: the published map, over zeros.
    fn published(&self, map: &[(u64, Extent)], range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; at(range.end - range.start)];
        for (offset, extent) in extents::clip(map, range.clone()) {
            let from = at(offset - range.start);
            let part = self.open(&extent);
            bytes[from..from + part.len()].copy_from_slice(&part);
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

/// A file as the vfs would keep it: its published map, and the bytes that it must have.
struct TestFile {
    file: Arc<File>,
    staging: Staging,
    map: Vec<(u64, Extent)>,
    size: u64,
    bytes: Vec<u8>,
}

impl TestFile {
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

    /// What the appended transaction changes.
    fn commit(&mut self, publication: &Publication) {
        self.put(&publication.pieces);
        self.size = self.size.max(publication.end);
    }

    fn put(&mut self, pieces: &[(u64, Extent)]) {
        let packs = pieces.iter().map(|(_, extent)| extent.reference.pack);
        _ = self.staging.appending(Seq(1), &packs.collect::<Vec<_>>()).unwrap();
        self.map = extents::apply(&self.map, &extents::publish(&self.map, pieces));
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
        self.file.published_truncated(&publication, size);
        self.bytes.resize(at(size), 0);
    }

    /// Compares every byte, and the size, with what a reader sees.
    fn check(&self, world: &World) {
        let size = self.size.max(self.file.unpublished().map_or(0, |now| now.end));
        assert_eq!(size, self.bytes.len() as u64);
        let bytes = world.read(&self.file, &self.map, 0..size);
        let wrong = bytes.iter().zip(&self.bytes).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "first byte that differs");
        // The same through the read path, in unaligned pieces.
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
