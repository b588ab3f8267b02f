//! What a request of the kernel is called in the log: with `-vv` each is a span, and its end a line.

use std::time::Instant;

use fuser::{INodeNo, Request};
use tracing::Span;
use tracing::field::Empty;

use crate::os;

/// One request: its kind, its inode, and its span. Where nobody listens at this level there is no span: nothing is
/// formatted or kept for it. Names never get here.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) kind: &'static str,
    pub(super) ino: u64,
    pub(super) span: Span,
    begun: Instant,
}

impl Operation {
    /// A request as it comes in. Of one that names an entry, `node` is the directory.
    pub(super) fn of(kind: &'static str, request: &Request, node: INodeNo) -> Self {
        Self::new(kind, request.unique().0, node.0)
    }

    pub(super) fn new(kind: &'static str, number: u64, ino: u64) -> Self {
        let span = tracing::trace_span!("request", op = %kind, ino, number, errno = Empty);
        Self { kind, ino, span, begun: Instant::now() }
    }

    /// It failed: its answer is an errno.
    pub(super) fn failed(&self, errno: i32) {
        self.span.record("errno", errno);
        os::operation_done(self.kind, self.begun.elapsed(), true);
    }

    /// Its answer is what was asked for.
    pub(super) fn done(&self) {
        os::operation_done(self.kind, self.begun.elapsed(), false);
    }
}
