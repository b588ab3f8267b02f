//! A put under a bandwidth limit: it is written piece by piece, each when the limit allows it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::super::flow::Flow;
use super::super::line::RequestContext;
use super::super::object::{Body, Put, PutReply};
use super::object_file::{ObjectFile, is_taken};

/// What is put, and where.
pub(super) struct SlowPut {
    pub(super) root: PathBuf,
    pub(super) path: PathBuf,
    pub(super) body: Body,
    pub(super) condition: Put,
}

impl SlowPut {
    /// Puts it. If the caller stops waiting, nothing is left.
    pub(super) async fn put(&self, flow: &Flow) -> io::Result<()> {
        if self.condition == Put::IfAbsent && is_taken(&self.path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let root = self.root.clone();
        let file = blocking(move || ObjectFile::begin(&root)).await?;
        let file = Arc::new(Mutex::new(file));
        let (request, mut left) = (RequestContext::current(), self.body.bytes().clone());
        while !left.is_empty() {
            let length = left.len() as u64;
            let piece = flow.piece().map_or(length, |piece| piece.min(length));
            flow.pass(piece, &request).await;
            let bytes = left.split_to(usize::try_from(piece).unwrap_or(left.len()));
            let file = file.clone();
            blocking(move || file.lock().file().write_all(&bytes)).await?;
            self.body.moved().add(piece);
        }
        let (root, path, condition) = (self.root.clone(), self.path.clone(), self.condition);
        let length = self.body.length();
        blocking(move || file.lock().finish(&root, &path, length, condition)).await
    }

    pub(super) fn reply(&self) -> PutReply {
        PutReply { time: SystemTime::now(), crc32: Some(self.body.crc32()), etag: None }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::super::pace::StorePace;
    use super::super::DirectoryStore;
    use crate::store::{Body, Put, Store};
    use crate::types::{KIB, RateSchedule, StoreLimits};

    #[tokio::test]
    async fn it_takes_its_time_and_who_gives_up_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let pace = std::sync::Arc::new(StorePace::default());
        let rate = RateSchedule { windows: Vec::new(), otherwise: Some(200 * KIB) };
        let (bandwidth_up, bandwidth_down) = (rate.clone(), rate);
        pace.set(&StoreLimits { bandwidth_up, bandwidth_down, ..StoreLimits::default() });
        let store = DirectoryStore::open(directory.path()).await.unwrap().paced_by(&pace);
        let body = Body::from(vec![7; 200 << 10]);
        let begun = Instant::now();
        store.put("a", &body, Put::IfAbsent).await.unwrap();
        assert_eq!(body.moved().bytes(), body.length());
        let put = begun.elapsed();
        assert_eq!(store.get("a", None).await.unwrap().bytes, body.bytes());
        let got = begun.elapsed() - put;
        for took in [put, got] {
            assert!((0.8..20.0).contains(&took.as_secs_f64()), "{took:?}");
        }
        assert!(store.put("a", &body, Put::IfAbsent).await.is_err());
        let late =
            tokio::time::timeout(Duration::from_millis(300), store.put("b", &body, Put::IfAbsent));
        assert!(late.await.is_err());
        let left = || std::fs::read_dir(directory.path().join(".tmp")).unwrap().count();
        // A piece may still be on its way to the disk.
        let begun = Instant::now();
        while left() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "something is left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!directory.path().join("b").exists());
    }
}
