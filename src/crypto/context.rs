//! The context of a seal: bytes that bind a message to its place.
//!
//! The layout, with big-endian integers: format version (2 bytes), vault id (16), key epoch (4), kind (1),
//! then fields whose lengths the kind fixes. So no two places have the same context.

use super::labels::Label;
use crate::types::{CommitNo, ExtentId, JournalId, KeyEpoch, PackId, PageId, VaultId};

/// The version of the format, bound into every seal.
const FORMAT: u16 = 1;

/// Kinds 1 to 31 are for the bucket, the others only for this machine.
const KIND_EXTENT: u8 = 1;
const KIND_FOOTER: u8 = 2;
const KIND_COMMIT: u8 = 3;
const KIND_PAGE: u8 = 4;
const KIND_MANIFEST: u8 = 5;
const KIND_SLOT: u8 = 6;
const KIND_TRAILER: u8 = 7;
const KIND_SLOT_NOTE: u8 = 8;
const KIND_OLDER_KEY: u8 = 9;
// 32 was meant for the header of a journal segment, and was never written.
const KIND_JOURNAL_RECORD: u8 = 33;
const KIND_LOCAL: u8 = 34;

/// What a sealed message is, and where it belongs. A message opens only for the place for which it was
/// sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// An extent of a file's content.
    Extent(ExtentId),
    /// The footer of a pack.
    Footer(PackId),
    /// The last bytes of a pack, which give the place of its footer.
    Trailer(PackId),
    /// A commit, by its number in the log.
    Commit(CommitNo),
    /// A page of the checkpoint that first wrote it.
    Page(CommitNo, PageId),
    /// The manifest of a checkpoint.
    Manifest(CommitNo),
    /// The note (label and date) of the key slot with this salt.
    SlotNote([u8; 32]),
    /// The master key of an older epoch, in the superblock.
    OlderKey(KeyEpoch),
    /// A record of a journal.
    JournalRecord {
        /// The journal's id.
        journal: JournalId,
        /// The segment's number.
        segment: u64,
        /// Where in the segment the record begins, in bytes.
        offset: u64,
    },
    /// A small file of this machine: its name (at most 255 bytes), and a number.
    Local(&'static str, u64),
}

impl Place {
    /// The key that seals messages of this place.
    pub(super) const fn label(&self) -> Label {
        match self {
            Self::Extent(_) | Self::Footer(_) | Self::Trailer(_) => Label::Content,
            Self::Commit(_) => Label::Commits,
            Self::Page(..) | Self::Manifest(_) => Label::Pages,
            Self::JournalRecord { .. } => Label::Journal,
            Self::SlotNote(_) => Label::SlotNotes,
            Self::OlderKey(_) => Label::OlderKeys,
            Self::Local(..) => Label::Local,
        }
    }

    /// The context bytes of this place in a vault.
    pub(super) fn context(&self, vault: VaultId, epoch: KeyEpoch) -> Vec<u8> {
        match self {
            Self::Extent(id) => bytes(vault, epoch, KIND_EXTENT, &[&id.0]),
            Self::Footer(id) => bytes(vault, epoch, KIND_FOOTER, &[&id.0]),
            Self::Trailer(id) => bytes(vault, epoch, KIND_TRAILER, &[&id.0]),
            Self::Commit(number) => bytes(vault, epoch, KIND_COMMIT, &[&number.0.to_be_bytes()]),
            Self::Page(number, id) => {
                bytes(vault, epoch, KIND_PAGE, &[&number.0.to_be_bytes(), &id.0])
            }
            Self::Manifest(number) => {
                bytes(vault, epoch, KIND_MANIFEST, &[&number.0.to_be_bytes()])
            }
            Self::SlotNote(salt) => bytes(vault, epoch, KIND_SLOT_NOTE, &[salt]),
            Self::OlderKey(older) => bytes(vault, epoch, KIND_OLDER_KEY, &[&older.0.to_be_bytes()]),
            Self::JournalRecord { journal, segment, offset } => bytes(
                vault,
                epoch,
                KIND_JOURNAL_RECORD,
                &[&journal.0, &segment.to_be_bytes(), &offset.to_be_bytes()],
            ),
            Self::Local(name, number) => {
                let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
                debug_assert_eq!(
                    usize::from(length),
                    name.len(),
                    "a local name is a short constant"
                );
                let tail = [&[length][..], name.as_bytes()];
                bytes(vault, epoch, KIND_LOCAL, &[tail[0], tail[1], &number.to_be_bytes()])
            }
        }
    }
}

/// The context of a key slot's seal. `parameters` are all that the slot says about how its key is made, in
/// the fixed layout of `slots.rs`.
pub(super) fn of_slot(vault: VaultId, epoch: KeyEpoch, parameters: &[u8]) -> Vec<u8> {
    bytes(vault, epoch, KIND_SLOT, &[parameters])
}

fn bytes(vault: VaultId, epoch: KeyEpoch, kind: u8, rest: &[&[u8]]) -> Vec<u8> {
    let mut context = Vec::with_capacity(64);
    context.extend_from_slice(&FORMAT.to_be_bytes());
    context.extend_from_slice(&vault.0);
    context.extend_from_slice(&epoch.0.to_be_bytes());
    context.push(kind);
    for part in rest {
        context.extend_from_slice(part);
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAULT: VaultId = VaultId([0xaa; 16]);

    #[test]
    fn the_layout_is_as_documented() {
        let context = Place::Page(CommitNo(5), PageId([1; 16])).context(VAULT, KeyEpoch(1));
        let mut expected = vec![0, 1];
        expected.extend([0xaa; 16]);
        expected.extend([0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 5]);
        expected.extend([1; 16]);
        assert_eq!(context, expected);
    }

    #[test]
    fn no_two_places_share_a_context() {
        let journal = JournalId([2; 16]);
        let places = [
            Place::Extent(ExtentId([1; 16])),
            Place::Extent(ExtentId([2; 16])),
            Place::Footer(PackId([1; 16])),
            Place::Trailer(PackId([1; 16])),
            Place::Commit(CommitNo(1)),
            Place::Commit(CommitNo(2)),
            Place::Manifest(CommitNo(1)),
            Place::OlderKey(KeyEpoch(1)),
            Place::OlderKey(KeyEpoch(2)),
            Place::Page(CommitNo(1), PageId([1; 16])),
            Place::Page(CommitNo(2), PageId([1; 16])),
            Place::JournalRecord { journal, segment: 1, offset: 0 },
            Place::JournalRecord { journal, segment: 0, offset: 1 },
            Place::Local("a", 1),
            Place::Local("ab", 1),
            Place::Local("", 1),
        ];
        let contexts: std::collections::HashSet<_> =
            places.iter().map(|place| place.context(VAULT, KeyEpoch(1))).collect();
        assert_eq!(contexts.len(), places.len());
        for (vault, epoch) in [(VaultId([0; 16]), KeyEpoch(1)), (VAULT, KeyEpoch(2))] {
            assert!(places.iter().all(|place| !contexts.contains(&place.context(vault, epoch))));
        }
    }
}
