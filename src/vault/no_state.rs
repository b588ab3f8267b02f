//! Why a past state cannot be shown.

use std::fmt;

use crate::types::{CommitNo, Timestamp};

/// Why a past state is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoState {
    /// No snapshot has that name.
    NoSnapshot {
        /// The name asked for.
        name: String,
        /// Names of existing snapshots.
        there: Vec<String>,
    },
    /// The vault has no such commit.
    NoCommit {
        /// The number asked for.
        number: u64,
        /// The last commit.
        last: CommitNo,
    },
    /// No other version of a file is kept than the present one.
    NoOther,
    /// The state is older than the oldest that is kept.
    TooOld {
        /// The oldest.
        oldest: CommitNo,
        /// When that was put, by the store's clock, if known.
        time: Option<Timestamp>,
        /// Whether older ones were deleted; if not, there never were any.
        deleted: bool,
    },
}

impl fmt::Display for NoState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSnapshot { name, there } if there.is_empty() => {
                write!(f, "there is no snapshot {name}, nor any other")
            }
            Self::NoSnapshot { name, there } => {
                write!(f, "there is no snapshot {name}; there are: {}", there.join(", "))
            }
            Self::NoCommit { number, last } => {
                write!(f, "there is no commit {number}; the last one is {}", last.0)
            }
            Self::NoOther => {
                f.write_str("no other version of it is kept than the one that is there")
            }
            Self::TooOld { oldest, deleted, .. } => {
                let since = if *deleted { "that is kept" } else { "that there is" };
                write!(f, "the oldest state {since} is that of commit {}", oldest.0)
            }
        }
    }
}
