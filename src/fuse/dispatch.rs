//! From a future of the vfs to a reply: on the request's own thread when nothing has to be waited for, else by a task.
//!
//! fuser passes no interrupts on, so a caller cannot be killed before its reply: every request is answered within
//! `DEADLINE`, and a panic is an EIO.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::Errno;
use futures_util::FutureExt;
use tokio::runtime::Handle;

use crate::vfs;

/// After this the caller gets EIO, while the operation goes on to its end. The rooms below have deadlines of 30 s:
/// this is for what they overlook.
const DEADLINE: Duration = Duration::from_secs(35);

/// A reply that can say an errno.
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

/// What a request comes to.
type Outcome<T> = std::thread::Result<vfs::Result<T>>;

/// Runs requests.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    runtime: Handle,
    deadline: Duration,
}

impl Dispatch {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, deadline: DEADLINE }
    }

    /// Answers `reply` by `ok` with what `work` yields, or with its errno. `what` is a word for the log.
    pub(super) fn answer<R: Fails, T: Send + 'static>(
        &self,
        what: &'static str,
        reply: R,
        work: impl Future<Output = vfs::Result<T>> + Send + 'static,
        ok: impl FnOnce(R, T) + Send + 'static,
    ) {
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        let _runtime = self.runtime.enter();
        // Whoever is pending is polled again at once by the task, with its own waker.
        let mut context = Context::from_waker(Waker::noop());
        match work.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => finish(what, reply, outcome, ok),
            Poll::Pending => {
                self.runtime.spawn(wait(what, self.deadline, reply, work, ok));
            }
        }
    }

    /// Runs `first`, the part of a request that borrows its bytes, inside the runtime; a panic counts as pending,
    /// and comes again where it is caught.
    pub(super) fn now<T>(&self, first: impl FnOnce() -> Option<T>) -> Option<T> {
        let _runtime = self.runtime.enter();
        std::panic::catch_unwind(AssertUnwindSafe(first)).unwrap_or(None)
    }
}

async fn wait<R: Fails, T>(
    what: &'static str,
    deadline: Duration,
    reply: R,
    mut work: Pin<Box<impl Future<Output = Outcome<T>>>>,
    ok: impl FnOnce(R, T),
) {
    match tokio::time::timeout(deadline, work.as_mut()).await {
        Ok(outcome) => finish(what, reply, outcome, ok),
        Err(_elapsed) => {
            tracing::error!(what, "a request was not answered in time: EIO");
            reply.fail(Errno::EIO);
            // Half an operation is worse than a late one.
            if let Ok(Err(error)) = work.await {
                tracing::error!(what, %error, "it failed in the end");
            }
        }
    }
}

fn finish<R: Fails, T>(what: &'static str, reply: R, outcome: Outcome<T>, ok: impl FnOnce(R, T)) {
    match outcome {
        Ok(Ok(value)) => ok(reply, value),
        Ok(Err(error)) => {
            let errno = Errno::from_i32(error.errno());
            if errno == Errno::EIO {
                tracing::error!(what, error = &error as &dyn std::error::Error, "EIO");
            }
            reply.fail(errno);
        }
        Err(_panic) => {
            tracing::error!(what, "a request's handler panicked: EIO");
            reply.fail(Errno::EIO);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;

    use super::*;

    #[derive(Debug)]
    struct Reply(Sender<Result<ThreadId, i32>>);

    impl Fails for Reply {
        fn fail(self, errno: Errno) {
            self.0.send(Err(errno.code())).unwrap();
        }
    }

    fn ask(
        dispatch: &Dispatch,
        work: impl Future<Output = vfs::Result<()>> + Send + 'static,
    ) -> Receiver<Result<ThreadId, i32>> {
        let (sender, receiver) = channel();
        dispatch.answer("test", Reply(sender), work, |reply, ()| {
            reply.0.send(Ok(std::thread::current().id())).unwrap();
        });
        receiver
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn what_is_ready_is_answered_on_the_request_thread_and_what_waits_by_a_task() {
        let runtime = runtime();
        let dispatch = Dispatch::new(runtime.handle().clone());
        let here = std::thread::current().id();
        assert_eq!(ask(&dispatch, async { Ok(()) }).recv().unwrap(), Ok(here));
        let waits = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(())
        };
        assert!(ask(&dispatch, waits).recv().unwrap().is_ok_and(|thread| thread != here));
        let fails = async { Err(vfs::Error::NotEmpty) };
        assert_eq!(ask(&dispatch, fails).recv().unwrap(), Err(libc::ENOTEMPTY));
    }

    #[test]
    fn a_panic_is_an_eio_at_once_and_later() {
        let runtime = runtime();
        let dispatch = Dispatch::new(runtime.handle().clone());
        assert_eq!(ask(&dispatch, async { panic!("planted") }).recv().unwrap(), Err(libc::EIO));
        let later = async {
            tokio::task::yield_now().await;
            panic!("planted")
        };
        assert_eq!(ask(&dispatch, later).recv().unwrap(), Err(libc::EIO));
    }

    #[tokio::test]
    async fn every_request_is_answered_within_its_deadline() {
        let deadline = Duration::from_millis(10);
        let dispatch = Dispatch { runtime: Handle::current(), deadline };
        let answer = ask(&dispatch, std::future::pending());
        tokio::time::sleep(deadline * 10).await;
        assert_eq!(answer.try_recv().unwrap(), Err(libc::EIO));
    }
}
