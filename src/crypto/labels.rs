//! The only table of HKDF labels: every key of a vault, its purpose, and the bytes that set it apart.
//!
//! A subkey is `HKDF-SHA-512(salt = vault id, ikm = master key, info = PREFIX || label || 0x00 || epoch)`,
//! with the epoch as 4 big-endian bytes. A label never changes, because messages sealed under it must
//! still open.

use crate::types::KeyEpoch;

/// The start of every info string of this format.
const PREFIX: &[u8] = b"s3vault/v1/";

/// The purpose of a derived key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// Extents and the footers of packs.
    Content,
    /// Commits.
    Commits,
    /// Pages and manifests of checkpoints.
    Pages,
    /// MAC of the superblock.
    Superblock,
    /// Notes in key slots.
    SlotNotes,
    /// The master keys of earlier epochs.
    OlderKeys,
    /// The local journal.
    Journal,
    /// Values of the local index.
    IndexValues,
    /// Inode numbers in keys of the local index.
    IndexNumbers,
    /// Other small local files (staging, cache).
    Local,
    /// `H`, the keyed hash of (parent, name).
    Names,
    /// The key of a recovery slot, derived from the recovery key instead of the master key.
    RecoverySlot,
}

impl Label {
    #[cfg(test)]
    pub(super) const ALL: [Self; 12] = [
        Self::Content,
        Self::Commits,
        Self::Pages,
        Self::Superblock,
        Self::SlotNotes,
        Self::OlderKeys,
        Self::Journal,
        Self::IndexValues,
        Self::IndexNumbers,
        Self::Local,
        Self::Names,
        Self::RecoverySlot,
    ];

    const fn text(self) -> &'static [u8] {
        match self {
            Self::Content => b"content",
            Self::Commits => b"commits",
            Self::Pages => b"pages",
            Self::Superblock => b"superblock mac",
            Self::SlotNotes => b"slot notes",
            Self::OlderKeys => b"older keys",
            Self::Journal => b"journal",
            Self::IndexValues => b"index values",
            Self::IndexNumbers => b"index numbers",
            Self::Local => b"local",
            Self::Names => b"names",
            Self::RecoverySlot => b"recovery slot",
        }
    }

    /// The info string of HKDF.
    pub(super) fn info(self, epoch: KeyEpoch) -> Vec<u8> {
        [PREFIX, self.text(), &[0], &epoch.0.to_be_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_without_zero_bytes() {
        for (at, label) in Label::ALL.iter().enumerate() {
            assert!(!label.text().contains(&0), "{label:?}");
            assert!(Label::ALL[..at].iter().all(|other| other.text() != label.text()), "{label:?}");
        }
    }
}
