//! Deletion in the bucket: removes what no promised state needs (K4), in the one safe order (K5).
//!
//! [`Reclaimer::run`] finds out what is promised ([`promised`]), goes over the objects of each kind page by page ([`sweep`]),
//! judges each one ([`fate`]), and hands those that go to [`deletion`]: freeze, receipt, delete. No decision depends on this
//! machine's local data, except on what staging holds.

mod deletion;
mod error;
mod fate;
#[cfg(test)]
mod model;
mod place;
mod promised;
mod reclaimed;
mod run;
mod runs;
mod sweep;

pub use error::{Error, Result};
pub use place::{ReclaimPlan, Reclaimer};
pub use reclaimed::{ObjectTally, Reclaimed, SparsePack};
pub use runs::{Pace, RunUnderWay, Runs};
