//! The log: the journal, which holds transactions on this machine; the commits, which hold them in the bucket; and
//! the chain that the commits form. It also decides who may write (W1).
//!
//! `PROTOCOL.md` gives the order in which things are written; names such as J3 or C2 in comments are its rules.

mod chain;
mod commit;
mod committer;
mod error;
#[cfg(feature = "testing")]
mod fuzzing;
mod journal;
mod kept_commits;
mod links;
mod listed;
mod receipt;
mod reread;
mod seen;
#[cfg(test)]
mod testing;

pub use chain::{Chain, ChainedCommit, Head};
pub use commit::{
    COMMIT_MAX, CommitContent, CommitHeader, commit_name, open_commit, parse_commit_name,
    seal_commit,
};
pub use committer::{COMMIT_BYTES, CommitError, Committer, LogEnd};
pub use error::{Error, Result};
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;
pub use journal::{
    DROPPED_AT_ONCE, Damage, DroppedPack, Inspection, Journal, JournalOptions, JournalRoom,
    Journaled, Mark, NotedCommit, PackWatcher, RoomClass, UnsentTx,
};
pub use kept_commits::KeptCommits;
pub use links::Links;
pub use listed::ListedCommits;
pub use receipt::{CommitSize, Receipt};
pub use reread::{DamageError, open_object};
pub use seen::Seen;
#[cfg(test)]
pub(crate) use testing::{Ground, NOTHING_NOTED};
