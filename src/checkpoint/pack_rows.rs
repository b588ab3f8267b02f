//! The table of packs (rule K3): what each pack is still needed for.
//!
//! No transaction carries counts. The merge sees every version that a changed record had since the previous checkpoint,
//! and adds up what that means for the packs that the versions refer to.

use std::collections::HashMap;

use minicbor::{Decode, Encode};

use super::{Error, Result};
use crate::records::extent_of;
use crate::types::{CommitNo, PackId};

/// A row of the table of packs: the value under `Key::Pack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PackInfo {
    /// How many records refer to the pack; exact.
    #[n(0)]
    pub references: u64,
    /// Plaintext bytes that these records refer to; parts shared by two records count twice.
    #[n(1)]
    pub live: u64,
    /// The first commit that referred to it.
    #[n(2)]
    pub birth: CommitNo,
    /// The commit that removed the last reference; `None` while there is one.
    #[n(3)]
    pub death: Option<CommitNo>,
}

impl PackInfo {
    /// Whether nothing refers to the pack from `commit` on (K4).
    pub fn is_dead_at(&self, commit: CommitNo) -> bool {
        self.references == 0 && self.death.is_some_and(|death| death <= commit)
    }

    /// Whether the pack was born at or before `commit` and died after it, if at all: the state as of that commit may need
    /// it.
    pub fn lived_at(&self, commit: CommitNo) -> bool {
        self.birth <= commit && self.death.is_none_or(|death| commit < death)
    }
}

/// What one version of a record refers to: a pack, and how many bytes of it.
pub(super) type PackShare = (PackId, u64);

/// The pack and the bytes that a record refers to, if it does.
pub(super) fn pack_share_of(key: &[u8], value: &[u8]) -> Result<Option<PackShare>> {
    let extent = extent_of(key, value)?;
    Ok(extent.map(|extent| (extent.reference.pack, extent.length)))
}

/// What commits changed in one row. It takes 48 bytes, however many records they changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PackDelta {
    references: i64,
    live: i64,
    first_added: Option<CommitNo>,
    last_removed: Option<CommitNo>,
}

impl PackDelta {
    /// The row after these changes.
    pub(super) fn apply(&self, before: Option<&PackInfo>) -> Result<PackInfo> {
        let bad = |why| Error::malformed("the table of packs", why);
        let old = before.cloned().unwrap_or_default();
        let references = old.references.checked_add_signed(self.references);
        let references = references.ok_or_else(|| bad("a pack has fewer references than none"))?;
        let live = old.live.checked_add_signed(self.live);
        let live = live.ok_or_else(|| bad("a pack has fewer live bytes than none"))?;
        if references == 0 && live != 0 {
            return Err(bad("a pack without references has live bytes"));
        }
        let birth = before.map(|row| row.birth).or(self.first_added);
        let birth = birth.ok_or_else(|| bad("a pack loses a reference that it never had"))?;
        // If nothing is left, the last change was the loss of a reference.
        let death = if references == 0 { self.last_removed.or(old.death) } else { None };
        Ok(PackInfo { references, live, birth, death })
    }
}

/// What the commits since the previous checkpoint changed in the table: one entry for each pack that they mention.
#[derive(Debug, Default)]
pub(super) struct PackDeltas {
    rows: HashMap<PackId, PackDelta>,
    live: i64,
}

impl PackDeltas {
    /// Notes that a record refers to `after` instead of `before` from `commit` on.
    pub(super) fn note(
        &mut self,
        before: Option<PackShare>,
        after: Option<PackShare>,
        commit: CommitNo,
    ) {
        if before == after {
            return;
        }
        if let Some((pack, bytes)) = before {
            let row = self.rows.entry(pack).or_default();
            row.references -= 1;
            row.live -= bytes.cast_signed();
            row.last_removed = row.last_removed.max(Some(commit));
            self.live -= bytes.cast_signed();
        }
        if let Some((pack, bytes)) = after {
            let row = self.rows.entry(pack).or_default();
            row.references += 1;
            row.live += bytes.cast_signed();
            row.first_added = Some(row.first_added.map_or(commit, |first| first.min(commit)));
            self.live += bytes.cast_signed();
        }
    }

    /// By how much the live bytes of all packs changed.
    pub(super) fn live(&self) -> i64 {
        self.live
    }

    /// The changed rows.
    pub(super) fn into_rows(self) -> impl Iterator<Item = (PackId, PackDelta)> {
        self.rows.into_iter()
    }
}
