//! Replies that carry an errno.

use fuser::Errno;

use super::operation::Operation;

/// A reply that can carry an errno.
pub(super) trait Fails: Send + 'static {
    fn fail(self, errno: Errno);
}

macro_rules! fails {
    ($($reply:ident),*) => {
        $(impl Fails for fuser::$reply {
            fn fail(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

fails!(
    ReplyEmpty,
    ReplyData,
    ReplyEntry,
    ReplyAttr,
    ReplyOpen,
    ReplyWrite,
    ReplyStatfs,
    ReplyCreate,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyXattr,
    ReplyLseek
);

/// Replies with an errno, and records it in the operation's span.
pub(super) fn refuse<R: Fails>(op: &Operation, reply: R, errno: Errno) {
    op.failed(errno.code());
    reply.fail(errno);
}
