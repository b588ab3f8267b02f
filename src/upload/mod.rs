//! The way to the bucket: staged packs, then commits, in order; backpressure when it does not keep up.

mod error;
mod staging;

pub use error::{Error, Result};
pub use staging::{
    Footers, OpenPack, PackHold, Reservation, Staging, StagingLimits, Usage, pack_object,
};
