//! Up to where packs may leave staging (C4).

use crate::log::Journal;
use crate::types::Seq;

/// Up to here every transaction is confirmed, and that is durable in the journal: what C4 asks for. Made from the
/// journal's own note alone, which only a receipt moves.
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
