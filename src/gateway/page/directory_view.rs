//! Which directory is looked at, and how.

use super::place::PagePlace;
use crate::gateway::order::Sort;

/// What is looked at.
#[derive(Clone, Default)]
pub(super) struct DirectoryView {
    pub(super) place: PagePlace,
    /// If anything is looked for: everywhere below the directory.
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
