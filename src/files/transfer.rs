//! How the caller of an operation on a whole tree learns of its progress.

use std::ops::ControlFlow;

use super::Error;

/// One step of an operation on a tree.
#[derive(Debug)]
pub enum TreeStep<'a> {
    /// This many bytes of content are done.
    Bytes(u64),
    /// One more inode is done.
    Done,
    /// This path failed, with its error; the rest goes on.
    Failed(&'a [u8], &'a Error),
}

/// Called for each step; `Break` ends the operation.
pub type OnTree<'a> = &'a mut (dyn FnMut(TreeStep<'_>) -> ControlFlow<()> + Send);

/// Reports a step.
pub(super) fn tell(on: OnTree<'_>, step: TreeStep<'_>) -> super::Result<()> {
    match on(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::GivenUp),
    }
}
