//! Looking back: which state is meant, whether it is still promised (K4), and the map as it was then.

mod copy;
mod find;
mod history;
mod index;
mod opened;
mod restore;
mod version;

pub use copy::{OnRestore, Restored};
pub(super) use find::{PastState, States};
pub(super) use index::index_of;
pub(super) use opened::clear;
pub use restore::Restoring;
pub use version::{FileVersion, Happened, HistoryStep, OnHistory};

use std::time::{Duration, SystemTime};

use crate::types::StateAt;

/// What was asked for, as a moment of the store's clock, if it is one.
fn moment(at: &StateAt, now: SystemTime) -> Option<SystemTime> {
    match at {
        // People and stores say whole seconds: such a one means all of it.
        StateAt::Time(time) => {
            let after = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let whole = after.subsec_nanos() == 0;
            Some(if whole { *time + Duration::from_nanos(999_999_999) } else { *time })
        }
        StateAt::Ago(ago) => Some(now.checked_sub(*ago).unwrap_or(SystemTime::UNIX_EPOCH)),
        StateAt::Commit(_) | StateAt::Named(..) => None,
    }
}
