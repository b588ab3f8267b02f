//! The log: the journal that holds transactions on this machine, the commits that hold them in the bucket, and the
//! chain that they form. Who may write is decided here (W1).
//!
//! The order in which things are written is `PROTOCOL.md`; names such as J3 or C2 in
//! comments are its rules.

mod ask;
mod chain;
mod commit;
mod committer;
#[cfg(test)]
mod committer_tests;
mod disk;
mod error;
mod journal;
mod receipt;
mod seen;

pub use ask::{Opening, open_object};
pub use chain::{Chain, Head, Link, commit_name, parse_commit_name};
pub use commit::{COMMIT_MAX, CommitContent, CommitHeader, open_commit, seal_commit};
pub use committer::{COMMIT_BYTES, CommitError, Committer, LogEnd};
pub use disk::{Disk, RealDisk};
pub use error::{Error, Result};
pub use journal::{
    DROPPED_AT_ONCE, Damage, DroppedPack, Inspection, Journal, JournalOptions, JournalRoom,
    Journaled, Mark, Need, NotedCommit, PackWatcher, UnsentTx,
};
pub use receipt::{CommitSize, Receipt};
pub use seen::Seen;
