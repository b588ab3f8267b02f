//! Which state of a vault somebody wants to look back at.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{CommitNo, Timestamp};

/// A state of the past, as people name it. Times are those of the store's clock: when commits were put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateAt {
    /// After the commit of this number.
    Commit(u64),
    /// As it was then: after the last commit that was put no later.
    Time(SystemTime),
    /// As it was so long ago.
    Ago(Duration),
    /// The snapshot of that name; if there is none, what the same words mean otherwise.
    Named(String, Option<Box<StateAt>>),
}

/// Of which moment a mount shows the state, if not of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// The last commit that is in it.
    pub commit: CommitNo,
    /// When that was put, by the store's clock.
    pub time: Timestamp,
    /// The snapshot that it was asked for as.
    pub snapshot: Option<String>,
}
