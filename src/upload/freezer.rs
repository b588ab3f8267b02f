//! Packs that are about to be deleted in the bucket, and packs that appends refer to meanwhile (K5).

use std::collections::HashSet;

use crate::types::PackId;

/// How many mentioned packs are remembered during a deletion; beyond that, it freezes nothing.
const MENTIONED_MAX: usize = 1 << 20;

/// What deletion and appends must know of each other. One deletion is under way at a time.
#[derive(Debug, Default)]
pub(super) struct Freezer {
    /// Packs that an append has referred to since the deletion began; `None` if none is under way.
    mentioned: Option<HashSet<PackId>>,
    /// An append that refers to one of these is an error.
    frozen: HashSet<PackId>,
}

impl Freezer {
    /// A deletion begins: from now on mentioned packs are remembered. Nothing is frozen.
    pub(super) fn begin(&mut self) {
        *self = Self { mentioned: Some(HashSet::new()), frozen: HashSet::new() };
    }

    /// A transaction that refers to this pack is about to be appended.
    pub(super) fn mention(&mut self, pack: PackId) {
        if let Some(mentioned) = &mut self.mentioned
            && mentioned.len() <= MENTIONED_MAX
        {
            mentioned.insert(pack);
        }
    }

    /// Freezes those of `packs` that no append has mentioned, and returns them; none if too many were
    /// mentioned to tell.
    pub(super) fn freeze(&mut self, packs: impl Iterator<Item = PackId>) -> Vec<PackId> {
        let Some(mentioned) = self.mentioned.as_ref().filter(|all| all.len() <= MENTIONED_MAX)
        else {
            return Vec::new();
        };
        let frozen: Vec<_> = packs.filter(|pack| !mentioned.contains(pack)).collect();
        self.frozen.extend(&frozen);
        frozen
    }

    /// Whether nothing may refer to this pack any more.
    pub(super) fn is_frozen(&self, pack: PackId) -> bool {
        self.frozen.contains(&pack)
    }

    /// Ends the freeze: the packs are gone, or stay after all.
    pub(super) fn thaw(&mut self) {
        self.frozen.clear();
    }

    /// The deletion has ended.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}
