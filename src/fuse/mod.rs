//! The kernel's side: decodes FUSE requests, calls the vfs, and replies. Only this module uses fuser, and wraps it
//! thinly.

mod decode;
mod dispatch;
mod error;
mod filesystem;
mod helper;
mod listing;
pub mod mountpoint;
mod notify;
mod operation;
mod ops;
mod reply;
mod session;
mod set_id;
mod shown;
mod snapshot_states;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use session::{MountFlags, MountOptions, Mounted, mount};
pub use shown::ShownAs;
pub use snapshot_states::{OpenedSnapshot, SnapshotError, Snapshots};
