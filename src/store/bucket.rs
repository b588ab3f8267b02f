//! The door: what upper rooms know of a store.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use bytes::Bytes;

use super::checked::Checked;
use super::counted::{Counted, Counters, Counts};
use super::deadlines::Deadlines;
use super::directory::DirectoryStore;
use super::error::{Error, Result};
use super::line::{RequestContext, Urgency};
use super::object::{
    Begin, Body, Fetched, HeadReply, Listed, Listing, Moved, Put, PutReply, Store,
};
use super::pace::{StorePace, put_as};
use super::probe::{self, Conditional};
use super::quirks::Quirks;
use super::retry::Retrying;
use super::s3::{S3Credentials, S3Options, S3Store};
use super::slots::Slotted;
use super::url::StoreUrl;
use crate::types::{RequestsOfADay, StoreLimits};

/// Pages of a listing in a row that bring nothing, at most. Some stores pass over what was deleted in this way.
const EMPTY_PAGES: u32 = 1000;

/// So many objects a listing that is collected has at most: some 100 MB of memory. Of what is listed so there are few, but of
/// commits since a checkpoint, of which there is one for each few thousand. What grows with a vault is listed by `Lister`.
const LISTED_MAX: usize = 1 << 20;

/// Names of one DELETE: S3's limit.
const DELETE_BATCH: usize = 1000;

/// Proof that the store holds exactly the bytes that were put (rule C5). Only this room makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    name: String,
    length: u64,
    crc32: u32,
    time: SystemTime,
}

impl Uploaded {
    fn new(name: &str, body: &Body, reply: &PutReply) -> Self {
        let (length, crc32) = (body.length(), body.crc32());
        Self { name: name.to_owned(), length, crc32, time: reply.time }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The CRC-32 of its bytes.
    #[cfg(test)]
    pub fn crc32(&self) -> u32 {
        self.crc32
    }

    /// The store's clock in its answer, to the second; 1970 if it did not say.
    pub fn time(&self) -> SystemTime {
        self.time
    }
}

/// How often a put is made.
#[derive(Clone, Copy)]
enum Attempts {
    One,
    UntilItIsThere,
}

/// A vault's part of a store: names are below its prefix, each request has a deadline and is
/// repeated while that may help, and what was put or fetched is verified. A clone is the same bucket.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
    /// Of what is asked by this clone.
    urgency: Urgency,
}

struct Inner {
    store: Retrying,
    raw: Arc<dyn Store>,
    /// Empty, or ends with a slash.
    prefix: String,
    shown: String,
    counters: Arc<Counters>,
    limits: Deadlines,
    /// Where it lies, if it is a directory of this machine.
    directory: Option<PathBuf>,
    /// Bytes of all puts together.
    moved: Moved,
    quirks: Arc<Quirks>,
    /// What may be asked of it at a time.
    pace: Arc<StorePace>,
    /// The same as `raw`, if it is one: what has credentials.
    s3: Option<Arc<S3Store>>,
}

impl Bucket {
    /// Opens the place that `url` names, and asks it one question, so that a wrong endpoint, bucket or
    /// secret shows now. A directory is made if it is not there.
    pub async fn open(url: &StoreUrl, options: &S3Options, limits: Deadlines) -> Result<Self> {
        let bucket = Self::unasked(url, options, limits).await?;
        bucket.inner.store.knock(&bucket.full("superblock/")).await?;
        Ok(bucket)
    }

    /// As [`Bucket::open`], without that question.
    pub async fn unasked(url: &StoreUrl, options: &S3Options, limits: Deadlines) -> Result<Self> {
        let pace = Arc::new(StorePace::default());
        let bucket = match url {
            StoreUrl::S3 { bucket, prefix } => {
                let store = S3Store::open(bucket, options, limits).await?;
                let store = Arc::new(store.paced_by(&pace));
                let place = (prefix.as_str(), url.to_string(), store.quirks());
                Self::with(Self::build(store.clone(), place, limits, pace), |inner| {
                    inner.s3 = Some(store);
                })
            }
            StoreUrl::File(path) => {
                let store = Arc::new(DirectoryStore::open(path).await?.paced_by(&pace));
                let place = ("", url.to_string(), Arc::default());
                let bucket = Self::build(store, place, limits, pace);
                Self::with(bucket, |inner| inner.directory = Some(path.clone()))
            }
        };
        Ok(Self { inner: Arc::new(bucket), urgency: Urgency::default() })
    }

    /// The part of a given store below `prefix`, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn over(store: Arc<dyn Store>, prefix: &str, limits: Deadlines) -> Self {
        let place = (prefix, format!("{store:?}"), Arc::default());
        let inner = Arc::new(Self::build(store, place, limits, Arc::default()));
        Self { inner, urgency: Urgency::default() }
    }

    fn with(mut inner: Inner, change: impl FnOnce(&mut Inner)) -> Inner {
        change(&mut inner);
        inner
    }

    fn build(
        raw: Arc<dyn Store>,
        (prefix, shown, quirks): (&str, String, Arc<Quirks>),
        limits: Deadlines,
        pace: Arc<StorePace>,
    ) -> Inner {
        let counters = Arc::new(Counters::default());
        let raw: Arc<dyn Store> = Arc::new(Counted::over(raw, counters.clone()));
        let raw: Arc<dyn Store> = Arc::new(Slotted::over(raw, pace.slots.clone()));
        let prefix = prefix.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let store = Retrying::over(Checked::over(raw.clone(), quirks.clone()), limits);
        let (directory, moved, s3) = (None, Moved::default(), None);
        Inner { store, raw, prefix, shown, counters, limits, directory, moved, quirks, pace, s3 }
    }

    /// Makes the store hold exactly these bytes under this name. The put is repeated while that may help, and verified;
    /// if its reply was lost, it counts when these very bytes are there. [`Error::Exists`]: other bytes are.
    /// [`Error::Corrupt`]: the store acknowledged the put, and other bytes are there.
    pub async fn put_new(&self, name: &str, body: Bytes) -> Result<Uploaded> {
        self.put_new_counted(name, body, &self.moving()).await
    }

    /// As [`Bucket::put_new`]; `moved` tells how far it is.
    pub async fn put_new_counted(
        &self,
        name: &str,
        body: Bytes,
        moved: &Moved,
    ) -> Result<Uploaded> {
        self.put(name, body, moved, Attempts::UntilItIsThere).await
    }

    /// A count for one put, which is a part of [`Bucket::moved`].
    pub fn moving(&self) -> Moved {
        Moved::part_of(&self.inner.moved)
    }

    /// Bytes of all puts that the other end has taken. While that grows, whoever waits for the bucket waits for a
    /// slow link, not for a dead one.
    #[cfg(any(test, feature = "testing"))]
    pub fn moved(&self) -> u64 {
        self.inner.moved.bytes()
    }

    /// One attempt at a conditional put (rule C2), verified. After any error it is not known whether
    /// it was carried out.
    #[cfg(any(test, feature = "testing"))]
    pub async fn put_once(&self, name: &str, body: Bytes) -> Result<Uploaded> {
        self.put_once_counted(name, body, &self.moving()).await
    }

    /// As [`Bucket::put_once`]; `moved` tells how far it is.
    pub async fn put_once_counted(
        &self,
        name: &str,
        body: Bytes,
        moved: &Moved,
    ) -> Result<Uploaded> {
        self.put(name, body, moved, Attempts::One).await
    }

    async fn put(
        &self,
        name: &str,
        body: Bytes,
        moved: &Moved,
        attempts: Attempts,
    ) -> Result<Uploaded> {
        let body = Body::from(body).counted_by(moved.clone());
        let body = body.told(self.inner.pace.put_as(name));
        let (store, full) = (&self.inner.store, self.full(name));
        let put = async {
            match attempts {
                Attempts::One => store.put_once(&full, &body).await,
                Attempts::UntilItIsThere => store.put_new(&full, &body).await,
            }
        };
        let reply = self.asking(put).await?;
        Ok(Uploaded::new(name, &body, &reply))
    }

    /// The object's bytes, or exactly those of `range`; fewer are [`Error::Corrupt`].
    pub async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        Ok(self.get_timed(name, range).await?.bytes)
    }

    /// As [`Bucket::get`], with the object's length and the store's time.
    pub async fn get_timed(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        self.asking(self.inner.store.get(&self.full(name), range)).await
    }

    /// What the store says of an object.
    pub async fn head(&self, name: &str) -> Result<HeadReply> {
        self.asking(self.inner.store.head(&self.full(name))).await
    }

    /// All objects whose names begin with `prefix`, in the byte order of their names, and the store's
    /// clock at the first page.
    pub async fn list_all(&self, prefix: &str) -> Result<(Vec<Listed>, SystemTime)> {
        self.list(prefix, None).await
    }

    /// As [`Bucket::list_all`], but only the objects after the one named `after`.
    pub async fn list_after(&self, prefix: &str, after: &str) -> Result<(Vec<Listed>, SystemTime)> {
        self.list(prefix, Some(after)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<(Vec<Listed>, SystemTime)> {
        let prefix = self.full(prefix);
        let first = after.map(|after| self.full(after));
        let cut = self.inner.prefix.len();
        let mut begin = first.clone().map_or(Begin::First, Begin::After);
        // Some stores list in the order of a tree of directories or in none, some begin at `after` itself or heed it not.
        let mut by_name = BTreeMap::new();
        let (mut time, mut empty) = (None, 0);
        loop {
            let page = self.asking(self.inner.store.list(&prefix, &begin)).await?;
            time.get_or_insert(page.time);
            let (was, repeats) = (by_name.len(), !page.objects.is_empty());
            by_name.extend(page.objects.into_iter().map(|object| (object.name.clone(), object)));
            let Some(more) = page.more else { break };
            begin = more;
            empty = if by_name.len() > was { 0 } else { empty + 1 };
            if empty > 0 && (repeats || empty > EMPTY_PAGES) {
                let reason = "its listing does not go forward".to_owned();
                return Err(Error::Corrupt { object: prefix, reason });
            }
            if by_name.len() > LISTED_MAX {
                let reason =
                    format!("more than {LISTED_MAX} objects are listed there: not by s3vault");
                return Err(Error::Corrupt { object: prefix, reason });
            }
        }
        let after = first.unwrap_or_default();
        let mut found: Vec<_> =
            by_name.into_values().filter(|object| object.name > after).collect();
        for object in &mut found {
            object.name.drain(..cut);
        }
        Ok((found, time.unwrap_or(SystemTime::UNIX_EPOCH)))
    }

    pub(super) async fn list_page(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        self.asking(self.inner.store.list(prefix, begin)).await
    }

    pub(super) fn prefix_length(&self) -> usize {
        self.inner.prefix.len()
    }

    /// Deletes these objects; that one is not there is no error.
    pub async fn delete(&self, names: &[String]) -> Result<()> {
        for batch in names.chunks(DELETE_BATCH) {
            let batch: Vec<_> = batch.iter().map(|name| self.full(name)).collect();
            self.asking(self.inner.store.delete(&batch)).await?;
        }
        Ok(())
    }

    /// Makes a request as urgent as this clone. Boxed, or whoever waits for it would have room for it twice.
    fn asking<'a, T: 'a>(
        &self,
        request: impl Future<Output = T> + Send + 'a,
    ) -> impl Future<Output = T> + Send + 'a {
        let (urgency, held_back) = (self.urgency.clone(), Arc::default());
        RequestContext { urgency, held_back }.scope(Box::pin(request))
    }

    /// What an object is called in the bucket.
    pub fn key_of(&self, name: &str) -> String {
        self.full(name)
    }

    /// The same bucket, for what nobody waits for: it gives way.
    #[must_use]
    pub fn in_background(&self) -> Self {
        self.as_urgent_as(&Urgency::background())
    }

    /// The same bucket; what is asked by this clone is as urgent as that.
    #[must_use]
    pub fn as_urgent_as(&self, urgency: &Urgency) -> Self {
        Self { inner: self.inner.clone(), urgency: urgency.clone() }
    }

    /// From now on no more than this is asked of it. Requests that are under way follow.
    pub fn limit(&self, limits: &StoreLimits) {
        self.inner.pace.set(limits);
    }

    /// What is asked of it at most.
    pub fn limited_to(&self) -> StoreLimits {
        self.inner.pace.limits()
    }

    /// Bytes of objects that come in a second now at most, if that is limited.
    pub fn rate_down(&self) -> Option<u64> {
        self.inner.pace.down.rate()
    }

    /// Puts an object of nobody's in this class and with these tags, and deletes it: an error is the store's refusal.
    pub async fn try_put_as(&self, limits: &StoreLimits) -> Result<()> {
        if self.inner.directory.is_some() {
            let what = "a directory knows neither storage classes nor tags".to_owned();
            return Err(Error::Unsupported { what });
        }
        let (name, told) = (self.full(&probe::name()), put_as(limits, true));
        let body = Body::from("s3vault tries a storage class").told(told);
        let put = tokio::time::timeout(
            self.inner.limits.operation,
            self.inner.raw.put(&name, &body, Put::Always),
        );
        let put = put.await.unwrap_or_else(|_| {
            Err(Error::Deadline { object: name.clone(), after: self.inner.limits.operation })
        });
        put?;
        // Where it may not be deleted, it lies with other probes.
        if let Err(error) = self.inner.store.delete(&[name]).await {
            tracing::debug!(%error, "a probe stays in the bucket");
        }
        Ok(())
    }

    /// Makes the bucket itself; `region`: where, of Amazon's.
    pub async fn create(&self, region: Option<&str>) -> Result<()> {
        match &self.inner.s3 {
            Some(s3) => s3.create_bucket(region).await,
            None => Ok(()), // a directory is made when it is opened
        }
    }

    pub(super) fn raw(&self) -> Arc<dyn Store> {
        self.inner.raw.clone()
    }

    /// Puts one key several times at once: does exactly one win (rule W6)? What it put, it deletes.
    pub async fn probe_conditional(&self) -> Result<Conditional> {
        probe::run(&self.inner.raw, &self.inner.prefix, &self.inner.limits).await
    }

    /// For people: why puts that are made again fail, when none was carried out for a while.
    pub fn puts_fail(&self) -> Option<String> {
        self.inner.store.puts_fail()
    }

    /// For people: why what is read there gets no answer, when nothing did for a while.
    pub fn reads_fail(&self) -> Option<String> {
        self.inner.store.reads_fail()
    }

    /// Whether the last attempt at a read got no answer: then whoever comes next need not wait in vain, too.
    pub fn is_failing(&self) -> bool {
        self.inner.store.is_failing()
    }

    /// How often the store answered so far, whatever it said: while that stands still, nothing comes from it.
    pub fn answers(&self) -> u64 {
        self.inner.store.answers()
    }

    /// From now on, puts are not conditional, but preceded by a look: for a store that has no conditional puts
    /// ([`Conditional::Refused`]), where one machine alone writes.
    pub fn do_without_conditions(&self) {
        self.inner.quirks.looks_first.store(true, Relaxed);
    }

    /// In what the store differs from others, for people; a line each.
    pub fn quirks(&self) -> Vec<String> {
        self.inner.quirks.describe()
    }

    /// What was learned of the store and is worth remembering on this machine; empty if nothing.
    pub fn learned(&self) -> String {
        self.inner.quirks.text()
    }

    /// Takes in what [`Bucket::learned`] said in an earlier process.
    pub fn recall(&self, learned: &str) {
        self.inner.quirks.recall(learned);
    }

    /// If the store refuses the credentials: since when, and what to do. For people.
    pub fn refuses_credentials(&self) -> Option<String> {
        self.inner.s3.as_ref()?.refuses_credentials()
    }

    /// Signs with these credentials from now on. [`Error::Denied`]: the store refuses them, and the former ones stay. After
    /// any other error they are taken, and whether the store accepts them is not known.
    pub async fn hand_over(&self, given: &S3Credentials) -> Result<()> {
        let Some(s3) = &self.inner.s3 else {
            let what = "a directory asks for no credentials".to_owned();
            return Err(Error::Unsupported { what });
        };
        s3.hand_over(given, &self.full("superblock/")).await
    }

    /// The place in words, for messages; no secrets.
    #[cfg(any(test, feature = "testing"))]
    pub fn describe(&self) -> String {
        self.inner.shown.clone()
    }

    /// Attempts at requests that ended: method, what came of them, how many.
    pub fn ended(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.inner.counters.ended()
    }

    /// How many requests were made so far.
    pub fn requests(&self) -> Counts {
        self.inner.counters.read()
    }

    /// What was asked of it today, by UTC.
    pub fn today(&self) -> RequestsOfADay {
        self.inner.counters.today()
    }

    /// The limits that it was opened with.
    pub fn deadlines(&self) -> Deadlines {
        self.inner.limits
    }

    /// Bytes that the store can still take; `None` if it knows no end. Asks the local disk at most.
    pub fn free(&self) -> Option<u64> {
        crate::os::free_bytes(self.inner.directory.as_ref()?).ok()
    }

    pub(super) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.inner.prefix)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.inner.shown)
    }
}

impl Error {
    /// True of [`Error::NotFound`].
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
