//! Looking back: which state is meant, whether it is still promised (K4), and the map as it was then.

mod find;
mod index;

pub(super) use find::{PastState, States};
pub(super) use index::index_of;

use std::time::SystemTime;

use crate::types::StateAt;

/// What was asked for, as a moment of the store's clock, if it is one.
fn moment(at: &StateAt, now: SystemTime) -> Option<SystemTime> {
    match at {
        StateAt::Time(time) => Some(*time),
        StateAt::Ago(ago) => Some(now.checked_sub(*ago).unwrap_or(SystemTime::UNIX_EPOCH)),
        StateAt::Commit(_) | StateAt::Named(..) => None,
    }
}
