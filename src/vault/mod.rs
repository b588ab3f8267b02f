//! A vault as a whole: it is made, opened, watched, synced and closed here. Builds all the rooms below it.

mod aside;
mod assembly;
mod budgets;
mod check;
mod checkpointer;
mod claiming;
mod closing;
mod damaged;
mod disk_space;
mod durability;
mod error;
mod error_class;
mod following;
#[cfg(feature = "testing")]
mod fuzzing;
mod head_recorder;
mod index_room;
mod init;
mod journal_trim;
mod key_changer;
mod key_slots;
mod no_state;
mod old_states;
mod open;
mod open_vault;
mod pack_footer;
mod past;
mod reader;
mod reclaiming;
mod renewing;
mod resume;
mod rewriting;
mod rotation;
mod state_dir;
mod store_facts;
mod superblock;
mod superblock_copy;
mod survey;
#[cfg(test)]
mod tests;
mod this_machine;
mod unlocking;
mod unsent_ages;

pub use check::{CheckReport, Finding, OnProgress, check};
pub use error::{Error, Result};
pub use error_class::ErrorClass;
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;
pub use init::{InitSecrets, Initialised, exists, init};
pub use key_slots::{
    ChangedKeys, EpochInfo, EpochNeed, KeyChange, SlotInfo, measured_argon, seal_passphrase,
    seal_recovery,
};
pub use no_state::NoState;
pub use old_states::SnapshotInfo;
pub use open::has_unsent;
pub use open_vault::Vault;
pub use past::{
    AsideFolder, FileVersion, Happened, HistoryStep, OnHistory, OnRestore, Past, Recovery,
    Restored, Restoring,
};
pub use rotation::{NewKey, Rotation};
pub use superblock::{OpenedBySecret, Superblock, Unlocked, vault_id, which_opens};
pub use superblock_copy::{SuperblockCopy, back_up};
pub use this_machine::{Machine, MachineLock, is_held};
pub use unlocking::{open_by, unlock};

pub use crate::crypto::{
    Argon2Params, Error as CryptoError, KeySlot, LABEL_MAX, MasterKey, Passphrase, RecoveryKey,
};
pub use crate::reclaim::{ObjectTally, Reclaimed};
pub use crate::records::Pin;
pub use crate::store::{
    Bucket, Conditional, Deadlines, Error as StoreError, Rights, S3Credentials, S3Options, StoreUrl,
};
pub use crate::vfs::FsyncTo as Fsync;

use std::path::PathBuf;
use std::time::Duration;

use crate::types::{StateAt, StoreLimits};

/// How a vault is opened.
pub struct VaultOptions {
    /// Where the vault lies.
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
    /// Which past state to show, read-only; `None`: the current one.
    pub at: Option<StateAt>,
    /// Nothing is written, here or in the bucket.
    pub read_only: bool,
    /// How often a reader in use looks for what others wrote (W5); `None`: it keeps showing the state it opened at.
    pub refresh: Option<Duration>,
    /// Claim the vault though another machine has not released it (W2).
    pub take_over: bool,
    /// Open the bucket though it went back to an older state since this machine saw it (O2).
    pub accept_rollback: bool,
    /// Go on without unsent changes that are damaged on this disk (J3).
    pub accept_damage: bool,
    /// Use a store that ignores conditional puts (W6).
    pub single_machine: bool,
    /// How far `fsync` goes.
    pub fsync: Fsync,
    /// Named in the error that a second mount gets.
    pub mountpoint: String,
}

impl VaultOptions {
    /// Checks that the store takes objects with the storage class and the tags of `limits`.
    async fn try_put_as(&self, limits: &StoreLimits) -> Result<()> {
        let plain = limits.storage_class.is_none() && limits.tags.is_empty();
        if plain || self.read_only {
            return Ok(());
        }
        self.bucket.try_put_as(limits).await.map_err(|error| match error {
            error if error.is_unanswered() => error.into(),
            error => Error::PutAs(error),
        })
    }
}
