//! Looking back: which state is meant, whether it is still promised (K4), and the map at that time.

mod copy;
mod find;
mod history;
mod index;
mod kept;
mod newest;
mod opened;
mod past_dir;
mod recover;
mod restore;
mod share;
mod version;

pub use copy::{OnRestore, Restored};
pub(super) use find::{PastState, States};
pub(super) use index::index_of;
pub use opened::Past;
pub(super) use past_dir::{PastDir, clear};
pub use recover::{AsideFolder, Recovery};
pub use restore::Restoring;
#[cfg(test)]
pub(super) use share::Sharing;
pub use version::{FileVersion, Happened, HistoryStep, OnHistory};
