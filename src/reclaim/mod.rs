//! Deletion in the bucket: what no promised state needs goes (K4), in the one order in which that is safe (K5).
//!
//! [`Reclaimer::run`] finds out what is promised ([`promised`]), goes over the objects of each kind page by page ([`sweep`]),
//! judges each ([`fate`]), and hands what goes to [`deletion`]: freeze, receipt, delete. It decides nothing by what is on
//! this machine, but for what staging holds.

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
