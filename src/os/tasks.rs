//! Background tasks. Nobody waits for them, so a panic in one would go unnoticed until its work is missed. So each is watched: a
//! panic is reported, and whoever started the task acts on it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

#[cfg(feature = "testing")]
use super::planted::{self, PanicMoment};
#[cfg(test)]
use super::testing::Simulated;

/// The pause before a task is restarted; it doubles each time.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// How often each task of this process panicked. A panic is a bug of the program, in whichever module. So the process remembers
/// it, and `status` shows it as long as the process lives.
static PANICS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// A task panicked; the log says where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} ended by a panic, which is a bug")]
pub struct Panicked(&'static str);

/// Runs a task to its end. `name` says what it does, such as "sending packs". The caller decides what a panic means: the task
/// starts again ([`restarted`]), or nothing more can be promised.
pub async fn watched<T>(
    name: &'static str,
    task: impl Future<Output = T>,
) -> std::result::Result<T, Panicked> {
    #[cfg(feature = "testing")]
    let task = planted::within(name, task);
    AssertUnwindSafe(task).catch_unwind().await.map_err(|_| panicked(name))
}

/// As [`watched`], for blocking work.
pub fn watched_here<T>(
    name: &'static str,
    task: impl FnOnce() -> T,
) -> std::result::Result<T, Panicked> {
    #[cfg(feature = "testing")]
    let task = || {
        planted::meet(name, PanicMoment::Before);
        let done = task();
        planted::meet(name, PanicMoment::After);
        done
    };
    catch_unwind(AssertUnwindSafe(task)).map_err(|_| panicked(name))
}

/// Runs blocking work beside the runtime's workers. It starts at once, and goes on if nobody waits for it. Call it within a
/// runtime.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if Simulated::is_here() {
        return tokio::spawn(async move { work() });
    }
    tokio::task::spawn_blocking(work)
}

thread_local! {
    /// Whether the future that this thread is polling may block it.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Runs `poll` on a thread that is not a worker of the runtime: within it, [`blocking_here`] blocks this thread.
pub fn may_block<T>(poll: impl FnOnce() -> T) -> T {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            MAY_BLOCK.set(self.0);
        }
    }
    let _back = Back(MAY_BLOCK.replace(true));
    poll()
}

/// As [`blocking`], but runs on this thread if it may block, which saves two thread switches. Only for work of which one
/// instance runs at a time, so that it occupies at most one thread.
pub async fn blocking_here<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::result::Result<T, tokio::task::JoinError> {
    if MAY_BLOCK.get() {
        return Ok(work());
    }
    blocking(work).await
}

/// Does two pieces of blocking work at the same time: `here` on this thread, and `beside` on a thread of the runtime if one is
/// free before `here` ends, or else on this thread afterwards. A panic in either continues on this thread. Call it within a
/// runtime.
pub fn at_once<A: Send + 'static, B>(
    beside: impl FnOnce() -> A + Send + 'static,
    here: impl FnOnce() -> B,
) -> (A, B) {
    #[cfg(test)]
    if Simulated::is_here() {
        return (beside(), here());
    }
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let work = Arc::new(Mutex::new(Some(beside)));
    let offered = work.clone();
    drop(tokio::task::spawn_blocking(move || {
        let taken = offered.lock().take();
        if let Some(beside) = taken {
            // The receiver is gone only if `here` panicked.
            drop(send.send(catch_unwind(AssertUnwindSafe(beside))));
        }
    }));
    let here = here();
    let left = work.lock().take();
    let beside = match left {
        Some(beside) => beside(),
        None => match receive.recv() {
            Ok(done) => done.unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => unreachable!("what was taken is sent"),
        },
    };
    (beside, here)
}

/// Starts a thread. On an error the system has none to give, and the caller does without.
pub fn thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    #[cfg(test)]
    if Simulated::is_here() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    std::thread::Builder::new().name(name.into()).spawn(work)
}

/// Runs a task to its end, and restarts it from its beginning after each panic. The task must keep nothing between its rounds.
pub async fn restarted<F: Future<Output = ()>>(name: &'static str, begin: impl Fn() -> F) {
    let mut pause = PAUSE;
    while watched(name, async { begin().await }).await.is_err() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// As [`restarted`], for a thread of its own.
pub fn restarted_here<T>(name: &'static str, begin: impl Fn() -> T) {
    let mut pause = PAUSE;
    while watched_here(name, &begin).is_err() {
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn panicked(name: &'static str) -> Panicked {
    tracing::error!(task = name, "a task panicked, which is a bug");
    *PANICS.lock().entry(name).or_default() += 1;
    Panicked(name)
}

/// For `status`: a line for each task that has panicked in this process.
pub fn panics() -> Vec<String> {
    let line = |(name, times): (&&str, &u64)| {
        format!("{name}: panicked {times} times, which is a bug (see the log)")
    };
    PANICS.lock().iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_that_blocks_stays_on_a_thread_that_may() {
        let thread = || std::thread::current().id();
        assert_ne!(blocking_here(thread).await.unwrap(), thread());
        let at_once = may_block(|| blocking_here(thread).now_or_never());
        assert_eq!(at_once.unwrap().unwrap(), thread());
        assert_ne!(blocking_here(thread).await.unwrap(), thread(), "not here any more");
    }

    #[test]
    fn two_things_are_done_at_once_or_one_after_the_other() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).build().unwrap();
        let _within = runtime.enter();
        let (wait, long) = (std::sync::mpsc::channel(), Duration::from_secs(60));
        let (to_here, from_here) = (wait.0.clone(), std::sync::mpsc::channel::<u32>());
        // Each waits for the other.
        let beside = move || {
            to_here.send(1).unwrap();
            from_here.1.recv_timeout(long)
        };
        let here = || {
            from_here.0.send(2).unwrap();
            wait.1.recv_timeout(long)
        };
        assert_eq!(at_once(beside, here), (Ok(2), Ok(1)));
        // The only thread is busy: nobody waits for it.
        let (end, busy) = std::sync::mpsc::channel::<()>();
        let begun = blocking(move || _ = busy.recv_timeout(long));
        let thread = || std::thread::current().id();
        assert_eq!(at_once(thread, || 3), (thread(), 3));
        drop(end);
        runtime.block_on(begun).unwrap();
        let panicked = std::panic::catch_unwind(|| at_once(|| panic!("planted"), || 3));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"planted"));
    }

    #[tokio::test]
    async fn a_panic_is_told_and_a_task_that_may_begins_again() {
        assert_eq!(watched("adding", async { 1 + 1 }).await, Ok(2));
        let panicked = watched("failing", async { panic!("planted") }).await;
        assert_eq!(panicked, Err::<(), _>(Panicked("failing")));
        let panicked = watched_here("failing", || panic!("planted"));
        assert_eq!(panicked, Err::<(), _>(Panicked("failing")));

        let rounds = AtomicU32::new(0);
        let round =
            || assert!(!rounds.fetch_add(1, Ordering::Relaxed).is_multiple_of(2), "planted");
        restarted("counting", || async { round() }).await;
        restarted_here("counting", round);
        assert_eq!(rounds.into_inner(), 4);
        let said = |line: &str| panics().iter().any(|panic| panic.starts_with(line));
        assert!(said("counting: panicked 2 times") && said("failing: panicked 2 times"));
    }
}
