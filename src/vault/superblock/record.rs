//! What a superblock contains, its MAC, and which secret opens what.

use std::path::PathBuf;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::crypto::{
    EpochEnd, Error as CryptoError, FIRST_EPOCH, KeySlot, Keys, MasterKey, Passphrase, Place,
    unlock as unlock_slots,
};
use crate::types::{CommitNo, Generation, Hash, KeyEpoch, Timestamp, VaultId};
use crate::vault::{Error, Result};

/// The format that this code writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// The required feature of a vault with more than one key epoch.
pub(in crate::vault) const KEY_EPOCHS: u32 = 1;

/// A superblock is a few KiB; a longer object is refused.
pub(in crate::vault) const LENGTH_MAX: usize = 64 << 10;

/// What a vault says about itself before it is unlocked.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Superblock {
    /// `FORMAT` of the vault.
    #[n(0)]
    pub format: u32,
    /// Features without which the vault cannot be read: `KEY_EPOCHS` alone is defined.
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
    /// The earlier key epochs, ascending from the first; none if the key was never rotated (K7).
    #[n(8)]
    pub older: Option<Vec<OlderEpoch>>,
    /// Whether what older epochs sealed is being sealed anew, or was (K8).
    #[n(9)]
    pub renewal: Option<Renewal>,
}

/// A request to seal the whole vault with newer keys (K8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renewal {
    /// What epochs before this one sealed is to be sealed anew.
    #[n(0)]
    pub before: KeyEpoch,
    /// From this checkpoint on the map needs none of those epochs; `None` while the work goes on.
    #[n(1)]
    pub since: Option<CommitNo>,
}

/// An older key epoch: what it sealed may still be there, but it seals nothing new.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OlderEpoch {
    /// Its number.
    #[n(0)]
    pub epoch: KeyEpoch,
    /// No commit, manifest or page with a higher number is believed if this epoch sealed it. `None` while the rotation is
    /// under way.
    #[n(1)]
    pub last: Option<CommitNo>,
    /// Its master key, sealed with the newest epoch's key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    /// SHA-256 of the only manifest of this epoch from which the current vault may be opened; set together with `last`.
    #[n(3)]
    pub base: Option<Hash>,
}

impl OlderEpoch {
    /// Makes the record for a superblock of the epoch whose keys are `newest`.
    pub(in crate::vault) fn seal(
        newest: &Keys,
        epoch: KeyEpoch,
        master: &MasterKey,
        end: Option<EpochEnd>,
    ) -> Self {
        let sealed = newest.seal(Place::OlderKey(epoch), master.expose()).to_vec();
        let (last, base) = (end.map(|end| end.last), end.and_then(|end| end.base));
        Self { epoch, last, sealed, base }
    }

    /// How the epoch ended; `None` if it has not.
    pub(in crate::vault) fn end(&self) -> Option<EpochEnd> {
        self.last.map(|last| EpochEnd { last, base: self.base })
    }

    fn open(&self, newest: &Keys) -> Option<MasterKey> {
        newest.open_key(Place::OlderKey(self.epoch), &self.sealed).ok()
    }
}

impl Superblock {
    /// The superblock of a new vault.
    pub(in crate::vault) fn first(vault: VaultId, slots: Vec<KeySlot>) -> Self {
        Self {
            format: FORMAT,
            required: Vec::new(),
            optional: Vec::new(),
            vault,
            generation: Generation(1),
            epoch: FIRST_EPOCH,
            slots,
            created: Timestamp::now(),
            older: None,
            renewal: None,
        }
    }
}

/// The object: the superblock's bytes, and their HMAC-SHA-256 under a subkey of the master key.
#[derive(Encode, Decode)]
#[cbor(map)]
pub(in crate::vault) struct Envelope {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    mac: Vec<u8>,
}

impl Envelope {
    /// Whether the MAC verifies with these keys.
    pub(in crate::vault) fn is_by(&self, keys: &Keys) -> bool {
        keys.verify_superblock_mac(&self.body, &self.mac)
    }
}

/// A vault whose master key is known.
#[derive(Clone)]
pub struct Unlocked {
    /// The vault's id.
    pub vault: VaultId,
    /// The master key, from which all other keys are derived.
    pub master: MasterKey,
    /// The master keys of the earlier epochs.
    pub(in crate::vault) older: Vec<(KeyEpoch, MasterKey)>,
    /// Its subkeys.
    pub keys: Keys,
    /// The generation of the superblock that it was unlocked with.
    pub generation: Generation,
    /// The bytes of that superblock as they lie in the bucket.
    pub(in crate::vault) sealed: Bytes,
    /// The file that the superblock was read from, if the bucket's is lost.
    pub copied: Option<PathBuf>,
}

pub(in crate::vault) fn name(generation: Generation) -> String {
    format!("superblock/{generation}")
}

/// Decodes a superblock, and checks its generation if one is given. Does not verify it: that takes the key.
pub(in crate::vault) fn decode(
    highest: impl Into<Option<Generation>>,
    bytes: &Bytes,
) -> Result<(Superblock, Envelope)> {
    let highest = highest.into();
    let object = highest.map_or_else(String::new, name);
    let bad = |why: &str| Error::Superblock { object: object.clone(), why: why.to_owned() };
    if bytes.len() > LENGTH_MAX {
        return Err(bad("it is longer than a superblock can be"));
    }
    let wire: Envelope = minicbor::decode(bytes).map_err(|error| bad(&error.to_string()))?;
    let superblock: Superblock =
        minicbor::decode(&wire.body).map_err(|error| bad(&error.to_string()))?;
    if highest.is_some_and(|highest| superblock.generation != highest) {
        return Err(bad("it says that it is another generation"));
    }
    if superblock.format > FORMAT || superblock.required.iter().any(|f| *f != KEY_EPOCHS) {
        return Err(Error::Format { format: superblock.format });
    }
    Ok((superblock, wire))
}

/// Whether these bytes are a truncated superblock, as a store may keep of a put that it cut short. Such a superblock never
/// counted: none counts before it was read back (K6).
pub(in crate::vault) fn ends_early(bytes: &Bytes) -> bool {
    minicbor::decode::<Envelope>(bytes).is_err_and(|error| error.is_end_of_input())
}

pub(in crate::vault) fn verified(
    superblock: &Superblock,
    wire: &Envelope,
    sealed: &Bytes,
    master: MasterKey,
) -> Result<Unlocked> {
    let &Superblock { vault, generation, epoch, .. } = superblock;
    let newest = Keys::derive(&master, vault, epoch);
    let bad = |why: &str| Error::Superblock { object: name(generation), why: why.to_owned() };
    if !wire.is_by(&newest) {
        return Err(bad("its MAC is wrong: it was changed by someone without the key"));
    }
    let older = older_keys(superblock, &newest).ok_or_else(|| bad("its older keys do not open"))?;
    let masters = older.iter().map(|(epoch, master, _)| (*epoch, master.clone())).collect();
    let keys = newest.with_older(older);
    let (sealed, copied) = (sealed.clone(), None);
    Ok(Unlocked { vault, master, older: masters, keys, generation, sealed, copied })
}

/// The keys of the earlier epochs. `None` if one does not open, or if some epoch from the first on is missing.
fn older_keys(superblock: &Superblock, newest: &Keys) -> Option<Vec<OlderKey>> {
    let all = superblock.older.as_deref().unwrap_or_default();
    let mut next = FIRST_EPOCH;
    let mut found = Vec::with_capacity(all.len());
    for older in all {
        if older.epoch != next {
            return None;
        }
        next = next.next();
        found.push((older.epoch, older.open(newest)?, older.end()));
    }
    (next == superblock.epoch).then_some(found)
}

type OlderKey = (KeyEpoch, MasterKey, Option<EpochEnd>);

/// Tries a secret at the slots. If a slot asks for too much work or memory, the error names the superblock.
pub(in crate::vault) fn open_slot(
    superblock: &Superblock,
    secret: &Passphrase,
) -> Result<(MasterKey, usize)> {
    let opened = unlock_slots(&superblock.slots, superblock.vault, superblock.epoch, secret);
    opened.map_err(|error| match error {
        CryptoError::SlotParameters(_)
        | CryptoError::SlotWork { .. }
        | CryptoError::TooManySlots(_)
        | CryptoError::Malformed(_) => {
            let object = name(superblock.generation);
            Error::Superblock { object, why: format!("{error}; none of it was done") }
        }
        other => other.into(),
    })
}

/// A vault that a passphrase or a recovery key opened.
pub struct OpenedBySecret {
    /// Its keys.
    pub unlocked: Unlocked,
    /// What the superblock says.
    pub superblock: Superblock,
    /// Index of the slot that the secret opened.
    pub slot: usize,
}

pub(in crate::vault) fn sealed(keys: &Keys, superblock: &Superblock) -> (String, Bytes) {
    let body = crate::records::encode_value(superblock).to_vec();
    let mac = keys.superblock_mac(&body).to_vec();
    (name(superblock.generation), crate::records::encode_value(&Envelope { body, mac }))
}
