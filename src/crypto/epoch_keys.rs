//! The subkeys of one key epoch, and how far messages sealed with them are believed.

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
    /// Derives the subkeys; `labels.rs` describes how.
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

/// Up to where messages of an older epoch are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// No commit, manifest or page of a higher number is believed.
    pub last: CommitNo,
    /// SHA-256 of the only manifest of that epoch from which the current vault may be opened. Others are only for past
    /// states.
    pub base: Option<Hash>,
}

impl EpochEnd {
    /// Nothing of the epoch is left (K8): no commit has a number up to 0.
    pub const RETIRED: Self = Self { last: CommitNo(0), base: None };
}

/// The commit that a place belongs to, if it names one. Beyond its last commit, an older epoch is not believed.
pub(super) fn as_of(place: Place) -> Option<CommitNo> {
    match place {
        Place::Commit(number) | Place::Manifest(number) | Place::Page(number, _) => Some(number),
        _ => None,
    }
}

/// Whether a place is on this machine alone. Such messages stay in the first epoch, so that a machine that opens the vault
/// with an older superblock can still read its own notes (O2).
pub(super) fn is_local(place: Place) -> bool {
    matches!(place, Place::JournalRecord { .. } | Place::Local(..))
}
