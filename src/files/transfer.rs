//! How those hear of a work on a whole tree who asked for it.

use std::ops::ControlFlow;

use super::Error;

/// One step of a work on a tree.
#[derive(Debug)]
pub enum TreeStep<'a> {
    /// So many bytes of content are done.
    Bytes(u64),
    /// One more thing is done.
    Done,
    /// This could not be done; the rest goes on.
    Failed(&'a [u8], &'a Error),
}

/// Hears of each step; `Break` ends the work.
pub type OnTree<'a> = &'a mut (dyn FnMut(TreeStep<'_>) -> ControlFlow<()> + Send);

/// Tells a step.
pub(super) fn tell(on: OnTree<'_>, step: TreeStep<'_>) -> super::Result<()> {
    match on(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::GivenUp),
    }
}
