//! The subkeys of one key epoch, and for how long what it seals is believed.

use hkdf::Hkdf;
use sha2::Sha512;

use super::labels::Label;
use super::symmetric_key::{SymmetricKey, expand};
use super::{IndexKeys, MasterKey, Place};
use crate::types::{CommitNo, Hash, KeyEpoch, VaultId};

/// All subkeys of one vault and key epoch.
pub(super) struct EpochKeys {
    vault: VaultId,
    pub(super) epoch: KeyEpoch,
    content: SymmetricKey,
    commits: SymmetricKey,
    pages: SymmetricKey,
    pub(super) superblock: SymmetricKey,
    slot_notes: SymmetricKey,
    older_keys: SymmetricKey,
    journal: SymmetricKey,
    local: SymmetricKey,
    pub(super) names: SymmetricKey,
    pub(super) index: IndexKeys,
}

impl EpochKeys {
    /// Derives them; see `labels.rs` for how.
    pub(super) fn derive(master: &MasterKey, vault: VaultId, epoch: KeyEpoch) -> Self {
        let hkdf = Hkdf::<Sha512>::new(Some(&vault.0), master.expose());
        let key = |label: Label| expand(&hkdf, label, epoch);
        Self {
            vault,
            epoch,
            content: key(Label::Content),
            commits: key(Label::Commits),
            pages: key(Label::Pages),
            superblock: key(Label::Superblock),
            slot_notes: key(Label::SlotNotes),
            older_keys: key(Label::OlderKeys),
            journal: key(Label::Journal),
            local: key(Label::Local),
            names: key(Label::Names),
            index: IndexKeys::new(key(Label::IndexValues), &key(Label::IndexNumbers)),
        }
    }

    pub(super) fn context(&self, place: Place) -> Vec<u8> {
        place.context(self.vault, self.epoch)
    }

    pub(super) fn key(&self, place: Place) -> &[u8; 32] {
        match place.label() {
            Label::Content => &self.content,
            Label::Commits => &self.commits,
            Label::Pages => &self.pages,
            Label::SlotNotes => &self.slot_notes,
            Label::OlderKeys => &self.older_keys,
            Label::Journal => &self.journal,
            _ => &self.local,
        }
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<&[u8; 32]> {
        let Self { content, commits, pages, superblock, slot_notes, .. } = self;
        let Self { older_keys, journal, local, names, .. } = self;
        vec![content, commits, pages, superblock, slot_notes, older_keys, journal, local, names]
    }
}

/// How far what an older epoch sealed is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// Of commits, manifests and pages of higher numbers none is.
    pub last: CommitNo,
    /// SHA-256 of the one manifest from which the vault of now may be opened. Others are of states of the past.
    pub base: Option<Hash>,
}

impl EpochEnd {
    /// Nothing is left of it (K8): no commit has a number up to 0.
    pub const RETIRED: Self = Self { last: CommitNo(0), base: None };
}

/// What a place says of the commit that it is as of: beyond its last one an older epoch is not believed.
pub(super) fn as_of(place: Place) -> Option<CommitNo> {
    match place {
        Place::Commit(number) | Place::Manifest(number) | Place::Page(number, _) => Some(number),
        _ => None,
    }
}

/// Whether it lies on this machine alone: such things stay in the first epoch, so that a machine which opens the vault with
/// an older superblock still reads what it noted (O2).
pub(super) fn is_local(place: Place) -> bool {
    matches!(place, Place::JournalRecord { .. } | Place::Local(..))
}
