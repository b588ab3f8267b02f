//! Up to where packs may leave staging (C4).

use crate::log::Journal;
use crate::types::Seq;

/// The transaction up to which all are confirmed, and durably noted so in the journal (C4). Made only from the
/// journal's note, which moves only by a receipt, or by what W1 found in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled(Seq);

impl Settled {
    pub(super) fn of(journal: &Journal) -> Self {
        Self(journal.durable_noted().upto())
    }

    pub(super) fn upto(self) -> Seq {
        self.0
    }
}
