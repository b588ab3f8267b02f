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
mod rooms;
mod session;
mod set_id;
mod shown;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use rooms::{SnapshotError, SnapshotRoom, Snapshots};
pub use session::{MountFlags, MountOptions, Mounted, mount};
pub use shown::ShownAs;
