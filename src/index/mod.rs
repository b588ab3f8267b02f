//! The index: the map of records as it is now.
//!
//! Three layers, newest first (J9): records changed a moment ago in memory, records changed
//! since the *base* in sled, and the base itself: pages of a checkpoint, read on demand.
//! All of it can be deleted at any time at no loss but time.

mod change;
mod draft;
mod drainer;
mod error;
mod layers;
mod point;
mod scan;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use change::{Index, IndexOptions};
pub use draft::Draft;
pub use error::{Error, Result};
pub use layers::Totals;
pub use point::Point;
pub use view::View;
