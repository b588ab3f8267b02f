//! An S3 bucket.

use std::ops::Range;

use async_trait::async_trait;

use super::deadlines::Deadlines;
use super::error::Result;
use super::object::{Body, Fetched, Head, Listing, Put, PutReply, Store};

/// Credentials that were handed over instead of found by the standard chain.
#[derive(Clone)]
pub struct S3Credentials {
    /// The access key's id.
    pub access_key: String,
    /// The secret.
    pub secret_key: zeroize::Zeroizing<String>,
    /// The token of temporary credentials.
    pub session_token: Option<zeroize::Zeroizing<String>>,
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3Credentials(…)")
    }
}

/// How an S3 store is reached; what is not given comes from the standard AWS chain.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// `None`: Amazon's for the region, or `AWS_ENDPOINT_URL`.
    pub endpoint_url: Option<String>,
    /// `None`: the chain's; us-east-1 if it has none.
    pub region: Option<String>,
    /// `None`: the chain's.
    pub credentials: Option<S3Credentials>,
}

/// A bucket on an S3 server.
#[derive(Debug)]
pub struct S3Store {}

impl S3Store {
    /// Builds the client; sends nothing but what credentials may take.
    pub async fn open(_bucket: &str, _options: &S3Options, _limits: Deadlines) -> Result<Self> {
        todo!()
    }
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, _name: &str, _body: &Body, _condition: Put) -> Result<PutReply> {
        todo!()
    }
    async fn get(&self, _name: &str, _range: Option<Range<u64>>) -> Result<Fetched> {
        todo!()
    }
    async fn head(&self, _name: &str) -> Result<Head> {
        todo!()
    }
    async fn list(&self, _prefix: &str, _after: Option<&str>) -> Result<Listing> {
        todo!()
    }
    async fn delete(&self, _names: &[String]) -> Result<()> {
        todo!()
    }
}
