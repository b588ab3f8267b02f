//! The way to the bucket: staged packs, then commits, in order; backpressure when it does not keep up.
//!
//! `content` makes packs in [`Staging`]; a pack is in the queue as soon as it is closed. The [`Uploader`] puts packs in
//! parallel and verified, then the journal's transactions as commits, each when the bucket has all that it refers to.
//! Only a `log::Receipt` makes anything sent. [`Barrier`] makes packs and journal durable on this machine, in that order, and
//! lets packs leave for the cache once nothing needs them here.
//!
//! Locks: the table of packs, the accounts of the room and what is in flight are leaves; none is held across I/O (but for
//! one statvfs), an `await`, or another of them. `Staging::appending` is called under the journal's append lock.

mod area;
mod backoff;
mod bandwidth;
mod barrier;
mod barrier_round;
mod buffer_pool;
mod commit_spans;
mod commits;
mod error;
mod freezer;
mod health;
mod in_flight;
mod job;
mod open_pack;
mod pack;
mod pack_names;
mod pack_table;
mod pack_writes;
mod pipeline;
mod recover;
mod ref_counts;
mod referred_parts;
mod reserve;
mod send;
mod send_queue;
mod settled;
mod staging;
mod steps;
#[cfg(test)]
mod tests;
mod unwritten;
mod uploader;
mod zeros_ahead;

pub use barrier::{Barrier, SYNC_EVERY};
pub use barrier_round::Adopt;
pub use error::{Error, Result};
pub use health::Trouble;
pub use open_pack::{OpenPack, PackHold};
pub use pack::StagedState;
pub use pack_names::pack_object;
pub use pipeline::{Hooks, UploadLimits};
pub use recover::{Footers, Recovered};
pub use referred_parts::ReferredParts;
pub use reserve::{Reservation, StagingLimits, cost};
pub use staging::{Staging, StagingUsage};
pub use steps::StepObserver;
pub use uploader::{Parts, UploadStatus, Uploader};
