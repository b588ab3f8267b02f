//! The superblock: what a vault is, in the clear, under a MAC (K6, O1).

use minicbor::{Decode, Encode};

use super::{Error, Result};
use crate::crypto::{KeySlot, Keys, MasterKey, Passphrase, unlock as unlock_slots};
use crate::store::Bucket;
use crate::types::{Generation, KeyEpoch, Timestamp, VaultId};

/// The format that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// A superblock is a few KiB; what is longer is refused.
const LENGTH_MAX: usize = 64 << 10;

/// What a vault says of itself before it is unlocked.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Superblock {
    /// [`FORMAT`] of the vault.
    #[n(0)]
    pub format: u32,
    /// Features without which the vault cannot be read. None is defined yet.
    #[n(1)]
    pub required: Vec<u32>,
    /// Features that a reader may ignore. None is defined yet.
    #[n(2)]
    pub optional: Vec<u32>,
    /// The vault's id.
    #[n(3)]
    pub vault: VaultId,
    /// The superblock's own generation.
    #[n(4)]
    pub generation: Generation,
    /// The current key epoch.
    #[n(5)]
    pub epoch: KeyEpoch,
    /// The master key, sealed under each secret that opens the vault.
    #[n(6)]
    pub slots: Vec<KeySlot>,
    /// When the vault was made.
    #[n(7)]
    pub created: Timestamp,
}

/// The object: the superblock's bytes, and HMAC-SHA-256 of them under a key of the master key.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    mac: Vec<u8>,
}

/// What opens a vault.
pub enum Secret {
    /// A passphrase, or the recovery key.
    Passphrase(Passphrase),
    /// The master key itself, from a process that unlocked the vault (the daemon's front).
    Master(MasterKey),
}

/// A vault whose master key is known.
#[derive(Clone)]
pub struct Unlocked {
    /// The vault's id.
    pub vault: VaultId,
    /// The key of everything.
    pub master: MasterKey,
    /// Its subkeys.
    pub keys: Keys,
    /// The superblock that it was unlocked with.
    pub generation: Generation,
}

fn name(generation: Generation) -> String {
    format!("superblock/{generation}")
}

/// The highest superblock in the bucket, not yet verified: that takes the key.
async fn fetch(bucket: &Bucket) -> Result<(Superblock, Wire)> {
    let (listed, _) = bucket.list_all("superblock/").await?;
    let highest = listed
        .iter()
        .filter_map(|object| object.name.strip_prefix("superblock/")?.parse::<Generation>().ok())
        .max()
        .ok_or(Error::NoVault)?;
    let object = name(highest);
    let bytes = bucket.get(&object, None).await?;
    let bad = |why: &str| Error::Superblock { object: object.clone(), why: why.to_owned() };
    if bytes.len() > LENGTH_MAX {
        return Err(bad("it is longer than a superblock can be"));
    }
    let wire: Wire = minicbor::decode(&bytes).map_err(|error| bad(&error.to_string()))?;
    let superblock: Superblock =
        minicbor::decode(&wire.body).map_err(|error| bad(&error.to_string()))?;
    if superblock.generation != highest {
        return Err(bad("it says that it is another generation"));
    }
    if superblock.format > FORMAT || !superblock.required.is_empty() {
        return Err(Error::Format { format: superblock.format });
    }
    Ok((superblock, wire))
}

fn verified(superblock: &Superblock, wire: &Wire, master: MasterKey) -> Result<Unlocked> {
    let keys = Keys::derive(&master, superblock.vault, superblock.epoch);
    if !keys.verify_superblock_mac(&wire.body, &wire.mac) {
        let why = "its MAC is wrong: it was changed by someone without the key".into();
        return Err(Error::Superblock { object: name(superblock.generation), why });
    }
    Ok(Unlocked { vault: superblock.vault, master, keys, generation: superblock.generation })
}

/// Finds the vault in `bucket` and its master key. Argon2id takes about a second of CPU here.
///
/// # Errors
/// [`Error::NoVault`], [`Error::WrongSecret`], [`Error::Superblock`] for one that does not
/// verify (an older one is not tried: O1), [`Error::Format`].
pub async fn unlock(bucket: &Bucket, secret: &Secret) -> Result<Unlocked> {
    let (superblock, wire) = fetch(bucket).await?;
    let master = match secret {
        Secret::Passphrase(secret) => {
            unlock_slots(&superblock.slots, superblock.vault, superblock.epoch, secret)?
        }
        Secret::Master(master) => master.clone(),
    };
    verified(&superblock, &wire, master)
}

/// The id of the vault in a bucket, without its key; not verified.
pub async fn vault_id(bucket: &Bucket) -> Result<VaultId> {
    Ok(fetch(bucket).await?.0.vault)
}

/// Writes a superblock of a generation that is not there yet, and reads it back.
pub(super) async fn write(bucket: &Bucket, keys: &Keys, superblock: &Superblock) -> Result<()> {
    let body = crate::log::encode_value(superblock).to_vec();
    let mac = keys.superblock_mac(&body).to_vec();
    let bytes = crate::log::encode_value(&Wire { body, mac });
    let object = name(superblock.generation);
    bucket.put_new(&object, bytes.clone()).await?;
    if bucket.get(&object, None).await? != bytes {
        let why = "the store does not return what was just written to it".into();
        return Err(Error::Superblock { object, why });
    }
    Ok(())
}
