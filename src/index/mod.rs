//! The index: the map of records as it is now.
//!
//! It has three layers, newest first (J9). The memtable holds the records that changed a moment ago, and sled those
//! that changed since the *base*. The base holds all others: it is a checkpoint, whose pages are read on demand.
//! Memtable and sled together are the *delta*. The index can be deleted at any time; all that is lost is the time to
//! make it again.

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
mod row_filter;
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
