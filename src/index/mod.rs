//! The index: the map of records as it is now.
//!
//! Three layers, newest first (J9): the memtable holds the records that changed a moment ago, sled those that changed
//! since the *base*, and the base, pages of a checkpoint that are read on demand, all others. Memtable and sled are the
//! *delta*. All of it can be deleted at any time at no loss but time.

mod bring_pace;
mod change;
mod draft;
mod drainer;
mod error;
#[cfg(feature = "testing")]
mod fuzzing;
mod inner;
mod kept;
mod layers;
mod memtable;
mod point;
mod range_merge;
mod rebase;
mod replay;
mod sled_db;
mod sled_delta;
#[cfg(test)]
mod tests;
mod totals;
mod view;

pub use change::{Index, IndexMemory, IndexOptions};
pub use draft::Draft;
pub use error::{Error, Result};
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;
pub use kept::{PINS_MAX, RETENTION};
pub use point::Point;
pub use totals::Totals;
pub use view::View;
