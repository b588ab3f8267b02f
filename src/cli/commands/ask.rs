//! What the commands share: they ask a daemon at its control socket and report the outcome.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::control::{Client, ControlReply, ControlRequest, SILENCE};
use crate::cli::daemon::launch::LaunchedDaemon;
use crate::cli::daemon::spec::Spec;
use crate::cli::daemon_report::{DaemonReport, State};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::last;
use crate::cli::paths::{UserPaths, absolute};
use crate::cli::progress::UploadBar;
use crate::cli::registry::RunningDaemon;

/// How long a daemon may take to report its status; it answers from memory.
const STATUS_WAIT: Duration = Duration::from_secs(5);

/// How long the daemon may take to end after its last reply, or after SIGKILL.
pub(super) const END_WAIT: Duration = Duration::from_secs(10);

/// How to call this program again: by its name if PATH finds this very file, else by its path.
pub(super) fn program() -> String {
    let Ok(own) = std::env::current_exe() else { return "s3vault".to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|dir| dir.join("s3vault")).find(|file| file.exists());
    match found.and_then(|file| file.canonicalize().ok()) {
        Some(file) if file == own => "s3vault".to_owned(),
        _ => own.display().to_string(),
    }
}

/// The report of a mount. A daemon that does not answer is reported as `Silent`.
pub(super) fn report_of(running: &RunningDaemon) -> DaemonReport {
    let answer = Client::ask(&running.dir, &ControlRequest::Status, STATUS_WAIT)
        .and_then(|mut client| client.next());
    match answer {
        Ok(ControlReply::Status(report)) => *report,
        _ => DaemonReport {
            state: State::Silent,
            mountpoint: running
                .mountpoint
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
            vault: running.vault.clone(),
            bucket: running.bucket.clone(),
            pid: running.pid,
            log: running.log.display().to_string(),
            read_only: running.read_only,
            ..DaemonReport::default()
        },
    }
}

/// Sends a request that is done when everything is in the bucket, and waits for its end.
pub(super) fn finish(running: &RunningDaemon, request: &ControlRequest) -> CliResult {
    finish_within(running, request, None)
}

/// Like [`finish`], for a request that the daemon answers after `limit` at the latest.
pub(super) fn finish_within(
    running: &RunningDaemon,
    request: &ControlRequest,
    limit: Option<Duration>,
) -> CliResult {
    // A daemon that hangs should not make this take much longer than `limit`.
    let silence = limit.map_or(SILENCE, |limit| SILENCE.min(limit.saturating_add(STATUS_WAIT)));
    match Client::ask(&running.dir, request, silence) {
        Ok(mut client) => {
            follow(&mut client, running).unwrap_or_else(|error| lost(running, &error))
        }
        Err(error) => lost(running, &error),
    }
}

/// Sends any other request. Only the daemon can say whether it was done.
pub(super) fn change(running: &RunningDaemon, request: &ControlRequest) -> CliResult {
    let not_said = |error| {
        // That the daemon ended well does not mean that it did this.
        lost(running, &error).err().unwrap_or_else(|| {
            let text = format!(
                "the daemon of {} (process {}) ended before it said whether this was done; everything is in the bucket; \
                 look, and say it again where it was not",
                running.name(),
                running.pid
            );
            Failure::new(Exit::Other, text)
        })
    };
    let mut client = Client::ask(&running.dir, request, SILENCE).map_err(not_said)?;
    follow(&mut client, running).unwrap_or_else(|error| Err(not_said(error)))
}

/// A path in a mount of this user, as the mount's daemon knows it. The path need not exist.
pub(super) struct PathInMount {
    /// The mount's daemon.
    pub running: RunningDaemon,
    /// Relative to the mount's root.
    pub path: PathBuf,
}

impl PathInMount {
    pub(super) fn find(paths: &UserPaths, path: &Path) -> CliResult<Self> {
        // A symlink as the last component is not followed.
        let full = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                absolute(parent)?.join(name)
            }
            _ => absolute(path)?,
        };
        let shown = full.display();
        let found = RunningDaemon::around(&paths.running(), &full);
        let running = found.ok_or_else(|| {
            not_mounted(&shown.to_string(), &RunningDaemon::all(&paths.running()))
        })?;
        if running.past {
            let text = format!(
                "{shown} is in a mount that shows the past; name the path in the vault's own mount"
            );
            return Err(Failure::new(Exit::Usage, text));
        }
        let root = running.mountpoint.clone().unwrap_or_default();
        let path = full.strip_prefix(&root).unwrap_or(Path::new("")).to_owned();
        Ok(Self { running, path })
    }
}

/// Reads a daemon's replies to the last one, and shows the progress. An error concerns the connection: then the outcome
/// of the request is unknown.
fn follow(client: &mut Client, running: &RunningDaemon) -> io::Result<CliResult> {
    let shown = running.name();
    let mut bar = UploadBar::new(&shown);
    loop {
        match client.next()? {
            ControlReply::Progress(progress) => bar.show(&progress),
            ControlReply::Said { text } => bar.tell(&text),
            ControlReply::Done => return Ok(Ok(())),
            ControlReply::Failed(failure) => {
                let message = format!("{shown}: {}", failure.message);
                return Ok(Err(Failure { message, ..failure }));
            }
            ControlReply::Status(_) | ControlReply::Go => {
                return Err(io::Error::other("a reply to something else"));
            }
        }
    }
}

/// Whether the daemon whose connection failed has ended. This looks at the process, not at the error: a kill can show
/// as end of file, a broken pipe or a reset, even before the process is gone.
pub(super) fn has_ended(running: &RunningDaemon, error: &io::Error) -> bool {
    let hangs = matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
    match running.process() {
        Ok(Some(process)) => process.wait(if hangs { Duration::ZERO } else { END_WAIT }),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// The outcome after a lost connection. A daemon that ended has noted its result. Do not claim that data is missing
/// when that is not known.
fn lost(running: &RunningDaemon, error: &io::Error) -> CliResult {
    if !has_ended(running, error) {
        return Err(silent(running, error));
    }
    last::of(running).unwrap_or_else(|| {
        let text = format!(
            "the daemon of {} (process {}) has ended without saying how ({error}); whether everything is in the bucket \
             is not known; what is not stays on this disk, and the next mount goes on with it; see its log, {}",
            running.name(),
            running.pid,
            running.log.display()
        );
        Err(Failure::new(Exit::Other, text))
    })
}

/// The failure if the daemon hangs or cannot be examined.
pub(super) fn silent(running: &RunningDaemon, error: &io::Error) -> Failure {
    let text = format!(
        "the daemon of {} (process {}) does not answer ({error}); whether everything is in the bucket is not known; \
         what is not stays on this disk; see its log, {}; `{}` ends it",
        running.name(),
        running.pid,
        running.log.display(),
        end_by_force(running)
    );
    Failure::new(Exit::Other, text)
}

/// The command that ends a daemon whatever its state.
fn end_by_force(running: &RunningDaemon) -> String {
    match &running.mountpoint {
        Some(path) => format!("s3vault umount --force {}", path.display()),
        None => format!("kill -9 {}", running.pid),
    }
}

/// Starts a daemon, waits until it is ready, and returns how to reach it.
pub(super) async fn start(
    paths: &UserPaths,
    spec: &Spec,
) -> CliResult<(LaunchedDaemon, RunningDaemon)> {
    let mut daemon = LaunchedDaemon::start(spec)?;
    daemon.ready().await?;
    let mut all = RunningDaemon::all(&paths.running()).into_iter();
    let Some(running) = all.find(|running| running.dir == spec.dir) else {
        let text = "the process that was to do it has ended; see its log in the state directory";
        return Err(Failure::new(Exit::Other, text));
    };
    Ok((daemon, running))
}

/// Ends a daemon that was started for this command, and waits until it is gone, so that the next command does not find
/// a daemon that is about to end. If it was mounted or served meanwhile, it lives on. On success everything is in the
/// bucket.
pub(super) fn leave(running: &RunningDaemon) -> CliResult {
    let ended = finish(running, &ControlRequest::Leave);
    let lives_on = || matches!(report_of(running).state, State::Mounted | State::Serving);
    if let Ok(Some(process)) = running.process()
        && !lives_on()
    {
        process.wait(END_WAIT);
    }
    ended
}

/// The failure if no mount or service of ours is at the named place.
pub(super) fn not_mounted(what: &str, running: &[RunningDaemon]) -> Failure {
    let list: Vec<_> = running.iter().map(RunningDaemon::name).collect();
    let known = if list.is_empty() {
        "no mount or service of this user runs".to_owned()
    } else {
        format!("there are: {}", list.join(", "))
    };
    Failure::new(Exit::NotMounted, format!("{what} is no s3vault mount of this user; {known}"))
}

#[cfg(test)]
mod tests;
