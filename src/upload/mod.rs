//! The way to the bucket: staged packs, then commits, in order; backpressure when it does not keep up.
//!
//! A pack is made by `content` in [`Staging`], and from its closing on it is in the queue. The [`Uploader`] puts packs in
//! parallel and verified, then the journal's transactions as commits, each when the bucket has all that it refers to.
//! Only a `log::Receipt` makes anything sent. [`Barrier`] makes packs and journal durable on this machine, in that order, and
//! lets packs leave for the cache once nothing needs them here.
//!
//! Locks: the table of packs, the accounts of the room and the wire are leaves; neither is held across I/O (but for one statvfs), an
//! `await`, or the other. `Staging::appending` is called under the journal's append lock.

mod barrier;
mod bodies;
mod commits;
mod dead;
mod disk;
mod error;
mod health;
mod link;
mod packs;
mod pipeline;
mod recover;
mod reserve;
mod send;
mod staging;
mod steps;
mod tail;
#[cfg(test)]
mod tests;
mod wire;

pub use barrier::{Adopt, Barrier, SYNC_EVERY};
pub use disk::{Directory, Disk, DiskFile};
pub use error::{Error, Result};
pub use health::Trouble;
pub use pipeline::{Hooks, Parts, Status, UploadLimits, Uploader};
pub use recover::{Footers, Recovered};
pub use reserve::{Reservation, StagingLimits, cost};
pub use staging::{OpenPack, PackHold, Staging, Usage, pack_object};
pub use steps::{Step, Steps};
