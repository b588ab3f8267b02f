//! The key slots of an existing vault: what opens it, and how that changes (K6). No data moves: the master key stays the
//! same.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::superblock::{self, OlderEpoch, Superblock};
use super::{Error, OpenedBySecret, Result, Unlocked, Vault};
use crate::crypto::{
    Argon2Params, EpochEnd, KeySlot, Keys, Passphrase, RecoveryKey, SLOTS_MAX, SlotKind, SlotNote,
    unlock as unlock_slots,
};
use crate::types::Timestamp;

/// A key slot, described for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// The id by which commands name it.
    pub id: String,
    /// Whether a recovery key opens it; otherwise a passphrase does.
    pub recovery: bool,
    /// What its owner calls it; may be empty.
    pub label: String,
    /// When it was made.
    pub made: Timestamp,
    /// What one guess at its passphrase costs.
    pub argon: Option<Argon2Params>,
}

/// A key epoch, described for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochInfo {
    /// Its number.
    pub epoch: u32,
    /// What its key is needed for.
    pub need: EpochNeed,
}

/// What the key of an epoch is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochNeed {
    /// Sealing what is written, now or soon.
    Newest,
    /// Reading the vault as it is now.
    Now,
    /// Reading the vault as it is now, until all that it sealed is sealed anew.
    BeingRenewed,
    /// Reading old states and snapshots.
    OldStates,
    /// Nothing in the bucket.
    Nothing,
}

/// All key epochs, the newest first.
pub(super) fn epochs(superblock: &Superblock) -> Vec<EpochInfo> {
    let need = |older: &OlderEpoch| match superblock.renewal {
        _ if older.end() == Some(EpochEnd::RETIRED) => EpochNeed::Nothing,
        Some(renewal) if older.epoch < renewal.before => match renewal.since {
            Some(_) => EpochNeed::OldStates,
            None => EpochNeed::BeingRenewed,
        },
        _ => EpochNeed::Now,
    };
    let newest = EpochInfo { epoch: superblock.epoch.0, need: EpochNeed::Newest };
    let older = superblock.older.iter().flatten().rev();
    let older = older.map(|older| EpochInfo { epoch: older.epoch.0, need: need(older) });
    std::iter::once(newest).chain(older).collect()
}

/// A change of what opens the vault. Its requester has the master key and has already sealed the new slot, so nothing in
/// here is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// Adds a secret.
    Add(KeySlot),
    /// Replaces a secret with another.
    Replace {
        /// The id of the slot that goes.
        old: String,
        /// The slot that takes its place.
        new: KeySlot,
    },
    /// Makes this the only recovery key: all others go.
    Recovery(KeySlot),
    /// Removes the secret with this slot id.
    Remove(String),
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedKeys {
    /// The slots that open the vault now.
    pub slots: Vec<SlotInfo>,
    /// What the owner should know.
    pub trouble: Vec<String>,
}

impl KeyChange {
    /// Makes the change in `slots`. Returns false if it is made already, by an earlier try of this very change whose reply
    /// was lost.
    fn apply(&self, slots: &mut Vec<KeySlot>, again: bool) -> Result<bool> {
        let refused = |why: String| Err(Error::Keys(why));
        match self {
            Self::Add(new) | Self::Replace { new, .. } | Self::Recovery(new)
                if slots.contains(new) =>
            {
                return Ok(false);
            }
            Self::Add(_) if slots.len() >= SLOTS_MAX => {
                return refused(format!("a vault has {SLOTS_MAX} key slots at most; remove one"));
            }
            Self::Add(new) => slots.push(new.clone()),
            Self::Replace { old, new } => match slots.iter_mut().find(|slot| slot.id() == *old) {
                Some(slot) => *slot = new.clone(),
                None => return refused(format!("there is no key slot {old} any more")),
            },
            Self::Recovery(new) => {
                slots.retain(|slot| !slot.is_recovery());
                slots.push(new.clone());
            }
            Self::Remove(id) => match slots.iter().position(|slot| slot.id() == *id) {
                Some(_) if slots.iter().filter(|slot| slot.kind().is_ok()).count() < 2 => {
                    return refused("it is the last one that opens the vault".to_owned());
                }
                Some(at) => drop(slots.remove(at)),
                None if again => return Ok(false),
                None => return refused(format!("there is no key slot {id}")),
            },
        }
        Ok(true)
    }
}

/// Argon2 parameters for a new passphrase: about a second of work on this machine.
///
/// # Errors
/// There is not enough memory for it.
pub fn measured_argon() -> Result<Argon2Params> {
    // Tests make hundreds of vaults, most without optimisation: they measure only when they ask for it.
    #[cfg(any(test, feature = "testing"))]
    if std::env::var_os("S3VAULT_MEASURE").is_none() {
        return Ok(Argon2Params::default());
    }
    let begun = Instant::now();
    Argon2Params::trial()?;
    Ok(Argon2Params::of_a_second(begun.elapsed()))
}

/// The slot that a vault is made with.
pub(super) fn first_slot(
    unlocked: &Unlocked,
    passphrase: &Passphrase,
    argon: Argon2Params,
) -> Result<KeySlot> {
    let Unlocked { vault, master, keys, .. } = unlocked;
    let slot = KeySlot::seal_with_passphrase(master, *vault, keys.epoch(), passphrase, argon)?;
    noted(slot, keys, "")
}

/// Seals the vault's master key under a new passphrase.
///
/// # Errors
/// Argon2id fails, or the label is too long.
pub fn seal_passphrase(
    unlocked: &Unlocked,
    passphrase: &Passphrase,
    argon: Argon2Params,
    label: &str,
) -> Result<KeySlot> {
    let Unlocked { vault, master, keys, .. } = unlocked;
    let slot = KeySlot::seal_with_passphrase(master, *vault, keys.epoch(), passphrase, argon)?;
    // Tried before an old slot goes: if a bit flipped here, nobody could open the new one.
    let opened = unlock_slots(std::slice::from_ref(&slot), *vault, keys.epoch(), passphrase)?;
    if opened.0.expose() != master.expose() {
        return Err(Error::Keys("the new key slot does not hold the vault's key".to_owned()));
    }
    noted(slot, keys, label)
}

/// Seals the vault's master key under a new recovery key.
///
/// # Errors
/// None is expected.
pub fn seal_recovery(unlocked: &Unlocked, recovery: &RecoveryKey) -> Result<KeySlot> {
    let Unlocked { vault, master, keys, .. } = unlocked;
    let slot = KeySlot::seal_with_recovery_key(master, *vault, keys.epoch(), recovery);
    noted(slot, keys, "")
}

fn noted(slot: KeySlot, keys: &Keys, label: &str) -> Result<KeySlot> {
    let note = SlotNote { label: label.to_owned(), made: Timestamp::now() };
    Ok(slot.with_note(keys, &note)?)
}

pub(super) fn infos(superblock: &Superblock, keys: &Keys) -> Vec<SlotInfo> {
    let info = |slot: &KeySlot| {
        let note = slot.note(keys);
        SlotInfo {
            id: slot.id(),
            recovery: slot.is_recovery(),
            // A slot without a note is as old as the vault: only `init` made such slots.
            made: note.as_ref().map_or(superblock.created, |note| note.made),
            label: note.map_or_else(String::new, |note| note.label),
            argon: match slot.kind() {
                Ok(SlotKind::Passphrase { params, .. }) => Some(params),
                _ => None,
            },
        }
    };
    superblock.slots.iter().map(info).collect()
}

impl OpenedBySecret {
    /// All slots, for people.
    pub fn slots(&self) -> Vec<SlotInfo> {
        infos(&self.superblock, &self.unlocked.keys)
    }

    /// All key epochs, for people.
    pub fn epochs(&self) -> Vec<EpochInfo> {
        epochs(&self.superblock)
    }
}

impl Vault {
    /// What opens the vault now, and its key epochs.
    ///
    /// # Errors
    /// What the store says.
    pub async fn key_slots(&self) -> Result<(Vec<SlotInfo>, Vec<EpochInfo>)> {
        let Self { options, .. } = self;
        let superblock = superblock::newest(&options.bucket, &options.unlocked).await?;
        Ok((infos(&superblock, &options.unlocked.keys), epochs(&superblock)))
    }

    /// Changes what opens the vault (K6). On success the change counts for everybody, the log names it, and the older
    /// superblocks are gone; if one of the last two failed, `trouble` says so.
    ///
    /// # Errors
    /// [`Error::Keys`] for a change that cannot be made; what the store says. After a store's error the change may be made
    /// all the same: the slots in the bucket tell.
    pub async fn change_keys(&self, change: &KeyChange) -> Result<ChangedKeys> {
        let Some(writer) = &self.writer else { return Err(Error::ReadOnlyMount) };
        let changer = &writer.keys;
        let (generation, keys) = (changer.turn().await, changer.keys());
        changer.finish_rotation(&generation).await?;
        let again = AtomicBool::new(false);
        let apply = |mut next: Superblock| {
            let changes = change.apply(&mut next.slots, again.swap(true, Relaxed))?;
            Ok(changes.then_some(next))
        };
        let counts = match changer.succeed(&generation, apply).await? {
            Some(next) => next,
            None => {
                let now = superblock::newest(&changer.bucket, &changer.unlocked).await?;
                changer.takes(&generation, keys, &now);
                now
            }
        };
        let trouble = changer.settle(&counts).await;
        Ok(ChangedKeys { slots: infos(&counts, keys), trouble })
    }
}

#[cfg(test)]
mod tests;
