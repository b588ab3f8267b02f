//! From a future of the vfs to a reply: on the request's own thread if the future does not wait, otherwise in a task.
//!
//! fuser does not pass interrupts on, so a caller cannot be killed before its reply. Therefore every request gets a
//! reply in time, and a panic becomes an EIO. An operation that was reported as failed does not happen afterwards (V5).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::Errno;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::operation::Operation;
use super::reply::{Fails, refuse};
use crate::os;
use crate::vfs;

/// After this time the caller gets EIO, and the operation does not happen. The layers below have deadlines of 30 s;
/// this one catches what they miss. A step that takes longer although all is well says so (`vfs::extend_deadline`).
const DEADLINE: Duration = Duration::from_secs(35);
/// How much longer an operation that has had an effect may take after its deadline, so that its caller learns how it
/// ended.
const GRACE: Duration = Duration::from_secs(10);

/// The result of a request, or that it panicked.
type CaughtResult<T> = Result<vfs::Result<T>, os::Panicked>;

/// Runs requests.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    runtime: Handle,
    limits: TimeLimits,
}

/// The time limits of requests.
#[derive(Clone, Copy, Debug)]
struct TimeLimits {
    deadline: Duration,
    grace: Duration,
}

impl Dispatch {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, limits: TimeLimits { deadline: DEADLINE, grace: GRACE } }
    }

    /// Runs `work`, and replies with what it yields (through `ok`) or with its errno. All of it runs in the operation's
    /// span.
    pub(super) fn answer<R: Fails, T: Send + 'static>(
        &self,
        op: Operation,
        reply: R,
        work: impl Future<Output = vfs::Result<T>> + Send + 'static,
        ok: impl FnOnce(R, T) + Send + 'static,
    ) {
        let request = vfs::TimedRequest::default();
        let work = os::watched("a request", request.run(work));
        let mut work = Box::pin(work.instrument(op.span.clone()));
        let _runtime = self.runtime.enter();
        // This poll needs no waker: the task polls pending work again at once, with its own.
        let mut context = Context::from_waker(Waker::noop());
        match os::may_block(|| work.as_mut().poll(&mut context)) {
            Poll::Ready(outcome) => finish(&op, reply, outcome, ok),
            Poll::Pending => {
                let limits = self.limits;
                self.runtime.spawn(async move {
                    match in_time(limits, &request, work.as_mut()).await {
                        Some(outcome) => finish(&op, reply, outcome, ok),
                        None => too_late(&op, reply, &request, work).await,
                    }
                });
            }
        }
    }

    /// Runs work that no caller waits for, to its end.
    pub(super) fn tend(&self, op: Operation, work: impl Future<Output = ()> + Send + 'static) {
        let work = os::watched("what no caller waits for", work);
        let mut work = Box::pin(work.instrument(op.span.clone()));
        let _runtime = self.runtime.enter();
        let tended = move |outcome: Result<(), os::Panicked>| match outcome {
            Ok(()) => op.done(),
            Err(_) => {
                tracing::error!(what = op.kind, ino = op.ino, "it ended by that panic");
            }
        };
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => tended(outcome),
            Poll::Pending => drop(self.runtime.spawn(async move { tended(work.await) })),
        }
    }

    /// As [`Dispatch::tend`], for work that never waits. Returns what is left to do; `None` if nothing is, or after a
    /// panic.
    pub(super) fn tend_now<T>(
        &self,
        op: &Operation,
        work: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let _span = op.span.enter();
        os::watched_here("what no caller waits for", work).unwrap_or(None)
    }

    /// Runs `first`, the part of a request that borrows the request's bytes, inside the runtime. `None` means that it
    /// has to wait, or panicked; then the whole request runs (and panics) again in [`Dispatch::answer`], which catches
    /// it.
    pub(super) fn now<T>(&self, op: &Operation, first: impl FnOnce() -> Option<T>) -> Option<T> {
        let (_runtime, _span) = (self.runtime.enter(), op.span.enter());
        os::watched_here("a request", first).unwrap_or(None)
    }
}

/// The result of the request, if it comes while the caller still waits.
async fn in_time<T>(
    limits: TimeLimits,
    request: &vfs::TimedRequest,
    mut work: Pin<&mut impl Future<Output = CaughtResult<T>>>,
) -> Option<CaughtResult<T>> {
    let mut due = Instant::now() + limits.deadline;
    loop {
        if let Ok(outcome) = timeout_at(due, work.as_mut()).await {
            return Some(outcome);
        }
        match request.due() {
            Some(later) if later > due => due = later,
            _ => break,
        }
    }
    if !request.has_effect() {
        return None;
    }
    timeout_at(due + limits.grace, work).await.ok()
}

/// V5. An operation without an effect is dropped before its caller is told that it failed, so it never has one. An
/// operation that has had an effect is let run to its end, but has no further effect.
async fn too_late<R: Fails, T>(
    op: &Operation,
    reply: R,
    request: &vfs::TimedRequest,
    work: Pin<Box<impl Future<Output = CaughtResult<T>>>>,
) {
    tracing::error!(what = op.kind, ino = op.ino, "a request was not answered in time: EIO");
    request.answered();
    if !request.has_effect() {
        drop(work);
        return refuse(op, reply, Errno::EIO);
    }
    refuse(op, reply, Errno::EIO);
    if let Ok(Err(error)) = work.await {
        tracing::error!(what = op.kind, ino = op.ino, %error, "it failed in the end");
    }
}

fn finish<R: Fails, T>(op: &Operation, reply: R, outcome: CaughtResult<T>, ok: impl FnOnce(R, T)) {
    let _span = op.span.enter();
    match outcome {
        // fuser's thread survives a panic in here. A reply that is dropped sends EIO.
        Ok(Ok(value)) => {
            op.done();
            let _ = os::watched_here("a reply", || ok(reply, value));
        }
        Ok(Err(error)) => {
            let errno = Errno::from_i32(error.errno());
            if errno == Errno::EIO {
                let error = &error as &dyn std::error::Error;
                tracing::error!(what = op.kind, ino = op.ino, error, "EIO");
            }
            refuse(op, reply, errno);
        }
        Err(_panicked) => {
            tracing::error!(what = op.kind, ino = op.ino, "a request's handler panicked: EIO");
            refuse(op, reply, Errno::EIO);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;

    use super::*;
    use crate::types::InodeNo;
    use crate::vfs::tests::World;

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
        dispatch.answer(Operation::new("test", 1, 1), Reply(sender), work, |reply, ()| {
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
        let answer = ask(&hasty(), std::future::pending());
        assert_eq!(answered(answer).await, Err(libc::EIO));
    }

    /// A dispatch with very short limits.
    fn hasty() -> Dispatch {
        let limits = TimeLimits { deadline: SHORT, grace: SHORT };
        Dispatch { runtime: Handle::current(), limits }
    }

    const SHORT: Duration = Duration::from_millis(20);

    async fn answered(answer: Receiver<Result<ThreadId, i32>>) -> Result<ThreadId, i32> {
        tokio::task::spawn_blocking(move || answer.recv().unwrap()).await.unwrap()
    }

    const ALICE: vfs::Caller = vfs::Caller { uid: 1000, gid: 100, pid: 1, umask: 0o022 };
    const ROOT: InodeNo = InodeNo::ROOT;

    /// Makes a file with a handle for writing. The tests hold its publishing turn, as a slow store would.
    async fn file(vfs: &vfs::Vfs, name: &str, data: &[u8]) -> (InodeNo, vfs::HandleId) {
        let flags = vfs::OpenFlags { read: true, write: true, ..vfs::OpenFlags::default() };
        let (seen, handle) = vfs.create(&ALICE, ROOT, name.as_bytes(), 0o644, flags).await.unwrap();
        write(vfs, handle, 0, data).await;
        (seen.ino, handle)
    }

    async fn write(vfs: &vfs::Vfs, handle: vfs::HandleId, at: u64, data: &[u8]) {
        vfs.write(handle, vfs::WriteAt::Offset(at), data).await.unwrap();
    }

    /// Gives everything that can go on the time to do so.
    async fn settled() {
        tokio::time::sleep(10 * SHORT).await;
    }

    #[tokio::test]
    async fn v5_a_truncation_that_was_answered_as_failed_takes_nothing_away_later() {
        let world = World::new().await;
        let vfs = world.vfs().clone();
        let (ino, handle) = file(&vfs, "f", b"old").await;
        vfs.flush(handle).await.unwrap();
        let turn = vfs.keep_turn(ino).await;
        let cut = {
            let vfs = vfs.clone();
            let set = vfs::SetAttributes { size: Some(0), ..vfs::SetAttributes::default() };
            async move { vfs.set_attributes(ino, &set).await.map(drop) }
        };
        assert_eq!(answered(ask(&hasty(), cut)).await, Err(libc::EIO));
        drop(turn);
        write(&vfs, handle, 0, b"new content").await;
        vfs.flush(handle).await.unwrap();
        settled().await;
        assert_eq!(vfs.read_data(handle, 0, 100).await.unwrap(), b"new content"[..]);
    }

    #[tokio::test]
    async fn v5_a_rename_that_was_answered_as_failed_replaces_no_new_file() {
        let world = World::new().await;
        let vfs = world.vfs().clone();
        let (ino, _) = file(&vfs, "from", b"unpublished").await;
        let turn = vfs.keep_turn(ino).await;
        let rename = {
            let vfs = vfs.clone();
            let mode = vfs::RenameMode::Replace;
            async move { vfs.rename((ROOT, b"from"), (ROOT, b"to"), mode).await }
        };
        assert_eq!(answered(ask(&hasty(), rename)).await, Err(libc::EIO));
        let (new, _) = file(&vfs, "to", b"new").await;
        drop(turn);
        settled().await;
        assert_eq!(vfs.lookup(ROOT, b"to").await.unwrap().ino, new);
        assert_eq!(vfs.lookup(ROOT, b"from").await.unwrap().ino, ino);
    }

    #[tokio::test]
    async fn v5_an_open_that_was_answered_as_failed_leaves_no_handle_and_cuts_nothing() {
        let world = World::new().await;
        let vfs = world.vfs().clone();
        let (ino, handle) = file(&vfs, "f", b"precious").await;
        vfs.flush(handle).await.unwrap();
        vfs.release(handle).await.unwrap();
        let turn = vfs.keep_turn(ino).await;
        let open = {
            let vfs = vfs.clone();
            let flags = vfs::OpenFlags { write: true, truncate: true, ..vfs::OpenFlags::default() };
            async move { vfs.open(ino, flags).await.map(drop) }
        };
        assert_eq!(answered(ask(&hasty(), open)).await, Err(libc::EIO));
        drop(turn);
        settled().await;
        assert_eq!(vfs.attributes(ino).await.unwrap().size, 8);
        vfs.unlink(ROOT, b"f").await.unwrap();
        let gone = vfs.open(ino, vfs::OpenFlags::default()).await;
        assert!(matches!(gone, Err(vfs::Error::Stale)), "nobody had it open: {gone:?}");
    }

    #[tokio::test]
    async fn v5_what_has_begun_to_happen_says_how_it_ended_or_stops_where_it_is() {
        let world = World::new().await;
        let vfs = world.vfs().clone();
        let mkdirs = |vfs: vfs::Vfs, pause: Duration| async move {
            vfs.mkdir(&ALICE, ROOT, b"first", 0o755).await?;
            tokio::time::sleep(pause).await;
            vfs.mkdir(&ALICE, ROOT, b"second", 0o755).await.map(drop)
        };
        // It ends within the grace after its deadline.
        let made = answered(ask(&hasty(), mkdirs(vfs.clone(), SHORT * 3 / 2))).await;
        assert!(made.is_ok(), "{made:?}");
        vfs.rmdir(ROOT, b"first").await.unwrap();
        vfs.rmdir(ROOT, b"second").await.unwrap();
        // Long enough that a stall of the test machine changes nothing.
        let pause = SHORT * 100;
        let late = answered(ask(&hasty(), mkdirs(vfs.clone(), pause))).await;
        assert_eq!(late, Err(libc::EIO));
        tokio::time::sleep(pause + 10 * SHORT).await;
        assert!(vfs.lookup(ROOT, b"first").await.is_ok(), "it came before the answer");
        assert!(matches!(vfs.lookup(ROOT, b"second").await, Err(vfs::Error::NotFound)));
    }

    #[tokio::test]
    async fn what_no_caller_waits_for_is_done_to_its_end() {
        let (done, mut seen) = tokio::sync::oneshot::channel();
        let dispatch = hasty();
        dispatch.tend(Operation::new("test", 1, 1), async { panic!("of no consequence") });
        dispatch.tend(Operation::new("test", 2, 1), async {
            tokio::time::sleep(5 * SHORT).await;
            done.send(()).unwrap();
        });
        assert!(seen.try_recv().is_err(), "it does not hold the session up");
        seen.await.unwrap();
    }

    #[tokio::test]
    async fn a_step_that_says_how_long_it_takes_is_waited_for() {
        let slow = async {
            for _ in 0..3 {
                vfs::extend_deadline(4 * SHORT);
                tokio::time::sleep(2 * SHORT).await;
            }
            Ok(())
        };
        assert!(answered(ask(&hasty(), slow)).await.is_ok());
        let stuck = async {
            vfs::extend_deadline(2 * SHORT);
            std::future::pending().await
        };
        assert_eq!(answered(ask(&hasty(), stuck)).await, Err(libc::EIO));
    }
}
