//! Which directory is shown, and how.

use super::place::PagePlace;
use crate::gateway::order::Sort;

/// The parameters of a directory view.
#[derive(Clone, Default)]
pub(super) struct DirectoryView {
    pub(super) place: PagePlace,
    /// What to search for, everywhere below the directory; empty: no search.
    pub(super) search: Vec<u8>,
    pub(super) sort: Option<Sort>,
    pub(super) is_descending: bool,
    pub(super) cursor: Option<Vec<u8>>,
    pub(super) done: Option<&'static str>,
}

impl DirectoryView {
    /// All of a directory, from its beginning.
    pub(super) fn of(place: PagePlace) -> Self {
        Self { place, ..Self::default() }
    }
}
