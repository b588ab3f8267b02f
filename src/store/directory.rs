//! A directory as a store.

use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;

use super::error::Result;
use super::object::{Body, Fetched, Head, Listing, Put, PutReply, Store};

/// A directory as a store.
#[derive(Debug)]
pub struct DirectoryStore {}

impl DirectoryStore {
    /// Opens a directory, and makes it if it is not there.
    pub async fn open(_root: &Path) -> Result<Self> {
        todo!()
    }
}

#[async_trait]
impl Store for DirectoryStore {
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
