//! Machine-related helpers for the tests of all modules.

mod simulated;
mod simulated_disk;
mod small_disk;
mod syscalls;

pub(crate) use simulated::Simulated;
pub(crate) use simulated_disk::{DiskFault, SimulatedDisk, survivor};
pub(crate) use small_disk::SmallDisk;
pub(crate) use syscalls::{Aio, FileHandle, get_xattr, listen_as, set_xattr, truncate};
