//! Key slots: the master key, sealed under a passphrase or the recovery key.
//!
//! Everything in a slot comes from the superblock before its MAC can be verified (the slot itself holds the MAC's key). So the
//! work that a slot may ask for is bounded, and all its parameters are bound into its seal.

use std::fmt;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::Sha512;
use zeroize::Zeroizing;

use super::labels::Label;
use super::symmetric_key::{SymmetricKey, expand};
use super::{
    Error, Keys, MasterKey, Passphrase, RecoveryKey, RecoveryKeyError, SlotNote, cobblestone,
    context, random,
};
use crate::types::{KeyEpoch, VaultId};

/// The most key slots of a superblock.
pub const SLOTS_MAX: usize = 16;

/// The most work that all tried slots may ask for together: 64 GiB filled, a minute or two. That is sixteen slots of 1 GiB and
/// 4 passes. Slots are tried one after the other, so only one needs its memory at a time.
pub(super) const WORK_MAX: u64 = 64 << 20;

/// Kind numbers in a slot.
const PASSPHRASE: u8 = 1;
const RECOVERY: u8 = 2;

/// How much work Argon2id does for a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Params {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes; computed one after the other here.
    pub lanes: u32,
}

impl Argon2Params {
    /// The least that is made or accepted: 64 MiB, 3 passes (RFC 9106, second recommended option, with one lane).
    pub const FLOOR: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 1 };
    /// The most that is accepted, so that a forged slot cannot exhaust this machine: 2 GiB, 64 passes.
    pub const CEILING: Self = Self { memory_kib: 2 << 20, passes: 64, lanes: 16 };

    /// The most passes that are made, however fast this machine is: one with a tenth of its speed still opens the vault in ten
    /// seconds. For the same reason the memory is never more than the default.
    pub const MADE_MAX: u32 = 12;

    /// Parameters that take about a second on a machine where [`Argon2Params::trial`] takes `trial`; never less than the
    /// default.
    #[must_use]
    pub fn of_a_second(trial: Duration) -> Self {
        let usual = Self::default();
        let passes = Duration::from_secs(1).as_micros() / trial.as_micros().max(1);
        let passes = u32::try_from(passes).unwrap_or(u32::MAX);
        Self { passes: passes.clamp(usual.passes, Self::MADE_MAX), ..usual }
    }

    /// Does the work of one pass, so that a caller can measure it.
    pub fn trial() -> Result<(), Error> {
        let one = Self { passes: 1, ..Self::default() };
        argon2id(b"trial", one, &[0; 32]).map(drop)
    }

    /// The cost of one guess: KiB filled, over all passes.
    fn work(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    fn check(self) -> Result<(), Error> {
        let within = |value, floor, ceiling| floor <= value && value <= ceiling;
        let (low, high) = (Self::FLOOR, Self::CEILING);
        if !within(self.memory_kib, low.memory_kib, high.memory_kib) {
            return Err(Error::SlotParameters("memory (64 MiB to 2 GiB)"));
        }
        if !within(self.passes, low.passes, high.passes) {
            return Err(Error::SlotParameters("passes (3 to 64)"));
        }
        if !within(self.lanes, low.lanes, high.lanes) {
            return Err(Error::SlotParameters("lanes (1 to 16)"));
        }
        Ok(())
    }
}

/// 256 MiB, 3 passes, 1 lane: under a second on a machine of 2026. Fast machines make more passes, as measured.
impl Default for Argon2Params {
    fn default() -> Self {
        Self { memory_kib: 256 << 10, passes: 3, lanes: 1 }
    }
}

/// How a slot's key is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// Argon2id of a passphrase.
    Passphrase {
        /// The work to do.
        params: Argon2Params,
        /// Random, for this slot alone.
        salt: [u8; 32],
    },
    /// HKDF of the recovery key.
    Recovery {
        /// Random, for this slot alone.
        salt: [u8; 32],
    },
}

/// The master key of one key epoch, sealed under one secret.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeySlot {
    #[n(0)]
    kind: u8,
    #[n(1)]
    epoch: KeyEpoch,
    #[cbor(n(2), with = "minicbor::bytes")]
    salt: [u8; 32],
    #[n(3)]
    memory_kib: u32,
    #[n(4)]
    passes: u32,
    #[n(5)]
    lanes: u32,
    #[cbor(n(6), with = "minicbor::bytes")]
    sealed: Vec<u8>,
    /// A sealed [`SlotNote`]; slots that earlier versions made at `init` have none.
    #[n(7)]
    note: Option<ByteVec>,
}

impl KeySlot {
    /// Seals the master key under a passphrase. Takes the time and memory that `params` ask for.
    pub fn seal_with_passphrase(
        master: &MasterKey,
        vault: VaultId,
        epoch: KeyEpoch,
        passphrase: &Passphrase,
        params: Argon2Params,
    ) -> Result<Self, Error> {
        params.check()?;
        let salt = random();
        let key = passphrase_key(passphrase, params, &salt)?;
        Ok(Self::seal(master, vault, epoch, SlotKind::Passphrase { params, salt }, &key))
    }

    /// Seals the master key under a recovery key.
    pub fn seal_with_recovery_key(
        master: &MasterKey,
        vault: VaultId,
        epoch: KeyEpoch,
        recovery: &RecoveryKey,
    ) -> Self {
        let salt = random();
        let key = recovery_key(recovery, &salt);
        Self::seal(master, vault, epoch, SlotKind::Recovery { salt }, &key)
    }

    fn seal(
        master: &MasterKey,
        vault: VaultId,
        epoch: KeyEpoch,
        kind: SlotKind,
        key: &SymmetricKey,
    ) -> Self {
        let (kind, salt, params) = match kind {
            SlotKind::Passphrase { params, salt } => (PASSPHRASE, salt, params),
            SlotKind::Recovery { salt } => {
                (RECOVERY, salt, Argon2Params { memory_kib: 0, passes: 0, lanes: 0 })
            }
        };
        let Argon2Params { memory_kib, passes, lanes } = params;
        let sealed = Vec::new();
        let mut slot = Self { kind, epoch, salt, memory_kib, passes, lanes, sealed, note: None };
        let context = slot.context(vault);
        cobblestone::seal(key, &context, master.expose(), &mut slot.sealed);
        slot
    }

    /// How the slot's key is made; an error for an unknown kind, or for work out of bounds.
    pub fn kind(&self) -> Result<SlotKind, Error> {
        let Self { memory_kib, passes, lanes, salt, .. } = *self;
        match self.kind {
            PASSPHRASE => {
                let params = Argon2Params { memory_kib, passes, lanes };
                params.check()?;
                Ok(SlotKind::Passphrase { params, salt })
            }
            RECOVERY => Ok(SlotKind::Recovery { salt }),
            other => Err(Error::SlotKind(other)),
        }
    }

    /// The same slot with a note.
    pub fn with_note(mut self, keys: &Keys, note: &SlotNote) -> Result<Self, Error> {
        self.note = Some(note.seal(keys, self.salt)?.into());
        Ok(self)
    }

    /// The slot's note; `None` if it has none, or one that does not open.
    pub fn note(&self, keys: &Keys) -> Option<SlotNote> {
        SlotNote::open(keys, self.salt, self.note.as_ref()?).ok()
    }

    /// The id by which a person names the slot: the first bytes of its salt, which no other slot has.
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.salt[..4])
    }

    /// Whether a recovery key opens the slot.
    pub fn is_recovery(&self) -> bool {
        self.kind == RECOVERY
    }

    /// The slot as text. It is no secret: the bucket holds the same bytes.
    pub fn to_text(&self) -> String {
        // Writing into a Vec has no errors.
        minicbor::to_vec(self).map_or_else(|_| String::new(), |bytes| HEXLOWER.encode(&bytes))
    }

    /// Reads what [`KeySlot::to_text`] made.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let bad = || Error::Malformed("a key slot");
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| bad())?;
        minicbor::decode(&bytes).map_err(|_| bad())
    }

    /// The cost of one guess; `None` if the slot needs no work.
    pub(super) fn work(&self) -> Option<u64> {
        match self.kind() {
            Ok(SlotKind::Passphrase { params, .. }) => Some(params.work()),
            _ => None,
        }
    }

    /// The key epoch of the master key in the slot.
    #[cfg(test)]
    pub fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    /// All parameters of the slot, in a fixed layout: kind (1 byte), memory in KiB, passes, lanes (4 bytes each, big-endian),
    /// salt (32).
    fn context(&self, vault: VaultId) -> Vec<u8> {
        let mut parameters = vec![self.kind];
        for number in [self.memory_kib, self.passes, self.lanes] {
            parameters.extend_from_slice(&number.to_be_bytes());
        }
        parameters.extend_from_slice(&self.salt);
        context::of_slot(vault, self.epoch, &parameters)
    }

    fn open(&self, vault: VaultId, key: &SymmetricKey) -> Result<MasterKey, Error> {
        let plain = cobblestone::open(key, &self.context(vault), &self.sealed);
        let plain = Zeroizing::new(plain.map_err(|_| Error::WrongSecret)?);
        let bytes = <[u8; 32]>::try_from(&plain[..]);
        Ok(MasterKey::from_bytes(bytes.map_err(|_| Error::Malformed("a key slot's key"))?))
    }
}

/// Opens the first slot of key epoch `epoch` that the secret fits, and returns the slot's index too. The secret is tried as a
/// recovery key if it is a valid one, and as a passphrase. Slots of unknown kinds are skipped. The work is bounded: for each
/// slot by [`Argon2Params::CEILING`], and for all of them by `WORK_MAX` before any of it is done.
pub fn unlock(
    slots: &[KeySlot],
    vault: VaultId,
    epoch: KeyEpoch,
    secret: &Passphrase,
) -> Result<(MasterKey, usize), Error> {
    if slots.len() > SLOTS_MAX {
        return Err(Error::TooManySlots(slots.len()));
    }
    let asked = slots.iter().filter(|slot| slot.epoch == epoch).filter_map(KeySlot::work);
    let asked = asked.sum::<u64>();
    if asked > WORK_MAX {
        return Err(Error::SlotWork { gib: asked >> 20 });
    }
    let recovery = RecoveryKey::parse(secret.expose());
    let mut refused = None;
    // Recovery slots come first: they cost nothing.
    let of_epoch = || slots.iter().enumerate().filter(|(_, slot)| slot.epoch == epoch);
    let recoveries = of_epoch().filter(|(_, slot)| slot.is_recovery());
    for (at, slot) in recoveries.chain(of_epoch().filter(|(_, slot)| !slot.is_recovery())) {
        let key = match (slot.kind(), &recovery) {
            (Ok(SlotKind::Recovery { salt }), Ok(recovery)) => Ok(recovery_key(recovery, &salt)),
            (Ok(SlotKind::Recovery { .. }), Err(_)) => continue,
            (Ok(SlotKind::Passphrase { params, salt }), _) => passphrase_key(secret, params, &salt),
            (Err(error), _) => Err(error),
        };
        match key.and_then(|key| slot.open(vault, &key)) {
            Ok(master) => return Ok((master, at)),
            Err(Error::WrongSecret | Error::SlotKind(_)) => {}
            Err(error) => refused = Some(error),
        }
    }
    match (refused, recovery) {
        (Some(error), _) => Err(error),
        (None, Err(typo @ RecoveryKeyError::Checksum)) => Err(typo.into()),
        (None, _) => Err(Error::WrongSecret),
    }
}

fn passphrase_key(
    passphrase: &Passphrase,
    params: Argon2Params,
    salt: &[u8; 32],
) -> Result<SymmetricKey, Error> {
    params.check()?;
    argon2id(passphrase.expose(), params, salt)
}

fn argon2id(password: &[u8], params: Argon2Params, salt: &[u8; 32]) -> Result<SymmetricKey, Error> {
    let Argon2Params { memory_kib, passes, lanes } = params;
    let bad = |_| Error::SlotParameters("refused by Argon2id");
    let argon2 = Params::new(memory_kib, passes, lanes, Some(32)).map_err(bad)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, argon2);
    let mut key = SymmetricKey::new([0; 32]);
    match argon2.hash_password_into(password, salt, &mut key[..]) {
        Ok(()) => Ok(key),
        Err(argon2::Error::OutOfMemory) => Err(Error::Memory { mib: memory_kib >> 10 }),
        Err(error) => Err(bad(error)),
    }
}

fn recovery_key(recovery: &RecoveryKey, salt: &[u8; 32]) -> SymmetricKey {
    let hkdf = Hkdf::<Sha512>::new(Some(salt), recovery.expose());
    expand(&hkdf, Label::RecoverySlot, KeyEpoch(0))
}

impl fmt::Debug for KeySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySlot({:?}, epoch {})", self.kind(), self.epoch.0)
    }
}

#[cfg(test)]
mod tests;
