//! A work on many files: several at once, what failed, how far it is.

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

/// Files at work at once: each waits for the disk of this machine, or for the store.
const WORKERS: usize = 6;
/// Files that are found and not begun.
const AHEAD: usize = 256;

/// A work under way.
pub(super) struct Work<'a> {
    pub(super) session: &'a FilesSession,
    pub(super) tally: WorkTally,
    bar: WorkBar,
    failed: AtomicU64,
    /// Whether it is about one thing, whose failure is that of the command.
    is_single: AtomicBool,
    first: Mutex<Option<Failure>>,
    is_over: AtomicBool,
}

impl<'a> Work<'a> {
    /// `name` is what is done, for the bar.
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

    /// A connection; without one nothing more can be done.
    pub(super) fn connect(&self) -> Option<FilesConnection> {
        self.session.connect().map_err(|failure| self.ends(failure)).ok()
    }

    /// This one could not be done; the rest goes on, unless it would fail as well.
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

    /// The same of something inside of what was named.
    pub(super) fn failed_inside(&self, what: &str, failure: Failure) {
        self.is_single.store(false, Relaxed);
        self.failed(what, failure);
    }

    /// Nothing more can be done.
    pub(super) fn ends(&self, failure: Failure) {
        self.is_over.store(true, Relaxed);
        // Each worker loses its own connection.
        let mut first = self.first.lock();
        if first
            .as_ref()
            .is_none_or(|first| first.exit == Exit::Other && self.failed.load(Relaxed) > 0)
        {
            *first = Some(failure);
            self.failed.store(0, Relaxed);
        }
    }

    /// What came of something that is only done or not; `None`: the connection is lost.
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

    /// What came of a look, which may find nothing; `None`: the connection is lost.
    pub(super) fn known<T>(&self, outcome: io::Result<CliResult<T>>) -> Option<CliResult<T>> {
        outcome.map_err(|error| self.ends(self.session.lost(&error))).ok()
    }

    /// Whether the rest is not worth beginning.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed) || interrupt::is_asked()
    }

    /// Does what `produce` sends, several at once, while the bar shows how far it is. Each worker has a connection, which
    /// it makes anew when one is left in the middle of something.
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

    /// Shows how far it is, when nothing else does.
    pub(super) fn show(&self) {
        self.bar.show(&self.tally);
    }

    /// What came of all: `verb` says what was to be done with them, `rest` how the others are.
    pub(super) fn outcome(self, verb: &str, rest: &str) -> CliResult {
        let failed = self.failed.load(Relaxed);
        let done = self.tally.done.load(Relaxed);
        self.bar.clear();
        let Some(first) = self.first.into_inner() else { return Ok(()) };
        if self.is_single.load(Relaxed) || failed == 0 {
            return Err(first);
        }
        let text =
            format!("{failed} of {} could not be {verb} (said above); {rest}", failed + done);
        Err(Failure { exit: first.exit, ..Failure::new(Exit::Other, text) })
    }
}
