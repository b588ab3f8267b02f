//! Keys in the simulation: whatever happens to a change of its keys, the vault opens with the keys that it should, and
//! with nothing else (K6, K7). Once all is reported to be sealed anew, nothing is left under an older key (K8).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::run::{Outcome, SimulatedRun};
use super::world::PATIENCE;
use crate::crypto::{EpochEnd, FIRST_EPOCH, Passphrase, RecoveryKey};
use crate::index::{self, Totals, View};
use crate::types::{Generation, InodeNo, KeyEpoch};
use crate::vault::superblock::{self, Superblock};
use crate::vault::{
    ChangedKeys, Error, KeyChange, MasterKey, NewKey, OpenedBySecret, Result, Vault, seal_recovery,
};

/// How long to wait for something that a failing store or disk may hold up forever.
const A_WHILE: Duration = Duration::from_secs(60);

/// What opens a vault: one master key, and some recovery keys, by their index in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opens {
    master: usize,
    recovery: BTreeSet<usize>,
}

/// All keys that a vault ever had, or was to have.
pub(super) struct KnownKeys {
    masters: Vec<MasterKey>,
    recovery: Vec<String>,
    /// One of these is true: more than one while the outcome of a change is not known.
    may_be: Vec<Opens>,
}

impl KnownKeys {
    pub(super) fn of(master: [u8; 32]) -> Self {
        let first = Opens { master: 0, recovery: BTreeSet::new() };
        let masters = vec![MasterKey::from_bytes(master)];
        Self { masters, recovery: Vec::new(), may_be: vec![first] }
    }

    /// Whether no change was ever requested.
    pub(super) fn is_first(&self) -> bool {
        self.masters.len() == 1 && self.recovery.is_empty()
    }

    /// How many master keys there have been, or were to be.
    pub(super) fn count(&self) -> usize {
        self.masters.len()
    }

    /// The master keys that may open the vault, newest first.
    pub(super) fn masters(&self) -> impl Iterator<Item = &MasterKey> {
        let may_be: BTreeSet<_> = self.may_be.iter().map(|opens| opens.master).collect();
        may_be.into_iter().rev().map(|master| &self.masters[master])
    }

    fn add(&mut self, recovery: &RecoveryKey) -> usize {
        self.recovery.push(recovery.to_string());
        self.recovery.len() - 1
    }

    fn secret(&self, recovery: usize) -> Passphrase {
        Passphrase::exact(self.recovery[recovery].as_bytes().to_vec())
    }

    /// Which of all keys open this superblock.
    fn opened(&self, generation: Generation, bytes: &Bytes) -> Result<(OpenedBySecret, Opens)> {
        let (superblock, wire) = superblock::decode(generation, bytes)?;
        let verified = |master: &MasterKey| {
            superblock::verified(&superblock, &wire, bytes, master.clone()).ok()
        };
        let mut found =
            self.masters.iter().enumerate().filter_map(|(n, m)| Some((n, verified(m)?)));
        let (master, unlocked) = found.next().ok_or(Error::WrongSecret)?;
        let opens = |n: &usize| superblock::open_slot(&superblock, &self.secret(*n)).is_ok();
        let recovery = (0..self.recovery.len()).filter(opens).collect();
        Ok((OpenedBySecret { unlocked, superblock, slot: 0 }, Opens { master, recovery }))
    }
}

/// Epochs before this one are over: nothing current needs them.
fn over(superblock: &Superblock) -> KeyEpoch {
    let older = superblock.older.iter().flatten();
    let retired = older.filter(|older| older.end() == Some(EpochEnd::RETIRED));
    let renewed = superblock.renewal.filter(|renewal| renewal.since.is_some());
    let before = retired.map(|older| older.epoch.next());
    before.chain(renewed.map(|renewal| renewal.before)).max().unwrap_or(FIRST_EPOCH)
}

/// What the map's totals say, and what is in the map, at one moment.
struct MapSeen {
    /// Parts of files sealed by epochs before the given one.
    old: usize,
    said: Totals,
    counted: Totals,
}

/// Counts the whole map.
async fn look_at_map(vault: &Vault, before: KeyEpoch) -> index::Result<MapSeen> {
    vault.index.read(|view| look_at_view(view, before)).await
}

fn look_at_view(view: &View<'_>, before: KeyEpoch) -> index::Result<MapSeen> {
    let mut inos = BTreeSet::new();
    let mut open = vec![InodeNo::ROOT];
    open.extend(view.orphans()?.into_iter().map(|(ino, _)| ino));
    let mut seen = MapSeen { old: 0, said: view.stats(), counted: Totals::default() };
    while let Some(ino) = open.pop() {
        let Some(inode) = view.inode(ino)?.filter(|_| inos.insert(ino)) else { continue };
        seen.counted.inodes += 1;
        seen.counted.bytes += inode.allocated;
        let extents = view.extents_from(ino, &inode, 0, usize::MAX)?;
        seen.old += extents.iter().filter(|(_, e)| e.reference.epoch < before).count();
        if inode.is_dir() {
            let entries = view.entries(ino, None, usize::MAX)?;
            open.extend(entries.into_iter().map(|(_, entry)| entry.ino));
        }
    }
    Ok(seen)
}

/// Fails if something current is sealed by a key that is reported to be over.
pub(super) async fn nothing_old_lives(vault: &Vault, superblock: &Superblock) -> Outcome {
    let over = over(superblock);
    let seen = look_at_map(vault, over).await.map_err(|error| error.to_string())?;
    if seen.old > 0 {
        return Err(format!("{} parts of files are sealed by keys before {over:?}", seen.old));
    }
    let since = superblock.renewal.and_then(|renewal| renewal.since);
    let base = vault.index.base();
    let Some(manifest) = base.manifest().filter(|base| Some(base.commit) >= since) else {
        return Ok(());
    };
    let older = superblock.older.iter().flatten().filter(|older| older.epoch < over);
    let last = older.filter_map(|older| older.last).max();
    match manifest.pages.iter().find(|page| Some(page.number) <= last) {
        Some(page) => Err(format!("{} is of keys before {over:?}", page.name())),
        None => Ok(()),
    }
}

impl SimulatedRun {
    /// The superblock in the bucket, if the store returns it.
    fn look_at_keys(&mut self) -> Outcome<Option<OpenedBySecret>> {
        // Listings are assumed not to be late (PROTOCOL, "The medium").
        if self.lists_late {
            self.heal_store();
        }
        let (bucket, ring) = (&self.world.ground.bucket, &self.world.ring);
        let read = superblock::read(bucket, |generation, bytes| ring.opened(generation, bytes));
        let (opened, opens) = match self.block(read)? {
            Ok(found) => found,
            Err(error) => {
                return self.expected::<(), _>("the superblock", Err(error)).map(|_| None);
            }
        };
        let may_be = &self.world.ring.may_be;
        if !may_be.contains(&opens) {
            return Err(format!("what opens the vault is {opens:?}, and not of {may_be:?}"));
        }
        self.world.ring.may_be = vec![opens];
        Ok(Some(opened))
    }

    /// After an opening, with nothing wrong.
    pub(super) fn keys_are_right(&mut self) -> Outcome {
        self.keys_unsure = false;
        if self.world.ring.is_first() {
            return Ok(());
        }
        let Some(opened) = self.look_at_keys()? else { return Ok(()) };
        self.block(nothing_old_lives(&self.vault(), &opened.superblock))?
    }

    /// Notes the outcome of a change. After a reported failure, the vault may be opened again before the next change
    /// counts.
    fn changed(&mut self, what: &str, after: Opens, done: Result<ChangedKeys>) -> Outcome {
        let may_be = &mut self.world.ring.may_be;
        match &done {
            Ok(_) => *may_be = vec![after],
            Err(_) => may_be.push(after),
        }
        self.trace(&[u64::from(done.is_ok())]);
        let done = if self.keys_unsure { done.is_ok() } else { self.expected(what, done)? };
        self.keys_unsure |= !done;
        self.tally.key_changes += u64::from(done);
        Ok(())
    }

    pub(super) fn rotate(&mut self, rewrite: bool) -> Outcome {
        let Some(opened) = self.look_at_keys()? else { return Ok(()) };
        let (new, recovery) = (NewKey::make(&opened), RecoveryKey::generate());
        let slot = seal_recovery(&new.unlocked, &recovery).map_err(|error| error.to_string())?;
        let ring = &mut self.world.ring;
        ring.masters.push(new.unlocked.master.clone());
        let recovery = [ring.add(&recovery)].into();
        let after = Opens { master: ring.masters.len() - 1, recovery };
        let rotation = new.rotation(vec![slot]);
        let rotation = if rewrite { rotation.of_everything() } else { rotation };
        let done = self.block(self.vault().rotate_key(&rotation))?;
        self.tally.rotations += u64::from(done.is_ok());
        self.changed("a rotation", after, done)
    }

    pub(super) fn add_slot(&mut self) -> Outcome {
        let Some(opened) = self.look_at_keys()? else { return Ok(()) };
        let mut after = self.world.ring.may_be[0].clone();
        if opened.superblock.slots.len() >= crate::crypto::SLOTS_MAX {
            return Ok(());
        }
        let recovery = RecoveryKey::generate();
        let slot = seal_recovery(&opened.unlocked, &recovery).map_err(|error| error.to_string())?;
        after.recovery.insert(self.world.ring.add(&recovery));
        let done = self.block(self.vault().change_keys(&KeyChange::Add(slot)))?;
        self.changed("one more slot", after, done)
    }

    pub(super) fn remove_slot(&mut self) -> Outcome {
        let Some(opened) = self.look_at_keys()? else { return Ok(()) };
        let mut after = self.world.ring.may_be[0].clone();
        if after.recovery.len() < 2 {
            return Ok(());
        }
        let Some(goes) = after.recovery.pop_first() else { return Ok(()) };
        let found = superblock::open_slot(&opened.superblock, &self.world.ring.secret(goes));
        let (_, slot) = found.map_err(|error| error.to_string())?;
        let change = KeyChange::Remove(opened.superblock.slots[slot].id());
        let done = self.block(self.vault().change_keys(&change))?;
        self.changed("one slot fewer", after, done)
    }

    /// Waits until the current state needs no older key.
    pub(super) fn renew(&mut self) -> Outcome {
        let (vault, is_well) = (self.vault(), self.healthy() && !self.is_read_only());
        let patience = if is_well { PATIENCE } else { A_WHILE };
        let bounded = async { tokio::time::timeout(patience, vault.renew()).await };
        let Ok(done) = self.life.runtime.block_on(bounded) else {
            let is_well = is_well && !self.world.disk.has_ended();
            return if is_well { Err("a renewal hangs".into()) } else { Ok(()) };
        };
        if !self.expected("a renewal", done)? || self.world.disk.has_ended() {
            return Ok(());
        }
        let Some(opened) = self.look_at_keys()? else { return Ok(()) };
        let renewal = opened.superblock.renewal;
        self.tally.renewals += u64::from(renewal.is_some_and(|renewal| renewal.since.is_some()));
        self.block(nothing_old_lives(&vault, &opened.superblock))?
    }

    /// After a checkpoint `df` reports what is there.
    pub(super) fn totals_are_right(&self) -> Outcome {
        if !self.healthy() || self.is_read_only() || self.world.disk.has_ended() {
            return Ok(());
        }
        let looked = self.block(look_at_map(&self.vault(), FIRST_EPOCH))?;
        let MapSeen { said, counted, .. } = looked.map_err(|error| error.to_string())?;
        if said == counted {
            return Ok(());
        }
        Err(format!("the map has {counted:?}, and is said to have {said:?}"))
    }

    /// With nothing wrong, everything that was requested is done.
    pub(super) fn keys_end(&mut self) -> Outcome {
        if self.world.ring.is_first() {
            return Ok(());
        }
        self.renew()?;
        let opened = self.look_at_keys()?.ok_or("the superblock is not there")?;
        let older = || opened.superblock.older.iter().flatten();
        if older().any(|older| older.last.is_none()) {
            return Err("a rotation is not finished".into());
        }
        if opened.superblock.renewal.is_some_and(|renewal| renewal.since.is_none()) {
            return Err("what older keys sealed is not sealed anew".into());
        }
        let retired = older().filter(|older| older.end() == Some(EpochEnd::RETIRED));
        self.tally.retired += retired.count() as u64;
        self.look_from_bucket()
    }
}
