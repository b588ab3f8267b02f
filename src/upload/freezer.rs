//! Which packs are about to be deleted in the bucket, and what appends refer to meanwhile (K5).

use std::collections::HashSet;

use crate::types::PackId;

/// Packs that appends mention while a deletion is under way, at most: beyond, the deletion is given up.
const MENTIONED_MAX: usize = 1 << 20;

/// What a deletion must know of appends, and they of it. One deletion is under way at a time.
#[derive(Debug, Default)]
pub(super) struct Freezer {
    /// Packs that a transaction referred to since the deletion began; `None`: none is under way.
    mentioned: Option<HashSet<PackId>>,
    /// An append that refers to one of these is an error.
    frozen: HashSet<PackId>,
}

impl Freezer {
    /// A deletion begins: from now on what is referred to is kept in mind. Nothing is frozen.
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

    /// Freezes those of `packs` that nothing was appended for; none when it is not known.
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

    /// What was frozen is gone, or stays after all.
    pub(super) fn thaw(&mut self) {
        self.frozen.clear();
    }

    /// No deletion is under way any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}
