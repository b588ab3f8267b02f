//! Which past state of a vault to show.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{CommitNo, Timestamp};

/// A past state, as people name it. Times are by the store's clock: when commits were put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateAt {
    /// After the commit of this number.
    Commit(u64),
    /// The state at this time: after the last commit that was put no later.
    Time(SystemTime),
    /// The state this long ago.
    Ago(Duration),
    /// The snapshot of this name; if there is none, the state that the same text means otherwise.
    Named(String, Option<Box<StateAt>>),
}

/// The past state that a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// The last commit that it includes.
    pub commit: CommitNo,
    /// When that commit was put, by the store's clock.
    pub time: Timestamp,
    /// The snapshot by which it was requested.
    pub snapshot: Option<String>,
}
