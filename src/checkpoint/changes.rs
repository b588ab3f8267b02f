//! What commits changed, gathered in passes that each fit into memory (rule K1).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::pack_rows::{PackDelta, PackShare, pack_share_of};
use super::{Error, Result};
use crate::log::CommitContent;
use crate::records::{Key, Tag, Transaction};
use crate::types::CommitNo;

/// What a changed record costs in memory besides its key and value: nodes and vectors.
const OVERHEAD: usize = 160;

/// Pins and the horizon, as the commits changed them; `None`: deleted.
pub(super) type PinChanges = BTreeMap<Vec<u8>, Option<Bytes>>;

/// A version of a record that refers to something else than the version before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    pub(super) commit: CommitNo,
    pub(super) part: Option<PackShare>,
}

/// What happened to one record.
#[derive(Debug)]
pub(super) enum Changed {
    /// It was put or deleted, perhaps more than once: everything that it referred to on the way, and its
    /// last value.
    Record { versions: Vec<Version>, last: Option<Bytes> },
    /// A row of the table of packs changes by this delta.
    Pack(PackDelta),
}

impl Changed {
    fn weight(&self) -> usize {
        match self {
            Self::Record { versions, last } => {
                OVERHEAD + size_of_val(&**versions) + last.as_ref().map_or(0, Bytes::len)
            }
            Self::Pack(_) => OVERHEAD,
        }
    }
}

/// The smallest changed keys from `from` on that fit into the budget.
#[derive(Debug)]
pub(super) struct Gathered {
    from: Vec<u8>,
    /// All changes below this key are in `records`; `None`: all changes are.
    until: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Changed>,
    weight: usize,
    budget: usize,
    /// The most bytes that were held at once.
    peak: usize,
}

/// The first key of the table of packs; all gathered changes are below it.
pub(super) fn packs_begin() -> Vec<u8> {
    Tag::Pack.begin().to_vec()
}

/// The first key of `history`, the table after the packs.
pub(super) fn history_begins() -> Vec<u8> {
    Tag::History.begin().to_vec()
}

impl Gathered {
    pub(super) fn new(from: Vec<u8>, budget: usize) -> Self {
        Self { from, until: None, records: BTreeMap::new(), weight: 0, budget, peak: 0 }
    }

    /// Takes as much of a commit as this pass can hold. Commits come in order. History records go to
    /// `history` (16 bytes for each commit, so never too much), and pins are also noted in `pins`.
    pub(super) fn take(
        &mut self,
        commit: &CommitContent,
        history: &mut BTreeMap<Vec<u8>, Changed>,
        pins: &mut PinChanges,
    ) -> Result<()> {
        let number = commit.header.number;
        for change in &commit.header.records {
            self.change(number, &change.key, change.value.as_deref(), history, pins)?;
        }
        for bytes in &commit.transactions {
            Transaction::visit(bytes, |key, value| self.change(number, key, value, history, pins))?;
        }
        Ok(())
    }

    fn change(
        &mut self,
        commit: CommitNo,
        key: &[u8],
        value: Option<&[u8]>,
        history: &mut BTreeMap<Vec<u8>, Changed>,
        pins: &mut PinChanges,
    ) -> Result<()> {
        match Key::decode(key)? {
            Key::Pack(_) => {
                let what = format!("commit {commit}");
                return Err(Error::malformed(what, "it holds a row of the table of packs"));
            }
            Key::History(_) => {
                let last = value.map(Bytes::copy_from_slice);
                history.insert(key.to_vec(), Changed::Record { versions: Vec::new(), last });
                return Ok(());
            }
            Key::Pin(_) => {
                pins.insert(key.to_vec(), value.map(Bytes::copy_from_slice));
            }
            _ => {}
        }
        let outside = self.until.as_ref().is_some_and(|until| key >= until.as_slice());
        if outside || key < self.from.as_slice() {
            return Ok(());
        }
        let part = value.map(|value| pack_share_of(key, value)).transpose()?.flatten();
        self.note(Version { commit, part }, key, value);
        while self.weight > self.budget && self.records.len() > 1 {
            let Some((key, changed)) = self.records.pop_last() else { break };
            self.weight -= key.len() + changed.weight();
            self.until = Some(key);
        }
        Ok(())
    }

    fn note(&mut self, version: Version, key: &[u8], value: Option<&[u8]>) {
        // A copy: a slice would keep the whole commit in memory.
        let value = value.map(Bytes::copy_from_slice);
        if let Some(changed) = self.records.get_mut(key) {
            let before = changed.weight();
            if let Changed::Record { versions, last } = changed {
                if versions.last().is_none_or(|before| before.part != version.part) {
                    versions.push(version);
                }
                *last = value;
            }
            self.weight = self.weight + changed.weight() - before;
        } else {
            let new = Changed::Record { versions: vec![version], last: value };
            self.weight += key.len() + new.weight();
            self.records.insert(key.to_vec(), new);
        }
        self.peak = self.peak.max(self.weight);
    }

    /// The most bytes that were held at once.
    pub(super) fn peak(&self) -> usize {
        self.peak
    }

    /// The changes, and the key below which they are complete (`None`: no limit).
    pub(super) fn into_parts(self) -> (BTreeMap<Vec<u8>, Changed>, Option<Vec<u8>>) {
        (self.records, self.until)
    }
}
