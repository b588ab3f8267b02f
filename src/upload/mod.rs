//! The way to the bucket: staged packs, then commits, in order, with backpressure when uploads do not keep up.
//!
//! `content` makes packs in [`Staging`]; closing a pack puts it in the queue. The [`Uploader`] puts packs in parallel and
//! verifies them, then writes the journal's transactions as commits, each once the bucket has all that it refers to. Nothing
//! counts as sent without a `log::Receipt` (C5). [`Barrier`] makes packs and journal durable on this machine, in that order,
//! and lets packs leave for the cache once nothing needs them here.
//!
//! Locks: the pack table, the accounts of the room and the uploads in flight are leaves. None is held across I/O (except one
//! statvfs), an `await`, or another of them. `Staging::appending` is called under the journal's append lock.

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
