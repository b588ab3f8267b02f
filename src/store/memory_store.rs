//! A store in memory, for tests: its clock can be set, and its objects can be tampered with.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::error::{Error, Result};
use super::object::{Begin, Body, Fetched, HeadReply, Listed, Listing, Put, PutReply, Store};

/// The objects of one page of a listing: S3's number.
const PAGE: usize = 1000;

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

/// A change of an object, and when it happened.
#[derive(Clone, Debug)]
pub(super) struct ObjectChange {
    pub(super) name: String,
    /// `None`: removed.
    pub(super) bytes: Option<Bytes>,
    pub(super) time: SystemTime,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, (Bytes, SystemTime)>,
    clock: Clock,
    /// All changes since recording began.
    changes: Option<Vec<ObjectChange>>,
}

impl Inner {
    fn set(&mut self, name: &str, bytes: Option<Bytes>) -> Option<Bytes> {
        let time = self.clock.now();
        if let Some(changes) = &mut self.changes {
            changes.push(ObjectChange { name: name.to_owned(), bytes: bytes.clone(), time });
        }
        let before = match bytes {
            Some(bytes) => self.objects.insert(name.to_owned(), (bytes, time)),
            None => self.objects.remove(name),
        };
        before.map(|(bytes, _)| bytes)
    }
}

#[derive(Default, Clone, Copy)]
struct Clock {
    stands_at: Option<SystemTime>,
    ahead: Duration,
}

impl Clock {
    fn now(self) -> SystemTime {
        self.stands_at.unwrap_or_else(SystemTime::now) + self.ahead
    }
}

impl MemoryStore {
    /// An empty store, with the system's clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the store's clock at this time.
    pub fn set_time(&self, time: SystemTime) {
        self.inner.lock().clock = Clock { stands_at: Some(time), ahead: Duration::ZERO };
    }

    /// Moves the store's clock forward.
    pub fn advance(&self, by: Duration) {
        self.inner.lock().clock.ahead += by;
    }

    /// The names of all objects, in order.
    pub fn names(&self) -> Vec<String> {
        self.inner.lock().objects.keys().cloned().collect()
    }

    /// An object's bytes, without a request.
    pub fn peek(&self, name: &str) -> Option<Bytes> {
        self.inner.lock().objects.get(name).map(|(bytes, _)| bytes.clone())
    }

    /// Tampering: puts these bytes there.
    pub fn plant(&self, name: &str, bytes: impl Into<Bytes>) {
        self.inner.lock().set(name, Some(bytes.into()));
    }

    /// Tampering: removes an object, and returns its bytes.
    pub fn steal(&self, name: &str) -> Option<Bytes> {
        self.inner.lock().set(name, None)
    }

    /// All objects as they are now, to be restored later (a replayed bucket).
    pub fn snapshot(&self) -> BTreeMap<String, Bytes> {
        let inner = self.inner.lock();
        inner.objects.iter().map(|(name, (bytes, _))| (name.clone(), bytes.clone())).collect()
    }

    /// Tampering: makes the store hold exactly these objects.
    pub fn restore(&self, objects: BTreeMap<String, Bytes>) {
        let mut inner = self.inner.lock();
        let gone: Vec<_> = inner.objects.keys().cloned().collect();
        gone.iter().for_each(|name| drop(inner.set(name, None)));
        for (name, bytes) in objects {
            inner.set(&name, Some(bytes));
        }
    }

    /// The store's time.
    pub(super) fn now(&self) -> SystemTime {
        self.inner.lock().clock.now()
    }

    /// Records all changes from now on; the existing objects count as the first ones.
    pub(super) fn keep_changes(&self) {
        let mut inner = self.inner.lock();
        let first = inner.objects.iter().map(|(name, (bytes, time))| ObjectChange {
            name: name.clone(),
            bytes: Some(bytes.clone()),
            time: *time,
        });
        inner.changes = Some(first.collect());
    }

    /// How many changes are recorded, and the one at `at`.
    pub(super) fn change(&self, at: usize) -> (usize, Option<ObjectChange>) {
        let inner = self.inner.lock();
        let changes = inner.changes.as_deref().unwrap_or_default();
        (changes.len(), changes.get(at).cloned())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({} objects)", self.inner.lock().objects.len())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        let mut inner = self.inner.lock();
        if condition == Put::IfAbsent && inner.objects.contains_key(name) {
            return Err(Error::Exists { object: name.to_owned() });
        }
        let time = inner.clock.now();
        inner.set(name, Some(body.bytes().clone()));
        body.moved().add(body.length());
        Ok(PutReply { time, crc32: Some(body.crc32()), etag: None })
    }

    #[allow(clippy::cast_possible_truncation, reason = "the length of a buffer in memory")]
    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        let inner = self.inner.lock();
        let (bytes, _) = find(&inner, name)?;
        let object_length = bytes.len() as u64;
        let range = range.unwrap_or(0..object_length);
        let (from, to) = (range.start.min(object_length), range.end.min(object_length));
        let bytes = bytes.slice(from as usize..to.max(from) as usize);
        Ok(Fetched { bytes, object_length, time: inner.clock.now() })
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        let inner = self.inner.lock();
        let (bytes, modified) = find(&inner, name)?;
        Ok(HeadReply {
            length: bytes.len() as u64,
            modified: *modified,
            crc32: Some(crc32fast::hash(bytes)),
            etag: None,
            time: inner.clock.now(),
        })
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        let inner = self.inner.lock();
        let from = match begin.word() {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = inner
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, (bytes, modified))| Listed {
                name: name.clone(),
                length: bytes.len() as u64,
                modified: *modified,
            });
        let objects: Vec<_> = found.by_ref().take(PAGE).collect();
        let more =
            found.next().and_then(|_| objects.last().map(|last| Begin::Token(last.name.clone())));
        Ok(Listing { objects, more, time: inner.clock.now() })
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        let mut inner = self.inner.lock();
        for name in names {
            inner.set(name, None);
        }
        Ok(())
    }
}

fn find<'a>(inner: &'a Inner, name: &str) -> Result<&'a (Bytes, SystemTime)> {
    inner.objects.get(name).ok_or_else(|| Error::NotFound { object: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passes_the_suite() {
        super::super::conformance::run(&MemoryStore::new(), "").await.assert_passed();
    }

    #[tokio::test]
    async fn its_clock_can_be_set() {
        let store = MemoryStore::new();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        store.set_time(start);
        store.advance(Duration::from_secs(5));
        let reply = store.put("a", &Body::from("x"), Put::IfAbsent).await.unwrap();
        assert_eq!(reply.time, start + Duration::from_secs(5));
    }
}
