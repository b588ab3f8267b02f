//! The object store: it keeps bytes under names, and is trusted with nothing else.
//!
//! Other modules see only [`Bucket`]. Every request through it has a deadline, is repeated as long as that may help, and has its
//! bytes verified. Below it is the trait [`Store`], with three backends ([`S3Store`], [`DirectoryStore`], [`MemoryStore`]) and
//! the decorators that make up `Bucket`: `Counted`, then `Slotted`, `Checked` and `Retrying`, outermost last. `Slotted` (requests
//! at once) and `Flow` (bytes a second, on the bodies) enforce the owner's limits ([`crate::types::StoreLimits`]). [`Faulty`] is
//! a decorator for tests that fails by script. [`conformance`] is a suite that every backend passes.
//!
//! Only this is assumed of a store: read-after-write, list-after-write, atomic puts, one winner of a conditional put, and a clock
//! that goes forward.

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
