//! The daemon that does the work of a command on files.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::interrupt;
use super::which::Meant;
use crate::cli::args::{Global, OpeningArgs};
use crate::cli::commands::ask::{finish, has_ended, leave, report_of, silent, start};
use crate::cli::commands::mount::{not_in_use_yet, open_or_make, spec};
use crate::cli::control::ControlRequest;
use crate::cli::daemon::launch::LaunchedDaemon;
use crate::cli::daemon_report::State;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::paths::UserPaths;
use crate::cli::registry::RunningDaemon;
use crate::cli::target::{Target, WhichVault};
use crate::cli::unlock::Unlocker;
use crate::os;
use crate::vault::has_unsent;

/// How long another command's daemon may take to end before this command gives up.
const OTHERS: Duration = Duration::from_mins(2);
/// How much of that may pass before the user is told why it waits.
const QUIET: Duration = Duration::from_secs(3);
/// The pause between two attempts.
const LOOK: Duration = Duration::from_millis(100);
/// How often a command starts over if each daemon that it joins ends before anything was done.
const TRIES: u32 = 5;

/// What a command does with files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilesPurpose {
    /// Prints files or names.
    Print,
    /// Fetches files to this machine.
    Bring,
    /// Puts files into the vault.
    Put,
    /// Changes the vault.
    Change,
}

impl FilesPurpose {
    fn writes(self) -> bool {
        matches!(self, Self::Put | Self::Change)
    }

    /// What is left of a command that was cut off, and what to do about it.
    fn when_cut_off(self) -> &'static str {
        match self {
            Self::Print => "what was printed is not all of it; say it again",
            Self::Bring | Self::Put => {
                "and a file that was under way is whole or not at all; say it again: what is there is passed over"
            }
            Self::Change => {
                "and whether what it did last is done, or a part of it, is not known; look, and say it again where it is not"
            }
        }
    }
}

/// A daemon that has the vault open, and this command's share in it.
pub(super) struct FilesSession {
    running: RunningDaemon,
    /// The daemon that was started for this command. It ends with the command, unless it is mounted or served
    /// meanwhile.
    own: Option<LaunchedDaemon>,
    purpose: FilesPurpose,
    umask: u32,
    /// The connection that joined the daemon. While it exists, a daemon of another command does not end.
    joined: Mutex<Option<FilesConnection>>,
    /// Whether anything was done or printed that must not be repeated.
    begun: Arc<AtomicBool>,
    /// Whether the daemon ended, or refused new clients, while it was needed.
    was_lost: AtomicBool,
}

impl FilesSession {
    /// Does `work` with the running daemon, or with one that is started for it. Starts over if another command's daemon
    /// ends before anything was done.
    pub(super) async fn with(
        global: &Global,
        paths: &UserPaths,
        meant: &Meant,
        purpose: FilesPurpose,
        work: impl Fn(&Self) -> CliResult,
    ) -> CliResult {
        let begun = Instant::now();
        interrupt::hear();
        for _ in 1..TRIES {
            let session = Self::open(global, paths, meant, purpose, begun).await?;
            let outcome = work(&session);
            let is_in_vain = outcome.is_err() && session.is_lost_before_it_began();
            if !is_in_vain || interrupt::is_asked() || begun.elapsed() >= OTHERS {
                return session.end(outcome);
            }
        }
        let session = Self::open(global, paths, meant, purpose, begun).await?;
        let outcome = work(&session);
        session.end(outcome)
    }

    /// Finds the daemon, or starts one.
    async fn open(
        global: &Global,
        paths: &UserPaths,
        meant: &Meant,
        purpose: FilesPurpose,
        begun: Instant,
    ) -> CliResult<Self> {
        let umask = os::umask();
        let mut is_told = false;
        loop {
            let tried = match WhichVault::find(global, paths, meant.bucket.as_deref())? {
                WhichVault::Open(running) => joined(&running, purpose, umask),
                WhichVault::Closed(target) => started(global, paths, &target, purpose, umask).await,
            };
            match tried {
                // It is about to end, or belonged to another command.
                Err(failure)
                    if failure.exit == Exit::MountedAlready && begun.elapsed() < OTHERS =>
                {
                    if !is_told && begun.elapsed() > QUIET {
                        is_told = true;
                        complain!(
                            "s3vault: another process has the vault for a moment longer; waiting, for {} s at most",
                            OTHERS.as_secs()
                        );
                    }
                    std::thread::sleep(LOOK);
                }
                done => return done,
            }
        }
    }

    /// A connection of its own.
    pub(super) fn connect(&self) -> CliResult<FilesConnection> {
        if let Some(joined) = self.joined.lock().take() {
            return Ok(joined);
        }
        match FilesConnection::open(&self.running.dir, self.umask, &self.begun) {
            Ok(connection) => connection.inspect_err(|failure| {
                self.was_lost.fetch_or(failure.exit == Exit::MountedAlready, Relaxed);
            }),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// From here on something is done or printed that must not be repeated.
    pub(super) fn begins(&self) {
        self.begun.store(true, Relaxed);
    }

    fn is_lost_before_it_began(&self) -> bool {
        self.own.is_none() && self.was_lost.load(Relaxed) && !self.begun.load(Relaxed)
    }

    /// The failure to report when the connection broke.
    pub(super) fn lost(&self, error: &io::Error) -> Failure {
        self.was_lost.fetch_or(is_closed(error), Relaxed);
        let (name, pid) = (self.running.name(), self.running.pid);
        if !self.begun.load(Relaxed) && is_closed(error) {
            let text = format!(
                "the daemon of {name} (process {pid}) ended meanwhile; nothing was done; say it again"
            );
            return Failure::new(Exit::Other, text);
        }
        // A daemon that is ending drops its clients, and may take long to send what is unsent.
        let is_ending = is_closed(error) && report_of(&self.running).state == State::Finishing;
        if is_ending || has_ended(&self.running, error) {
            let rest = self.purpose.when_cut_off();
            let text = format!(
                "the daemon of {name} (process {pid}) ended meanwhile; what it had confirmed is there, {rest}"
            );
            return Failure::new(Exit::Other, text);
        }
        silent(&self.running, error)
    }

    /// Ends the command. If it changed anything, this waits until everything is in the bucket, or says what is missing.
    fn end(self, outcome: CliResult) -> CliResult {
        interrupt::rest();
        drop(self.joined.into_inner());
        let ended = match &self.own {
            Some(_) => leave(&self.running),
            None if self.purpose.writes() => finish(&self.running, &ControlRequest::Sync),
            None => Ok(()),
        };
        outcome.and(ended)
    }
}

/// Whether the other side closed the connection, or does not exist.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | NotFound
            | UnexpectedEof
    )
}

/// Uses the running daemon.
fn joined(running: &RunningDaemon, purpose: FilesPurpose, umask: u32) -> CliResult<FilesSession> {
    if running.read_only && purpose.writes() {
        if running.for_command {
            return Err(Failure::new(
                Exit::MountedAlready,
                "another command reads the vault just now",
            ));
        }
        let text = format!(
            "process {} has {} open for reading only, so nothing can be changed through it; nothing was changed; end it \
             first, or use a --state-dir of its own",
            running.pid, running.bucket
        );
        return Err(Failure::new(Exit::MountedAlready, text));
    }
    let begun = Arc::default();
    match FilesConnection::open(&running.dir, umask, &begun) {
        Ok(Ok(joined)) => Ok(FilesSession {
            running: running.clone(),
            own: None,
            purpose,
            umask,
            joined: Mutex::new(Some(joined)),
            begun,
            was_lost: AtomicBool::new(false),
        }),
        Ok(Err(failure)) => Err(failure),
        // The daemon is gone.
        Err(error) if has_ended(running, &error) => {
            Err(Failure::new(Exit::MountedAlready, "the daemon of the vault has just ended"))
        }
        Err(error) => Err(silent(running, &error)),
    }
}

/// Nobody has the vault open, so this starts a daemon without mount and service. A command that only reads needs no
/// claim, so it can read a vault that another machine writes. But only a writer sees what is on this machine and not
/// yet in the bucket.
async fn started(
    global: &Global,
    paths: &UserPaths,
    target: &Target,
    purpose: FilesPurpose,
    umask: u32,
) -> CliResult<FilesSession> {
    let opening =
        OpeningArgs { foreground: true, read_only: !purpose.writes(), ..OpeningArgs::usual() };
    let unlocker = Unlocker { global, paths, target };
    let bucket = open_or_make(&unlocker, opening.read_only, false).await?;
    let unlocked = unlocker.unlock(&bucket).await?;
    drop(bucket);
    let dir = paths.state.join(unlocked.vault.to_string());
    not_in_use_yet(paths, |running| running.dir == dir)?;
    let read_only = opening.read_only && !has_unsent(&unlocked, &dir);
    let opening = OpeningArgs { read_only, ..opening };
    let spec = spec(global, paths, &opening, target, &unlocked)?;
    drop(unlocked);
    let (daemon, running) = start(paths, &spec).await?;
    Ok(FilesSession {
        running,
        own: Some(daemon),
        purpose,
        umask,
        joined: Mutex::default(),
        begun: Arc::default(),
        was_lost: AtomicBool::new(false),
    })
}
