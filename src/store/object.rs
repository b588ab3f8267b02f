//! The trait that backends and decorators share, and its types.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::Result;

/// The most bytes of one object: four times what a vault writes. So a length that the store claims never decides
/// how much memory is taken.
pub const OBJECT_MAX: u64 = 64 << 20;

/// A count of bytes sent, which only grows; as long as it does, the link lives. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    here: Arc<AtomicU64>,
    /// The total to which this count adds, if there is one.
    also: Option<Arc<AtomicU64>>,
}

impl Moved {
    /// A new count that also adds to `all`.
    pub(super) fn part_of(all: &Moved) -> Self {
        Self { here: Arc::default(), also: Some(all.here.clone()) }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.here.load(Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.here.fetch_add(bytes, Relaxed);
        if let Some(all) = &self.also {
            all.fetch_add(bytes, Relaxed);
        }
    }
}

/// How an object is put, besides its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutAs {
    /// The storage class; `None`: the bucket's own.
    pub class: Option<String>,
    /// The tags, encoded as in a URL's query.
    pub tagging: Option<String>,
}

/// The bytes of an object to be put, and their CRC-32 (ISO-HDLC, as in S3 and zip), computed once.
#[derive(Clone)]
pub struct Body {
    bytes: Bytes,
    crc32: u32,
    moved: Moved,
    put_as: PutAs,
}

impl Body {
    /// The bytes; the buffer is shared, not copied.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their CRC-32.
    pub fn crc32(&self) -> u32 {
        self.crc32
    }

    /// The number of bytes.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// How many bytes the other end has taken, over all attempts.
    pub(super) fn moved(&self) -> &Moved {
        &self.moved
    }

    /// How the object is put.
    pub(super) fn put_as(&self) -> &PutAs {
        &self.put_as
    }

    /// The same body, to be put as `put_as` says.
    pub(super) fn told(self, put_as: PutAs) -> Self {
        Self { put_as, ..self }
    }

    /// The same body, with another counter of what moved.
    pub(super) fn counted_by(self, moved: Moved) -> Self {
        Self { moved, ..self }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        let bytes = bytes.into();
        let crc32 = crc32fast::hash(&bytes);
        Self { bytes, crc32, moved: Moved::default(), put_as: PutAs::default() }
    }
}

impl Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes, crc32 {:08x})", self.bytes.len(), self.crc32)
    }
}

/// On what condition a put is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Only if no object has the name (`If-None-Match: *`); otherwise [`super::Error::Exists`].
    IfAbsent,
    /// In any case: replaces what is there. No object of a vault is put this way.
    Always,
}

/// What a store returns for a put that it carried out.
#[derive(Clone, Debug)]
pub struct PutReply {
    /// The store's clock at the answer, to the second.
    pub time: SystemTime,
    /// The CRC-32 of what the store took, if it returns one.
    pub crc32: Option<u32>,
    /// The entity tag, without its quotes, if it returns one.
    pub etag: Option<String>,
}

/// An object's bytes, or the part of them that was asked for.
#[derive(Clone)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Bytes,
    /// The length of the whole object.
    pub object_length: u64,
    /// The store's clock at the answer.
    #[allow(dead_code, reason = "what a store must say; conformance reads it")]
    pub time: SystemTime,
}

impl Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetched({} of {} bytes)", self.bytes.len(), self.object_length)
    }
}

/// What a store tells of an object.
#[derive(Clone, Debug)]
pub struct HeadReply {
    /// Its length in bytes.
    pub length: u64,
    /// When it was put, by the store's clock.
    #[allow(dead_code, reason = "what a store must say; conformance reads it")]
    pub modified: SystemTime,
    /// The CRC-32 of the whole object, if the store returns one.
    pub crc32: Option<u32>,
    /// The entity tag, without its quotes, if it returns one.
    pub etag: Option<String>,
    /// The store's clock at the answer.
    pub time: SystemTime,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// When it was put, by the store's clock.
    pub modified: SystemTime,
}

/// Where a page of a listing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the first name.
    First,
    /// After this name, in byte order.
    After(String),
    /// Where the page before ended, as the store's own token.
    Token(String),
}

impl Begin {
    /// The name or token, for stores whose token is the last name.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::First => None,
            Self::After(name) | Self::Token(name) => Some(name),
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The objects, in the byte order of their names if the store keeps to it. There may be none although more
    /// follow.
    pub objects: Vec<Listed>,
    /// Where the next page begins; `None` when this is the last.
    pub more: Option<Begin>,
    /// The store's clock at the answer.
    pub time: SystemTime,
}

/// A store of objects. Names are UTF-8 of at most 512 bytes: segments of ASCII letters, digits and `-_.=` between
/// single slashes, none of them `.` or `..`.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// Puts an object, whole or not at all.
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply>;

    /// An object's bytes, or those of `range`, which must not be empty and must lie within the object.
    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched>;

    /// What the store tells of an object.
    async fn head(&self, name: &str) -> Result<HeadReply>;

    /// A page of the objects whose names begin with `prefix`. It may hold others, too.
    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing>;

    /// Deletes objects. A missing one is no error.
    async fn delete(&self, names: &[String]) -> Result<()>;
}
