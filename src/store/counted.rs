//! Counts the requests to a store: every attempt, when it is sent.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::error::Result;
use super::object::{Begin, Body, Fetched, HeadReply, Listing, Put, PutReply, Store};
use crate::types::RequestsOfADay;

/// How many requests were made, and how many bytes of objects they moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// PUT.
    pub puts: u64,
    /// GET.
    pub gets: u64,
    /// HEAD.
    pub heads: u64,
    /// Pages of listings.
    pub lists: u64,
    /// DELETE, each of up to 1,000 objects.
    pub deletes: u64,
    /// Bytes of the bodies put, including repeated attempts.
    pub bytes_put: u64,
    /// Bytes of the bodies fetched.
    pub bytes_got: u64,
}

impl Counts {
    /// All requests together.
    #[allow(dead_code, reason = "tests count them")]
    pub fn requests(&self) -> u64 {
        self.puts + self.gets + self.heads + self.lists + self.deletes
    }
}

#[derive(Default)]
pub(super) struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_put: AtomicU64,
    bytes_got: AtomicU64,
    /// The day, and its requests.
    today: Mutex<(u64, RequestsOfADay)>,
    /// Completed attempts by method and outcome.
    ended: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Counters {
    /// Completed attempts: method, outcome, count.
    pub(super) fn ended(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.ended.lock().iter().map(|((method, what), count)| (*method, *what, *count)).collect()
    }

    /// The requests of today (UTC).
    pub(super) fn today(&self) -> RequestsOfADay {
        let mut today = self.today.lock();
        Self::turn(&mut today);
        today.1
    }

    fn on_this_day(&self, count: impl FnOnce(&mut RequestsOfADay)) {
        let mut today = self.today.lock();
        Self::turn(&mut today);
        count(&mut today.1);
    }

    fn turn(today: &mut (u64, RequestsOfADay)) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let day = now.as_secs() / (24 * 3600);
        if today.0 != day {
            *today = (day, RequestsOfADay::default());
        }
    }

    fn end<T>(&self, method: &'static str, result: Result<T>) -> Result<T> {
        let what = result.as_ref().err().map_or("ok", |error| error.class());
        *self.ended.lock().entry((method, what)).or_default() += 1;
        result
    }

    pub(super) fn read(&self) -> Counts {
        Counts {
            puts: self.puts.load(Relaxed),
            gets: self.gets.load(Relaxed),
            heads: self.heads.load(Relaxed),
            lists: self.lists.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            bytes_put: self.bytes_put.load(Relaxed),
            bytes_got: self.bytes_got.load(Relaxed),
        }
    }
}

pub(super) struct Counted {
    inner: Arc<dyn Store>,
    counters: Arc<Counters>,
}

impl Counted {
    pub(super) fn over(inner: Arc<dyn Store>, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Store for Counted {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        self.counters.puts.fetch_add(1, Relaxed);
        self.counters.bytes_put.fetch_add(body.length(), Relaxed);
        self.counters.on_this_day(|day| {
            day.puts += 1;
            day.sent += body.length();
        });
        self.counters.end("PUT", self.inner.put(name, body, condition).await)
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        self.counters.gets.fetch_add(1, Relaxed);
        self.counters.on_this_day(|day| day.gets += 1);
        let fetched = self.counters.end("GET", self.inner.get(name, range).await)?;
        let length = fetched.bytes.len() as u64;
        self.counters.bytes_got.fetch_add(length, Relaxed);
        self.counters.on_this_day(|day| day.received += length);
        Ok(fetched)
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        self.counters.heads.fetch_add(1, Relaxed);
        self.counters.on_this_day(|day| day.heads += 1);
        self.counters.end("HEAD", self.inner.head(name).await)
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        self.counters.lists.fetch_add(1, Relaxed);
        self.counters.on_this_day(|day| day.lists += 1);
        self.counters.end("LIST", self.inner.list(prefix, begin).await)
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        self.counters.deletes.fetch_add(1, Relaxed);
        self.counters.on_this_day(|day| day.deletes += 1);
        self.counters.end("DELETE", self.inner.delete(names).await)
    }
}
