//! Work on many files: runs several at once, collects failures, and shows progress.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use parking_lot::Mutex;

use super::interrupt;
use super::session::FilesSession;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::progress::{WorkBar, WorkTally};

/// Concurrent file transfers: each waits for the local disk or for the store.
const WORKERS: usize = 6;
/// Files that may wait in the queue.
const AHEAD: usize = 256;

/// Work under way.
pub(super) struct Work<'a> {
    pub(super) session: &'a FilesSession,
    pub(super) tally: WorkTally,
    bar: WorkBar,
    failed: AtomicU64,
    /// Whether it is about a single thing, whose failure is then the command's.
    is_single: AtomicBool,
    first: Mutex<Option<Failure>>,
    is_over: AtomicBool,
}

impl<'a> Work<'a> {
    /// `name`: the verb that the progress bar shows.
    pub(super) fn new(session: &'a FilesSession, name: &str, is_single: bool) -> Self {
        Self {
            session,
            tally: WorkTally::default(),
            bar: WorkBar::new(name),
            failed: AtomicU64::new(0),
            is_single: AtomicBool::new(is_single),
            first: Mutex::new(None),
            is_over: AtomicBool::new(false),
        }
    }

    /// Opens a connection; if that fails, the work ends.
    pub(super) fn connect(&self) -> Option<FilesConnection> {
        self.session.connect().map_err(|failure| self.ends(failure)).ok()
    }

    /// Reports that one item failed. The rest goes on, unless it would fail as well.
    pub(super) fn failed(&self, what: &str, failure: Failure) {
        if interrupt::is_asked() {
            return;
        }
        self.session.begins();
        self.failed.fetch_add(1, Relaxed);
        let message = format!("{what}: {}", failure.message);
        if !self.is_single.load(Relaxed) {
            self.bar.say(&format!("  {message}"));
        }
        let is_last = failure.exit != Exit::Other && failure.exit != Exit::Damaged;
        self.first.lock().get_or_insert(Failure { message, ..failure });
        if is_last {
            self.is_over.store(true, Relaxed);
        }
    }

    /// Reports a failure of something inside what was named.
    pub(super) fn failed_inside(&self, what: &str, failure: Failure) {
        self.is_single.store(false, Relaxed);
        self.failed(what, failure);
    }

    /// Ends the work with this failure.
    pub(super) fn ends(&self, failure: Failure) {
        self.is_over.store(true, Relaxed);
        // Each worker loses its own connection, but one failure is enough to tell.
        let mut first = self.first.lock();
        if first
            .as_ref()
            .is_none_or(|first| first.exit == Exit::Other && self.failed.load(Relaxed) > 0)
        {
            *first = Some(failure);
            self.failed.store(0, Relaxed);
        }
    }

    /// The result of an operation, whose failure is reported; `None`: the connection is lost.
    pub(super) fn heard<T>(
        &self,
        what: &str,
        outcome: io::Result<CliResult<T>>,
    ) -> Option<CliResult<T>> {
        match outcome {
            Ok(outcome) => Some(outcome.inspect_err(|failure| {
                self.failed(what, failure.clone());
            })),
            Err(error) => {
                self.ends(self.session.lost(&error));
                None
            }
        }
    }

    /// The result of a look-up, which may find nothing; `None`: the connection is lost.
    pub(super) fn known<T>(&self, outcome: io::Result<CliResult<T>>) -> Option<CliResult<T>> {
        outcome.map_err(|error| self.ends(self.session.lost(&error))).ok()
    }

    /// Whether to stop before the next item.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed) || interrupt::is_asked()
    }

    /// Runs `work` for what `produce` sends, several at once, and shows the progress. Each worker has a connection, and
    /// opens a new one if an item leaves it unusable.
    pub(super) fn in_parallel<J: Send>(
        &self,
        produce: impl FnOnce(&SyncSender<J>) + Send,
        work: impl Fn(&mut Option<FilesConnection>, J) + Sync,
    ) {
        let (jobs, queue) = mpsc::sync_channel::<J>(AHEAD);
        let queue = Mutex::new(queue);
        thread::scope(|scope| {
            let (done, over) = mpsc::channel::<()>();
            let mut workers = Vec::new();
            for _ in 0..WORKERS {
                workers.push(scope.spawn(|| {
                    let mut connection = None;
                    loop {
                        let Ok(job) = queue.lock().recv() else { return };
                        if self.is_over() {
                            continue;
                        }
                        if connection.is_none() {
                            connection = self.connect();
                        }
                        work(&mut connection, job);
                    }
                }));
            }
            scope.spawn(move || {
                while over.recv_timeout(WorkBar::TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    self.bar.show(&self.tally);
                }
            });
            produce(&jobs);
            drop(jobs);
            for worker in workers {
                if let Err(panic) = worker.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            drop(done);
        });
    }

    /// Shows the progress, if nothing else does.
    pub(super) fn show(&self) {
        self.bar.show(&self.tally);
    }

    /// The outcome of the whole: `verb` says what was to be done, `rest` what became of the others.
    pub(super) fn outcome(self, verb: &str, rest: &str) -> CliResult {
        let failed = self.failed.load(Relaxed);
        let done = self.tally.done.load(Relaxed);
        self.bar.clear();
        let Some(first) = self.first.into_inner() else { return Ok(()) };
        if self.is_single.load(Relaxed) || failed == 0 {
            return Err(first);
        }
        let text = match self.is_over.load(Relaxed) {
            true => format!(
                "it stopped at what is said above: {done} were {verb}, {failed} could not be, and what is left was not tried; \
                 say it again when that is mended, and what is there is passed over"
            ),
            false => {
                format!("{failed} of {} could not be {verb} (said above); {rest}", failed + done)
            }
        };
        Err(Failure { exit: first.exit, ..Failure::new(Exit::Other, text) })
    }
}
