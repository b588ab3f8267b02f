//! The log: records and transactions, the journal that holds them on this machine, the
//! commits and checkpoints that hold them in the bucket, and who may write (claims).
//!
//! The order in which things are written is `PROTOCOL.md`; names such as J3 or C2 in
//! comments are its rules.

mod ask;
mod chain;
mod checkpoint;
mod claim;
mod commit;
mod committer;
#[cfg(test)]
mod committer_tests;
mod disk;
mod error;
mod journal;
mod receipt;
mod records;
mod seen;
mod transaction;

pub use ask::open_object;
pub use chain::{Chain, Head, Link, commit_name, parse_commit_name};
pub use checkpoint::{
    Base, BuildContext, CommitSource, Found, MANIFEST_MAX, MANIFESTS, Manifest, Miss, Newest,
    PackInfo, PageRecords, PageRef, Pins, Scan, SinceCheckpoint, Sizes, SourcedCommit, Table,
    build, manifest_name, newest, open_page, page_name,
};
pub use claim::{Claimant, WriterClaim};
pub use commit::{COMMIT_MAX, CommitContent, CommitHeader, open_commit, seal_commit};
pub use committer::{COMMIT_BYTES, CommitError, Committer, LogEnd};
pub use disk::{Disk, RealDisk};
pub use error::{Error, Result};
pub use journal::{
    DROPPED_AT_ONCE, Damage, DroppedPack, Inspection, Journal, JournalOptions, JournalRoom,
    Journaled, Mark, Need, NotedCommit, PackWatcher, UnsentTx,
};
pub use receipt::{CommitSize, Receipt};
pub use records::{
    Entry, Inode, Key, MetaKey, Orphan, Xattr, decode_value, encode_value, extent_of,
};
pub use seen::Seen;
pub use transaction::{Change, TRANSACTION_MAX, Transaction};
