//! How a kernel request appears in the log: with `-vv` each is a span, and its end a line.

use std::time::Instant;

use fuser::{INodeNo, Request};
use tracing::Span;
use tracing::field::Empty;

use crate::os;

/// One request: its kind, its inode and its span. If nobody listens at this level there is no span, and nothing is
/// formatted or kept for it. File names are never logged here.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) kind: &'static str,
    pub(super) ino: u64,
    pub(super) span: Span,
    begun: Instant,
}

impl Operation {
    /// A request as it comes in. If it names an entry, `node` is the directory.
    pub(super) fn of(kind: &'static str, request: &Request, node: INodeNo) -> Self {
        Self::new(kind, request.unique().0, node.0)
    }

    pub(super) fn new(kind: &'static str, number: u64, ino: u64) -> Self {
        let span = tracing::trace_span!("request", op = %kind, ino, number, errno = Empty);
        Self { kind, ino, span, begun: Instant::now() }
    }

    /// Counts the request as failed, with this errno.
    pub(super) fn failed(&self, errno: i32) {
        self.span.record("errno", errno);
        os::operation_done(self.kind, self.begun.elapsed(), true);
    }

    /// Counts the request as successful.
    pub(super) fn done(&self) {
        os::operation_done(self.kind, self.begun.elapsed(), false);
    }
}
