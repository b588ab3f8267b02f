//! The way to the bucket: staged packs, then commits, in order; backpressure when it does not keep up.

mod disk;
mod error;
#[allow(dead_code)] // the uploader that uses the rest lands next
mod packs;
mod recover;
mod reserve;
mod staging;

pub use disk::{Directory, Disk, DiskFile};
pub use error::{Error, Result};
pub use recover::{Footers, Recovered};
pub use reserve::{Reservation, StagingLimits, cost};
pub use staging::{OpenPack, PackHold, Staging, Usage, pack_object};
