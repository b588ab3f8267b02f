//! The object store: a place that keeps bytes under names, and is trusted with nothing else.
//!
//! Other rooms see [`Bucket`] alone: every request through it has a deadline, is repeated while
//! that may help, and what it put or fetched is verified. Below the door is the trait [`Store`] with
//! three backends ([`S3Store`], [`DirectoryStore`], [`MemoryStore`]) and the decorators that
//! `Bucket` is made of: `Counted`, then `Slotted`, `Checked` and `Retrying`, outermost last. What an owner allows
//! ([`crate::types::StoreLimits`]) is kept by `Slotted` (requests at once) and `Flow` (bytes a second), on the bodies. [`Faulty`] is a
//! decorator for tests: it fails by script. [`conformance`] is one suite that every backend passes.
//!
//! Assumed of a store, and nothing else: read-after-write, list-after-write, an atomic put, one
//! winner of a conditional put, a clock that goes forward.

mod bucket;
mod bucket_status;
mod checked;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod counted;
mod deadlines;
mod directory;
mod error;
#[cfg(any(test, feature = "testing"))]
mod faulty;
mod flow;
#[cfg(feature = "testing")]
mod fuzzing;
#[cfg(any(test, feature = "testing"))]
mod lagging;
mod line;
mod lister;
#[cfg(any(test, feature = "testing"))]
mod memory_store;
mod object;
mod pace;
mod probe;
mod quirks;
mod request_failures;
mod retry;
mod rights;
mod s3;
mod slots;
#[cfg(test)]
mod tests;
mod uploaded;
mod url;

pub use bucket::Bucket;
pub use counted::Counts;
pub use deadlines::Deadlines;
pub use directory::DirectoryStore;
pub use error::{Cause, Error, Result};
#[cfg(any(test, feature = "testing"))]
pub use faulty::{Fault, Faulty, On, StoreRequest, Verb};
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;
#[cfg(any(test, feature = "testing"))]
pub use lagging::Lagging;
pub use line::Urgency;
pub use lister::Lister;
#[cfg(any(test, feature = "testing"))]
pub use memory_store::MemoryStore;
pub use object::{
    Begin, Body, Fetched, HeadReply, Listed, Listing, Moved, OBJECT_MAX, Put, PutAs, PutReply,
    Store,
};
pub use probe::Conditional;
pub use rights::Rights;
pub use s3::{S3Credentials, S3Options, S3Store};
pub use uploaded::Uploaded;
pub use url::{StoreUrl, UrlError};
