//! The bucket: all that upper layers see of a store.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::checked::Checked;
use super::counted::{Counted, Counters};
use super::deadlines::Deadlines;
use super::directory::DirectoryStore;
use super::error::{Error, Result};
use super::line::{RequestContext, Urgency};
use super::object::{Begin, Body, Fetched, HeadReply, Listing, Moved, Put, Store};
use super::pace::{StorePace, put_as};
use super::probe::{self, Conditional};
use super::quirks::Quirks;
use super::retry::Retrying;
use super::s3::{S3Credentials, S3Options, S3Store};
use super::slots::Slotted;
use super::uploaded::Uploaded;
use super::url::StoreUrl;
use crate::types::StoreLimits;

/// The most names in one DELETE: S3's limit.
const DELETE_BATCH: usize = 1000;

/// How many attempts a put makes.
#[derive(Clone, Copy)]
enum Attempts {
    One,
    UntilItIsThere,
}

/// A vault's part of a store. Its names are below its prefix, each request has a deadline and is repeated as long as that
/// may help, and what was put or fetched is verified. A clone is the same bucket.
#[derive(Clone)]
pub struct Bucket {
    pub(super) inner: Arc<Inner>,
    /// The urgency of this clone's requests.
    urgency: Urgency,
}

pub(super) struct Inner {
    pub(super) store: Retrying,
    pub(super) raw: Arc<dyn Store>,
    /// Empty, or ends with a slash.
    pub(super) prefix: String,
    pub(super) shown: String,
    pub(super) counters: Arc<Counters>,
    pub(super) deadlines: Deadlines,
    /// The directory, if the bucket is one on this machine.
    pub(super) directory: Option<PathBuf>,
    /// Bytes of all puts together.
    pub(super) moved: Moved,
    pub(super) quirks: Arc<Quirks>,
    /// The limits on what may be requested at a time.
    pub(super) pace: Arc<StorePace>,
    /// The same store as `raw`, if it is an S3 store: it has credentials.
    pub(super) s3: Option<Arc<S3Store>>,
}

impl Bucket {
    /// Opens the place that `url` names, and makes one request, so that a wrong endpoint, bucket or secret shows now. A
    /// directory is made if it does not exist.
    pub async fn open(url: &StoreUrl, options: &S3Options, deadlines: Deadlines) -> Result<Self> {
        let bucket = Self::unasked(url, options, deadlines).await?;
        bucket.inner.store.knock(&bucket.full("superblock/")).await?;
        Ok(bucket)
    }

    /// As [`Bucket::open`], without that request.
    pub async fn unasked(
        url: &StoreUrl,
        options: &S3Options,
        deadlines: Deadlines,
    ) -> Result<Self> {
        let pace = Arc::new(StorePace::default());
        let inner = match url {
            StoreUrl::S3 { bucket, prefix } => {
                let store = S3Store::open(bucket, options, deadlines).await?;
                let store = Arc::new(store.paced_by(&pace));
                let place = (prefix.as_str(), url.to_string(), store.quirks());
                let inner = Self::build(store.clone(), place, deadlines, pace);
                Inner { s3: Some(store), ..inner }
            }
            StoreUrl::File(path) => {
                let store = Arc::new(DirectoryStore::open(path).await?.paced_by(&pace));
                let place = ("", url.to_string(), Arc::default());
                let inner = Self::build(store, place, deadlines, pace);
                Inner { directory: Some(path.clone()), ..inner }
            }
        };
        Ok(Self { inner: Arc::new(inner), urgency: Urgency::default() })
    }

    /// The part of a given store below `prefix`, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn over(store: Arc<dyn Store>, prefix: &str, deadlines: Deadlines) -> Self {
        let place = (prefix, format!("{store:?}"), Arc::default());
        let inner = Arc::new(Self::build(store, place, deadlines, Arc::default()));
        Self { inner, urgency: Urgency::default() }
    }

    fn build(
        raw: Arc<dyn Store>,
        (prefix, shown, quirks): (&str, String, Arc<Quirks>),
        deadlines: Deadlines,
        pace: Arc<StorePace>,
    ) -> Inner {
        let counters = Arc::new(Counters::default());
        let raw: Arc<dyn Store> = Arc::new(Counted::over(raw, counters.clone()));
        let raw: Arc<dyn Store> = Arc::new(Slotted::over(raw, pace.slots.clone()));
        let prefix = prefix.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let store = Retrying::over(Checked::over(raw.clone(), quirks.clone()), deadlines);
        let (directory, moved, s3) = (None, Moved::default(), None);
        Inner { store, raw, prefix, shown, counters, deadlines, directory, moved, quirks, pace, s3 }
    }

    /// Makes the store hold exactly these bytes under this name. The put is repeated as long as that may help, and
    /// verified; if its reply was lost, it counts as done when these very bytes are there. [`Error::Exists`]: other bytes
    /// are there. [`Error::Corrupt`]: the store acknowledged the put, but other bytes are there.
    pub async fn put_new(&self, name: &str, body: Bytes) -> Result<Uploaded> {
        self.put_new_counted(name, body, &self.moving()).await
    }

    /// As [`Bucket::put_new`]; `moved` counts its progress.
    pub async fn put_new_counted(
        &self,
        name: &str,
        body: Bytes,
        moved: &Moved,
    ) -> Result<Uploaded> {
        self.put(name, body, moved, Attempts::UntilItIsThere).await
    }

    /// A counter for one put, which also adds to [`Bucket::moved`].
    pub fn moving(&self) -> Moved {
        Moved::part_of(&self.inner.moved)
    }

    /// Bytes of all puts that the other end has taken. As long as it grows, the link is slow, not dead.
    #[cfg(any(test, feature = "testing"))]
    pub fn moved(&self) -> u64 {
        self.inner.moved.bytes()
    }

    /// One attempt at a conditional put (rule C2), verified. After an error it is not known whether it was carried out.
    #[cfg(any(test, feature = "testing"))]
    pub async fn put_once(&self, name: &str, body: Bytes) -> Result<Uploaded> {
        self.put_once_counted(name, body, &self.moving()).await
    }

    /// As [`Bucket::put_once`]; `moved` counts its progress.
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

    /// What the store tells of an object.
    pub async fn head(&self, name: &str) -> Result<HeadReply> {
        self.asking(self.inner.store.head(&self.full(name))).await
    }

    pub(super) async fn list_page(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        self.asking(self.inner.store.list(prefix, begin)).await
    }

    pub(super) fn prefix_length(&self) -> usize {
        self.inner.prefix.len()
    }

    /// Deletes these objects. A missing one is no error.
    pub async fn delete(&self, names: &[String]) -> Result<()> {
        for batch in names.chunks(DELETE_BATCH) {
            let batch: Vec<_> = batch.iter().map(|name| self.full(name)).collect();
            self.asking(self.inner.store.delete(&batch)).await?;
        }
        Ok(())
    }

    /// Makes a request with this clone's urgency. It is boxed, because the future would otherwise be stored twice in its
    /// caller.
    fn asking<'a, T: 'a>(
        &self,
        request: impl Future<Output = T> + Send + 'a,
    ) -> impl Future<Output = T> + Send + 'a {
        let (urgency, held_back) = (self.urgency.clone(), Arc::default());
        RequestContext { urgency, held_back }.scope(Box::pin(request))
    }

    /// An object's full name in the bucket.
    pub fn key_of(&self, name: &str) -> String {
        self.full(name)
    }

    /// The same bucket for background requests, which give way to others.
    #[must_use]
    pub fn in_background(&self) -> Self {
        self.as_urgent_as(&Urgency::background())
    }

    /// The same bucket; requests by the returned clone have this urgency.
    #[must_use]
    pub fn as_urgent_as(&self, urgency: &Urgency) -> Self {
        Self { inner: self.inner.clone(), urgency: urgency.clone() }
    }

    /// Puts a probe object with this storage class and these tags, and deletes it. An error is the store's refusal.
    pub async fn try_put_as(&self, limits: &StoreLimits) -> Result<()> {
        if self.inner.directory.is_some() {
            let what = "a directory knows neither storage classes nor tags".to_owned();
            return Err(Error::Unsupported { what });
        }
        let (name, told) = (self.full(&probe::name()), put_as(limits, true));
        let body = Body::from("s3vault tries a storage class").told(told);
        let put = tokio::time::timeout(
            self.inner.deadlines.operation,
            self.inner.raw.put(&name, &body, Put::Always),
        );
        let put = put.await.unwrap_or_else(|_| {
            Err(Error::Deadline { object: name.clone(), after: self.inner.deadlines.operation })
        });
        put?;
        // If it may not be deleted, it stays with other probes.
        if let Err(error) = self.inner.store.delete(&[name]).await {
            tracing::debug!(%error, "a probe stays in the bucket");
        }
        Ok(())
    }

    /// Creates the bucket itself; `region` is its location on Amazon.
    pub async fn create(&self, region: Option<&str>) -> Result<()> {
        match &self.inner.s3 {
            Some(s3) => s3.create_bucket(region).await,
            None => Ok(()), // a directory is made when it is opened
        }
    }

    pub(super) fn raw(&self) -> Arc<dyn Store> {
        self.inner.raw.clone()
    }

    /// Puts one key several times at once, to see whether exactly one put wins (rule W6). Deletes what it put.
    pub async fn probe_conditional(&self) -> Result<Conditional> {
        probe::run(&self.inner.raw, &self.inner.prefix, &self.inner.deadlines).await
    }

    /// From now on puts are not conditional, but preceded by a HEAD. For a store without conditional puts
    /// ([`Conditional::Refused`]) to which only one machine writes.
    pub fn do_without_conditions(&self) {
        self.inner.quirks.looks_first.store(true, Relaxed);
    }

    /// Signs with these credentials from now on. [`Error::Denied`]: the store refuses them, and the former ones stay. After
    /// any other error the new ones are used, and it is not known whether the store accepts them.
    pub async fn hand_over(&self, given: &S3Credentials) -> Result<()> {
        let Some(s3) = &self.inner.s3 else {
            let what = "a directory asks for no credentials".to_owned();
            return Err(Error::Unsupported { what });
        };
        s3.hand_over(given, &self.full("superblock/")).await
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
    /// Whether this is [`Error::NotFound`].
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
