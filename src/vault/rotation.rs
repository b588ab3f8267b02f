//! A new key epoch: what is written from now on is sealed with a new master key (K7).

use std::time::Duration;

use data_encoding::HEXLOWER;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::key_changer::{KeyChanger, TRIES};
use super::superblock::{self, KEY_EPOCHS, OlderEpoch, Renewal, Superblock};
use super::{ChangedKeys, Error, OpenedBySecret, Result, Unlocked, Vault};
use crate::checkpoint::{manifest_name, manifests, newest_of};
use crate::crypto::{EpochEnd, KeySlot, Keys, MasterKey, Place, sha256};
use crate::log;
use crate::os::{self, PipelineStep};
use crate::types::{CommitNo, CurrentGeneration, Hash, KeyEpoch, RenewalStatus};

/// How long a mount may take to finish a rotation that was cut off.
const AT_OPENING: Duration = Duration::from_secs(10);

/// A new master key, for sealing the slots of the new epoch.
pub struct NewKey {
    /// As if the vault had been opened with the new key.
    pub unlocked: Unlocked,
    older: Vec<OlderEpoch>,
    /// The new key, sealed so that only a process with the vault open can read it.
    handed: Vec<u8>,
}

/// A request to the process that has the vault open. Nothing in it is a secret to the bucket's owner or in a log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Rotation {
    #[n(0)]
    epoch: KeyEpoch,
    #[n(1)]
    slots: Vec<KeySlot>,
    #[n(2)]
    older: Vec<OlderEpoch>,
    #[n(3)]
    master: ByteVec,
    /// Whether everything already there is to be sealed with it, too (K8).
    #[n(4)]
    renews: Option<bool>,
}

impl NewKey {
    /// Makes a key for the next epoch of this vault.
    pub fn make(opened: &OpenedBySecret) -> Self {
        let now = &opened.unlocked;
        let (epoch, master) = (now.keys.epoch().next(), MasterKey::generate());
        let keys = Keys::derive(&master, now.vault, epoch);
        let ends = opened.superblock.older.iter().flatten().map(OlderEpoch::end);
        let mut older: Vec<_> = now
            .older
            .iter()
            .zip(ends)
            .map(|((epoch, master), end)| OlderEpoch::seal(&keys, *epoch, master, end))
            .collect();
        older.push(OlderEpoch::seal(&keys, now.keys.epoch(), &now.master, None));
        let handed = now.keys.seal(handed_over(epoch), master.expose()).to_vec();
        Self { unlocked: Unlocked { master, keys, ..now.clone() }, older, handed }
    }

    /// The rotation to this key, with slots that hold it.
    pub fn rotation(self, slots: Vec<KeySlot>) -> Rotation {
        let Self { unlocked, older, handed } = self;
        let epoch = unlocked.keys.epoch();
        Rotation { epoch, slots, older, master: handed.into(), renews: None }
    }
}

fn handed_over(epoch: KeyEpoch) -> Place {
    Place::Local("a new key", u64::from(epoch.0))
}

impl Rotation {
    /// Makes it a rotation after which everything already there is sealed with the new key, too (K8).
    #[must_use]
    pub fn of_everything(self) -> Self {
        Self { renews: Some(true), ..self }
    }

    /// Encodes it as text.
    pub fn to_text(&self) -> String {
        HEXLOWER.encode(&crate::records::encode_value(self))
    }

    /// Decodes it from text.
    pub fn from_text(text: &str) -> Option<Self> {
        minicbor::decode(&HEXLOWER.decode(text.as_bytes()).ok()?).ok()
    }
}

impl Vault {
    /// Begins a new key epoch (K7). On success the earlier secrets open nothing, except those that the rotation has slots for.
    /// What is sealed from now on is sealed with the new key, unless `trouble` says that it is not yet.
    ///
    /// # Errors
    /// [`Error::Keys`] for a rotation that cannot be made; what the store says. After a store's error it may be made all the
    /// same.
    pub async fn rotate_key(&self, rotation: &Rotation) -> Result<ChangedKeys> {
        let Some(writer) = &self.writer else { return Err(Error::ReadOnlyMount) };
        let done = writer.keys.rotate(rotation).await;
        // Even after a failure, for whatever is left to do.
        writer.keys.changed.notify_one();
        done
    }

    /// Seals anew what older key epochs sealed, if that was asked for (K8). Returns when the current state needs no older key,
    /// or with what prevented that; it then goes on in the background.
    ///
    /// # Errors
    /// What the store says, or what could not be read.
    pub async fn renew(&self) -> Result<RenewalStatus> {
        let Some(writer) = &self.writer else { return Err(Error::ReadOnlyMount) };
        writer.renewing.hurry().await?;
        Ok(writer.renewing.told.lock().clone())
    }

    /// At the start of a mount: finishes a rotation that was cut off, if that takes little time.
    pub(super) async fn go_on_rotating(&self) {
        let Some(changer) = self.writer.as_ref().map(|writer| &writer.keys) else { return };
        if !changer.keys().is_rotating() {
            return;
        }
        let generation = changer.turn().await;
        match tokio::time::timeout(AT_OPENING, changer.finish_rotation(&generation)).await {
            Ok(Ok(())) => tracing::info!("a rotation of the key that was cut off is finished"),
            Ok(Err(error)) => tracing::warn!(%error, "a rotation of the key is not finished"),
            Err(_) => tracing::warn!("a rotation of the key is not finished: it takes long"),
        }
    }
}

impl KeyChanger {
    async fn rotate(&self, rotation: &Rotation) -> Result<ChangedKeys> {
        let (generation, keys) = (self.turn().await, self.keys());
        self.finish_rotation(&generation).await?;
        let master = keys.open_key(handed_over(rotation.epoch), &rotation.master)?;
        let new = Keys::derive(&master, keys.vault(), rotation.epoch);
        for _ in 0..TRIES {
            self.is_not_fenced()?;
            let (before, after) = superblock::newest_and_next(&self.bucket, &self.unlocked).await?;
            let next = Superblock { generation: after, ..rotation.over(&before)? };
            if superblock::succeed(&self.bucket, &new, &next).await? {
                self.takes(&generation, &new, &next);
                keys.add(&master, rotation.epoch);
                let mut trouble = self.settle(&next).await;
                if let Err(error) = self.finish_rotation(&generation).await {
                    tracing::warn!(%error, "the rotation is not finished");
                    trouble.push(format!(
                        "the new key counts, and may seal nothing yet ({error}); that is tried again, by the next mount, too; \
                         `s3vault status` says until when"
                    ));
                }
                return Ok(ChangedKeys { slots: super::key_slots::infos(&next, &new), trouble });
            }
        }
        Err(Error::Keys("other machines change its keys in the same moment; try again".to_owned()))
    }

    /// Does what is left of a rotation once its superblock counts; nothing if there is none. Each step may be repeated.
    pub(super) async fn finish_rotation(&self, generation: &CurrentGeneration) -> Result<()> {
        let keys = self.keys();
        if !keys.is_rotating() {
            return Ok(());
        }
        // Sealed with the key before, so that a machine with an older superblock learns that there is a newer one, not that
        // what the new key sealed is damaged (O1).
        self.name_in_the_log().await?;
        keys.begin_newest();
        os::reached(PipelineStep::KeyEpochBegun);
        self.name_in_the_log().await?;
        // The log has a commit of the new key; after it this writer sends none of the old.
        let last = CommitNo(self.head.lock().number.0.saturating_sub(1));
        let end = EpochEnd { last, base: self.base_up_to(last).await? };
        let is_under_way = |older: &OlderEpoch| older.last.is_none();
        let ended = |mut next: Superblock| {
            let Some(older) = next.older.iter_mut().flatten().find(|older| is_under_way(older))
            else {
                return Ok(None);
            };
            (older.last, older.base) = (Some(end.last), end.base);
            Ok(Some(next))
        };
        let counts = match self.succeed(generation, ended).await? {
            Some(next) => next,
            // It was put by a process that was cut off before it knew.
            None => superblock::newest(&self.bucket, &self.unlocked).await?,
        };
        let last = counts.older.iter().flatten().last();
        keys.end_older(last.and_then(OlderEpoch::end).unwrap_or(end));
        self.settle(&counts).await;
        Ok(())
    }

    /// SHA-256 of the newest manifest up to this commit. A reader that finds no manifest of the new key begins at it; what the
    /// old key seals later is not believed.
    async fn base_up_to(&self, last: CommitNo) -> Result<Option<Hash>> {
        let (bucket, keys) = (&self.bucket, self.keys());
        let (listed, _) = manifests(bucket).await?;
        let base = newest_of(&listed, last, bucket, keys).await?.manifest;
        let Some(base) = base.map(|manifest| manifest.commit) else { return Ok(None) };
        let name = manifest_name(base);
        let sealed = bucket.get(&name, None).await?;
        keys.open(Place::Manifest(base), &sealed).map_err(log::Error::seal(name))?;
        Ok(Some(sha256(&sealed)))
    }
}

impl Rotation {
    /// The superblock that follows `before`, except for its generation.
    fn over(&self, before: &Superblock) -> Result<Superblock> {
        let refused = |why: &str| Err(Error::Keys(why.to_owned()));
        let epochs = |older: &[OlderEpoch]| -> Vec<_> {
            older.iter().map(|older| (older.epoch, older.end())).collect()
        };
        let mut expected = epochs(before.older.as_deref().unwrap_or_default());
        expected.push((before.epoch, None));
        if before.epoch.next() != self.epoch || epochs(&self.older) != expected {
            return refused("the vault's keys were changed since this began; try again");
        }
        if self.slots.is_empty() {
            return refused("nothing would open the vault");
        }
        let mut required = before.required.clone();
        if !required.contains(&KEY_EPOCHS) {
            required.push(KEY_EPOCHS);
        }
        Ok(Superblock {
            required,
            epoch: self.epoch,
            slots: self.slots.clone(),
            older: Some(self.older.clone()),
            // A renewal that is under way goes on.
            renewal: match self.renews {
                Some(true) => Some(Renewal { before: self.epoch, since: None }),
                _ => before.renewal,
            },
            ..before.clone()
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
