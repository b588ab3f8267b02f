//! Making a vault.

use bytes::Bytes;

use super::key_slots::{first_slot, seal_recovery};
use super::superblock::{self, Superblock, Unlocked, has_the_rest};
use super::{Error, Result};
use crate::crypto::{Argon2Params, FIRST_EPOCH, Keys, MasterKey, Passphrase, RecoveryKey, random};
use crate::store::{self, Bucket, Conditional};
use crate::types::{Generation, VaultId};

const README: &str = "This bucket (or prefix) is an s3vault: files encrypted on the machines of their owner.\n\
    Do not change or delete objects here; `s3vault mount` with the passphrase or recovery key opens it.\n";

/// What will open the vault, and whether it gets a recovery key.
pub struct InitSecrets {
    /// The passphrase.
    pub passphrase: Passphrase,
    /// How much work one guess at the passphrase takes.
    pub argon: Argon2Params,
    /// Whether a recovery key is made and shown.
    pub recovery: bool,
}

impl InitSecrets {
    /// With the default work factor.
    pub fn new(passphrase: Passphrase) -> Self {
        Self { passphrase, argon: Argon2Params::default(), recovery: true }
    }
}

/// A vault that was just made.
pub struct Initialised {
    /// Its id.
    pub vault: VaultId,
    /// Its keys.
    #[allow(dead_code, reason = "tests open it with them")]
    pub unlocked: Unlocked,
    /// What the test of conditional puts found (W6).
    pub conditional: Conditional,
}

/// Whether the bucket or prefix holds a vault, or remains of one: no other may be made over it.
pub async fn exists(bucket: &Bucket) -> Result<bool> {
    Ok(!bucket.list_all("superblock/").await?.0.is_empty() || has_the_rest(bucket).await?)
}

/// Makes a vault in an empty bucket or prefix. `show` hands the recovery key to its owner before the vault exists: the key
/// is stored nowhere, so if it cannot be shown, nothing is made.
///
/// # Errors
/// [`Error::Exists`]; [`Error::NoConditionalPuts`] unless `single_machine` (W6); [`Error::NotShown`]; what the store says.
pub async fn init(
    bucket: &Bucket,
    secrets: InitSecrets,
    single_machine: bool,
    show: impl FnOnce(&RecoveryKey) -> std::io::Result<()>,
) -> Result<Initialised> {
    if exists(bucket).await? {
        return Err(Error::Exists);
    }
    let conditional = bucket.probe_conditional().await?;
    match conditional {
        Conditional::NotDisproved => {}
        _ if !single_machine => return Err(Error::NoConditionalPuts),
        Conditional::Ignored => {}
        Conditional::Refused => bucket.do_without_conditions(),
    }
    let master = MasterKey::generate();
    let vault = VaultId(random());
    let keys = Keys::derive(&master, vault, FIRST_EPOCH);
    let InitSecrets { passphrase, argon, recovery } = secrets;
    let mut unlocked = Unlocked {
        vault,
        master,
        older: Vec::new(),
        keys,
        generation: Generation(1),
        sealed: Bytes::new(),
        copied: None,
    };
    let mut slots = vec![first_slot(&unlocked, &passphrase, argon)?];
    if recovery {
        let recovery = RecoveryKey::generate();
        slots.push(seal_recovery(&unlocked, &recovery)?);
        show(&recovery).map_err(Error::NotShown)?;
    }
    let superblock = Superblock::first(vault, slots);
    unlocked.sealed = superblock::sealed(&unlocked.keys, &superblock).1;
    match bucket.put_new("README", README.into()).await {
        Ok(_) | Err(store::Error::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match superblock::write(bucket, &unlocked.keys, &superblock).await {
        Err(Error::Store(store::Error::Exists { .. })) => return Err(Error::Exists),
        other => other?,
    }
    Ok(Initialised { vault, unlocked, conditional })
}
