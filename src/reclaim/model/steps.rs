//! Collects what may happen next, with names for the trace.

use super::rules::SearchSpace;
use super::state::VaultMoment;

/// A step as the trace shows it. Machine 2 stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepName {
    pub(super) machine: u8,
    pub(super) what: &'static str,
    pub(super) of: u8,
}

pub(super) const NOBODY: u8 = 2;

pub(super) struct Steps<'a> {
    pub(super) space: &'a SearchSpace,
    pub(super) from: &'a VaultMoment,
    pub(super) next: Vec<(StepName, VaultMoment)>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(space: &'a SearchSpace, from: &'a VaultMoment) -> Self {
        Self { space, from, next: Vec::new() }
    }

    /// Adds a step that may happen now.
    pub(super) fn may(
        &mut self,
        machine: u8,
        what: &'static str,
        of: u8,
        change: impl FnOnce(&mut VaultMoment),
    ) {
        let mut next = *self.from;
        change(&mut next);
        self.next.push((StepName { machine, what, of }, next));
    }
}
