//! Reading from a store that fails by script.

mod model;
mod scenes;
mod sequential;
mod small_files;

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;

use crate::cache::{BlockId, Budgets};
use crate::content::readahead::Readahead;
use crate::content::*;
use crate::crypto::random;
use crate::log::Ground;
use crate::store::{Fault, On, Verb};
use crate::types::noise;
use crate::types::{Codec, EXTENT_MAX, Extent, KIB, KeyEpoch, PackId, Reference, Seq};
use crate::upload::{StagingLimits, pack_object};

struct World {
    content: Content,
    ground: Ground,
}

impl Deref for World {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl World {
    fn new() -> Self {
        Self::with_deadline(Duration::from_secs(20))
    }

    fn with_deadline(deadline: Duration) -> Self {
        let ground = Ground::new(Duration::from_secs(20));
        Self { content: Self::content(&ground, deadline), ground }
    }

    fn content(ground: &Ground, deadline: Duration) -> Content {
        let Ground { dir, bucket, keys, .. } = ground;
        let staging = StagingLimits { budget: 1 << 30, free_floor: 0, wait: deadline };
        let staging = Staging::open(&dir.path().join("staging"), staging).unwrap();
        let budgets = Budgets { memory: 96 * MIB, disk: 1 << 30 };
        let cache = Cache::open(&dir.path().join("cache"), bucket.clone(), budgets).unwrap();
        Content::new(keys.clone(), cache, staging, Limits { deadline, ..Limits::default() })
    }

    /// Drops what is in memory.
    fn restart(&mut self) {
        self.content = Self::content(&self.ground, Duration::from_secs(20));
    }

    fn reader(&self) -> &reader::Reader {
        &self.content.inner.reader
    }

    /// Seals one message at the end of a pack that is being made.
    fn seal(&self, pack: PackId, plain: &[u8], into: &mut Vec<u8>) -> Reference {
        let offset = into.len() as u64;
        seal_extent(&self.keys, &[plain], into).at(pack, offset)
    }

    /// A file of one message, in a pack of its own in the bucket.
    fn lone(&self, plain: &[u8]) -> Vec<(u64, Extent)> {
        let pack = PackId(random());
        let mut sealed = Vec::new();
        let reference = self.seal(pack, plain, &mut sealed);
        self.store.plant(&pack_object(pack), sealed);
        vec![(0, Extent { skip: 0, length: plain.len() as u64, reference })]
    }

    fn stage(&self, pack: PackId, bytes: &[u8]) {
        let mut open = self.reader().staging.create(pack).unwrap();
        open.append(bytes).unwrap();
        // A record refers to the pack, or it would be dropped.
        self.reader().staging.appending(Seq(1), &[pack]).unwrap();
        open.close(b"").unwrap();
    }

    async fn read(&self, published: &[(u64, Extent)], range: Range<u64>) -> Result<Bytes> {
        let size = published.iter().map(|(at, extent)| at + extent.length).max().unwrap_or(0);
        self.read_as(&Readahead::default(), published, range, Overlay::default(), size).await
    }

    async fn read_as(
        &self,
        file: &Readahead,
        published: &[(u64, Extent)],
        range: Range<u64>,
        overlay: Overlay,
        size: u64,
    ) -> Result<Bytes> {
        self.reader().read(file, range, overlay, published, size).await
    }

    async fn settled(&self) {
        let begun = std::time::Instant::now();
        while self.reader().cache.usage().flight_bytes > 0 {
            assert!(begun.elapsed().as_secs() < 60, "flights do not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn part(bytes: &[u8], range: Range<u64>) -> &[u8] {
    &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
