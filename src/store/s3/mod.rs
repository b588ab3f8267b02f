//! A bucket on an S3 server.

mod answer;
mod body_pieces;
#[cfg(feature = "testing")]
mod canned;
mod client;
mod credential_chain;
mod credentials;
mod endpoint;
mod exchange;
mod get;
mod http;
mod proxy;
mod put;
mod refresh;
mod socket;
mod trust;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier,
};

pub use self::client::{S3Credentials, S3Options};
use self::credentials::{CredentialCache, For};
use self::exchange::{Exchange, Tap};
use super::deadlines::Deadlines;
use super::error::{Error, Result};
use super::object::{Begin, Body, Fetched, HeadReply, Listed, Listing, Put, PutReply, Store};
use super::pace::StorePace;
use super::quirks::Quirks;
use crate::os::Buffers;

/// A bucket on an S3 server. It neither repeats nor verifies; the decorators do.
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Whether the hash of the body is signed. TLS protects the body, and on this machine nobody can change it on its way;
    /// then skipping the hash saves 0.6 s of CPU per GiB. In the clear over a network it is signed.
    signs_payload: bool,
    limits: Deadlines,
    buffers: Buffers,
    quirks: Arc<Quirks>,
    credentials: CredentialCache,
    pace: Arc<StorePace>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({})", self.bucket)
    }
}

impl S3Store {
    /// Builds the client. Sends nothing to the bucket; finding a region may involve the machine's metadata service.
    pub async fn open(bucket: &str, options: &S3Options, limits: Deadlines) -> Result<Self> {
        let (client, credentials, is_protected) = client::build(options, &limits).await?;
        let (bucket, signs_payload) = (bucket.to_owned(), !is_protected);
        let (buffers, quirks, pace) = (Buffers::shared(), Arc::default(), Arc::default());
        Ok(Self { client, bucket, signs_payload, limits, buffers, quirks, credentials, pace })
    }

    /// The same store, limited by `pace`.
    pub(super) fn paced_by(self, pace: &Arc<StorePace>) -> Self {
        Self { pace: pace.clone(), ..self }
    }

    /// A store whose server always answers with this, without a network.
    #[cfg(feature = "testing")]
    pub(super) fn canned(status: u16, body: &[u8]) -> Self {
        let (client, credentials) = canned::canned_client(status, body);
        let (buffers, quirks, pace) = (Buffers::shared(), Arc::default(), Arc::default());
        let (bucket, limits) = ("bucket".to_owned(), Deadlines::default());
        Self { client, bucket, signs_payload: false, limits, buffers, quirks, credentials, pace }
    }

    /// What is learned of the server; the bucket shares it.
    pub(super) fn quirks(&self) -> Arc<Quirks> {
        self.quirks.clone()
    }

    /// For people: since when the store has refused the credentials, if it does, and what to do.
    pub(super) fn refuses_credentials(&self) -> Option<String> {
        self.credentials.trouble()
    }

    /// Signs with these credentials from now on. If the store refuses them, the current ones stay. If it does not answer,
    /// the new ones are used all the same, and the error is returned.
    pub(super) async fn hand_over(&self, given: &S3Credentials, prefix: &str) -> Result<()> {
        let exchange = Arc::new(Exchange::default());
        let config = aws_sdk_s3::config::Builder::new().credentials_provider(given.to_sdk());
        let send = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .max_keys(1)
            .customize()
            .interceptor(Tap::receiving(exchange.clone()))
            .config_override(config)
            .send();
        let tried = match self.soon(prefix, send).await {
            Ok(reply) => reply.map(drop).map_err(|error| self.refusal(&error, &exchange, prefix)),
            Err(error) => Err(error),
        };
        if !matches!(tried, Err(Error::Denied { .. })) {
            self.credentials.hand_over(given.to_sdk());
        }
        tried
    }

    fn stalled(name: &str, after: Duration) -> Error {
        Error::Deadline { object: name.to_owned(), after }
    }

    /// Waits for the head of an answer.
    async fn soon<T>(&self, name: &str, send: impl Future<Output = T>) -> Result<T> {
        Self::within(name, self.limits.stall_get, send).await
    }

    async fn within<T>(name: &str, limit: Duration, send: impl Future<Output = T>) -> Result<T> {
        tokio::time::timeout(limit, send).await.map_err(|_| Self::stalled(name, limit))
    }

    /// The error that a refused request means.
    fn refusal<E>(
        &self,
        error: &SdkError<E, HttpResponse>,
        exchange: &Exchange,
        name: &str,
    ) -> Error
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        answer::error(error, exchange, &self.bucket, name)
    }

    /// Creates the bucket. Amazon requires the region, except for us-east-1.
    pub(super) async fn create_bucket(&self, region: Option<&str>) -> Result<()> {
        let region = region.filter(|region| *region != "us-east-1");
        let place = region.map(|region| {
            let place = BucketLocationConstraint::from(region);
            CreateBucketConfiguration::builder().location_constraint(place).build()
        });
        let create = || async {
            let exchange = Arc::new(Exchange::default());
            let request = self.client.create_bucket().bucket(&self.bucket);
            let request = request.set_create_bucket_configuration(place.clone()).customize();
            let send = request.interceptor(Tap::receiving(exchange.clone())).send();
            let reply = Self::within(&self.bucket, self.limits.operation, send).await?;
            reply.map(drop).map_err(|error| self.refusal(&error, &exchange, &self.bucket))
        };
        self.credentials.signed(For::Writing, create).await
    }

    async fn delete_one(&self, name: &str) -> Result<()> {
        let exchange = Arc::new(Exchange::default());
        let request = self.client.delete_object().bucket(&self.bucket).key(name).customize();
        let send = request.interceptor(Tap::receiving(exchange.clone())).send();
        let reply = self.soon(name, send).await?;
        match reply.map_err(|error| self.refusal(&error, &exchange, name)) {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_several(&self, first: &str, names: &[String]) -> Result<()> {
        let other = |cause| Error::Other { object: first.to_owned(), cause: Arc::new(cause) };
        let mut delete = Delete::builder().quiet(true);
        for name in names {
            delete = delete.objects(ObjectIdentifier::builder().key(name).build().map_err(other)?);
        }
        let delete = delete.build().map_err(other)?;
        let exchange = Arc::new(Exchange::default());
        let request = self.client.delete_objects().bucket(&self.bucket).delete(delete).customize();
        let send = request.interceptor(Tap::receiving(exchange.clone())).send();
        let reply = Self::within(first, self.limits.operation, send).await?;
        let reply = reply.map_err(|error| self.refusal(&error, &exchange, first))?;
        match reply.errors().iter().find(|error| error.code() != Some("NoSuchKey")) {
            Some(error) => Err(answer::refused_deletion(error)),
            None => Ok(()),
        }
    }

    async fn list_objects(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        let exchange = Arc::new(Exchange::default());
        let (after, token) = match begin {
            Begin::First => (None, None),
            Begin::After(name) => (Some(name.clone()), None),
            Begin::Token(token) => (None, Some(token.clone())),
        };
        let send = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_start_after(after)
            .set_continuation_token(token)
            .customize()
            .interceptor(Tap::receiving(exchange.clone()))
            .send();
        // Some stores walk a whole tree for this, so it gets the time of an operation.
        let reply = Self::within(prefix, self.limits.operation, send).await?;
        let reply = reply.map_err(|error| self.refusal(&error, &exchange, prefix))?;
        let mut objects = Vec::with_capacity(reply.contents().len());
        for object in reply.contents() {
            objects.push(Listed {
                name: object.key().unwrap_or_default().to_owned(),
                length: length(object.size()),
                modified: modified(object.last_modified()),
            });
        }
        // Only the token says where the listing goes on: a page may be empty, or out of order, and still not be the last.
        let token = reply.next_continuation_token().filter(|token| !token.is_empty());
        let more = match (reply.is_truncated(), token) {
            (Some(false), _) | (None, None) => None,
            (_, Some(token)) => Some(Begin::Token(token.to_owned())),
            (Some(true), None) => match objects.last() {
                Some(last) => Some(Begin::After(last.name.clone())),
                None => {
                    let reason = "its listing says that more follows, and not where".to_owned();
                    return Err(Error::Corrupt { object: prefix.to_owned(), reason });
                }
            },
        };
        Ok(Listing { objects, more, time: exchange.date() })
    }

    async fn delete_objects(&self, names: &[String]) -> Result<()> {
        let Some(first) = names.first() else { return Ok(()) };
        if names.len() == 1 {
            return self.delete_one(first).await;
        }
        match self.delete_several(first, names).await {
            // The server does not support it, or does not accept the checksum that goes with it.
            Err(Error::Unsupported { .. } | Error::Other { .. }) => {}
            done => return done,
        }
        for name in names {
            self.delete_one(name).await?;
        }
        Ok(())
    }
}

/// A length from the wire; an invalid one becomes a length that fits nothing.
fn length(value: Option<i64>) -> u64 {
    value.and_then(|value| u64::try_from(value).ok()).unwrap_or(u64::MAX)
}

fn modified(time: Option<&DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(*time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn etag(value: Option<&str>) -> Option<String> {
    value.map(|value| value.trim_matches('"').to_owned())
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        self.credentials.signed(For::Writing, || self.put_object(name, body, condition)).await
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        self.credentials.signed(For::Reading, || self.get_object(name, range.clone())).await
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        self.credentials.signed(For::Reading, || self.head_object(name)).await
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        self.credentials.signed(For::Reading, || self.list_objects(prefix, begin)).await
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        // A policy may let these credentials read and write but not delete, so a refusal says nothing about them.
        self.delete_objects(names).await
    }
}

#[cfg(test)]
mod tests;
