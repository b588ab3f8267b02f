//! A vault as a whole: made, opened, watched, synced, closed. Builds every room below.

mod aside;
mod check;
mod checkpointer;
mod closing;
mod error;
mod init;
mod keeper;
mod kind;
mod machine;
mod manners;
mod open;
mod room;
mod running;
mod status;
mod superblock;
mod survey;
#[cfg(test)]
mod tests;

pub use check::{OnProgress, Problem, Report, check};
pub use error::{Error, Result};
pub use init::{InitSecrets, Initialised, exists, init};
pub use kind::Kind;
pub use machine::{Machine, MachineLock, is_held};
pub use running::Vault;
pub use status::{Progress, Status};
pub use superblock::{Secret, Superblock, Unlocked, unlock, vault_id, which_opens};

pub use crate::crypto::{Argon2Params, Error as CryptoError, MasterKey, Passphrase, RecoveryKey};
pub use crate::store::{
    Bucket, Conditional, Deadlines, Error as StoreError, S3Credentials, S3Options, StoreUrl,
};
pub use crate::vfs::FsyncTo as Fsync;

use std::path::PathBuf;

/// How a vault is opened.
pub struct Options {
    /// Where it is.
    pub bucket: Bucket,
    /// Its keys.
    pub unlocked: Unlocked,
    /// `<state dir>/<vault id>`.
    pub state_dir: PathBuf,
    /// This machine.
    pub machine: Machine,
    /// Bytes of memory for caches and buffers.
    pub memory: u64,
    /// Bytes of disk for cache and staging; `None`: 20 GiB, or a fifth of what is free.
    pub cache_size: Option<u64>,
    /// Nothing is written, here or in the bucket.
    pub read_only: bool,
    /// Claim the vault though another machine has not released it (W2).
    pub take_over: bool,
    /// Open the bucket though it went back since this machine saw it (O2).
    pub accept_rollback: bool,
    /// Use a store that ignores conditional puts (W6).
    pub single_machine: bool,
    /// How far `fsync` goes.
    pub fsync: Fsync,
    /// For the message to whoever mounts it a second time.
    pub mountpoint: String,
}
