//! Making a vault.

use super::superblock::{self, FORMAT, Superblock, Unlocked};
use super::{Error, Result};
use crate::crypto::{Argon2Params, FIRST_EPOCH, KeySlot, Keys, MasterKey, Passphrase, RecoveryKey, random};
use crate::store::{self, Bucket, Conditional};
use crate::types::{Generation, Timestamp, VaultId};

const README: &str = "This bucket (or prefix) is an s3vault: files encrypted on the machines of their owner.\n\
    Do not change or delete objects here; `s3vault mount` with the passphrase or recovery key opens it.\n";

/// A vault that was just made.
pub struct Initialised {
    /// Its keys.
    pub unlocked: Unlocked,
    /// The recovery key, which is printed once and kept nowhere.
    pub recovery: RecoveryKey,
    /// Whether the store honours conditional puts (W6).
    pub conditional: Conditional,
}

/// Makes a vault in an empty bucket or prefix.
///
/// # Errors
/// [`Error::VaultExists`]; [`Error::NoConditionalPuts`] unless `single_machine` (W6); what
/// the store says.
pub async fn init(
    bucket: &Bucket,
    passphrase: &Passphrase,
    params: Argon2Params,
    single_machine: bool,
) -> Result<Initialised> {
    let (found, _) = bucket.list_all("superblock/").await?;
    if !found.is_empty() {
        return Err(Error::VaultExists);
    }
    let conditional = bucket.probe_conditional().await?;
    if matches!(conditional, Conditional::Ignored { .. }) && !single_machine {
        return Err(Error::NoConditionalPuts);
    }
    let master = MasterKey::generate();
    let vault = VaultId(random());
    let keys = Keys::derive(&master, vault, FIRST_EPOCH);
    let recovery = RecoveryKey::generate();
    let generation = Generation(1);
    let slots = vec![
        KeySlot::seal_with_passphrase(&master, vault, FIRST_EPOCH, passphrase, params)?,
        KeySlot::seal_with_recovery_key(&master, vault, FIRST_EPOCH, &recovery),
    ];
    let superblock = Superblock {
        format: FORMAT,
        required: Vec::new(),
        optional: Vec::new(),
        vault,
        generation,
        epoch: FIRST_EPOCH,
        slots,
        created: Timestamp::now(),
    };
    match bucket.put_new("README", README.into()).await {
        Ok(_) | Err(store::Error::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match superblock::write(bucket, &keys, &superblock).await {
        Err(Error::Store(store::Error::Exists { .. })) => return Err(Error::VaultExists),
        other => other?,
    }
    Ok(Initialised { unlocked: Unlocked { master, keys, generation }, recovery, conditional })
}
