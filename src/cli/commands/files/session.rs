//! The daemon that does what a command on files asks for.

use std::io;
use std::time::{Duration, Instant};

use super::interrupt;
use super::which::Meant;
use crate::cli::args::{Global, OpeningArgs};
use crate::cli::commands::ask::{END_WAIT, finish, has_ended, silent, start};
use crate::cli::commands::mount::{not_in_use_yet, open_or_make, spec};
use crate::cli::control::ControlRequest;
use crate::cli::daemon::launch::LaunchedDaemon;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::paths::UserPaths;
use crate::cli::registry::RunningDaemon;
use crate::cli::target::{Target, WhichVault};
use crate::cli::unlock::Unlocker;
use crate::os;
use crate::vault::has_unsent;

/// How long another command's daemon may take to end before one is started here.
const OTHERS: Duration = Duration::from_mins(2);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What a command does to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilesPurpose {
    Read,
    Change,
}

/// A daemon that has the vault, and what this command has of it.
pub(super) struct FilesSession {
    running: RunningDaemon,
    /// It was started for this command, and ends with it.
    own: Option<LaunchedDaemon>,
    purpose: FilesPurpose,
    umask: u32,
}

impl FilesSession {
    /// Finds the daemon, or starts one.
    pub(super) async fn open(
        global: &Global,
        paths: &UserPaths,
        meant: &Meant,
        purpose: FilesPurpose,
    ) -> CliResult<Self> {
        let (umask, begun) = (os::umask(), Instant::now());
        interrupt::hear();
        loop {
            let tried = match WhichVault::find(global, paths, meant.bucket.as_deref())? {
                WhichVault::Open(running) => joined(&running, purpose, umask),
                WhichVault::Closed(target) => started(global, paths, &target, purpose, umask).await,
            };
            match tried {
                // It is just ending, or was another command's.
                Err(failure)
                    if failure.exit == Exit::MountedAlready && begun.elapsed() < OTHERS =>
                {
                    std::thread::sleep(LOOK);
                }
                done => return done,
            }
        }
    }

    /// A connection of its own.
    pub(super) fn connect(&self) -> CliResult<FilesConnection> {
        match FilesConnection::open(&self.running.dir, self.umask) {
            Ok(connection) => connection,
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// What is said when the connection broke.
    pub(super) fn lost(&self, error: &io::Error) -> Failure {
        if has_ended(&self.running, error) {
            let text = format!(
                "the daemon of {} (process {}) ended meanwhile; what it had confirmed is there, files that were under way are \
                 not; say it again: what is there is passed over",
                self.running.name(),
                self.running.pid
            );
            return Failure::new(Exit::Other, text);
        }
        silent(&self.running, error)
    }

    /// Ends the command: when it changed something, everything is in the bucket then, or it says what is missing.
    pub(super) fn end(self, outcome: CliResult) -> CliResult {
        interrupt::rest();
        let ended = match (&self.own, self.purpose) {
            (Some(_), _) => {
                let ended = finish(&self.running, &ControlRequest::Umount { within: None });
                // Who asks next finds nobody who is about to end.
                if let Ok(Some(process)) = self.running.process() {
                    process.wait(END_WAIT);
                }
                ended
            }
            (None, FilesPurpose::Change) => finish(&self.running, &ControlRequest::Sync),
            (None, FilesPurpose::Read) => Ok(()),
        };
        outcome.and(ended)
    }
}

/// Through the daemon that runs.
fn joined(running: &RunningDaemon, purpose: FilesPurpose, umask: u32) -> CliResult<FilesSession> {
    if running.read_only && purpose == FilesPurpose::Change {
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
    let session = FilesSession { running: running.clone(), own: None, purpose, umask };
    match FilesConnection::open(&running.dir, umask) {
        Ok(Ok(_)) => Ok(session),
        Ok(Err(failure)) => Err(failure),
        // It is gone.
        Err(error) if has_ended(running, &error) => {
            Err(Failure::new(Exit::MountedAlready, "the daemon of the vault has just ended"))
        }
        Err(error) => Err(silent(running, &error)),
    }
}

/// Nobody has the vault open: a daemon is started without mount and service. Who only reads needs no claim, so that a vault
/// that another machine writes can be read; but what is on this machine and not in the bucket is seen by a writer alone.
async fn started(
    global: &Global,
    paths: &UserPaths,
    target: &Target,
    purpose: FilesPurpose,
    umask: u32,
) -> CliResult<FilesSession> {
    let opening = OpeningArgs {
        foreground: true,
        read_only: purpose == FilesPurpose::Read,
        ..OpeningArgs::usual()
    };
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
    Ok(FilesSession { running, own: Some(daemon), purpose, umask })
}
