//! `s3vault sync`

use super::ask::{finish, not_mounted, report_of};
use crate::cli::args::SyncArgs;
use crate::cli::control::ControlRequest;
use crate::cli::end_signal::stop_waiting_on_signal;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::paths::{UserPaths, absolute};
use crate::cli::registry::RunningDaemon;

/// Waits until everything written before is in the bucket: for one mount, or for all. With several, this waits for all,
/// returns the first failure, and prints the others.
pub(crate) fn sync(paths: &UserPaths, args: &SyncArgs) -> CliResult {
    let chosen = match &args.path {
        Some(path) => {
            let path = absolute(path)?;
            let found = RunningDaemon::around(&paths.running(), &path);
            vec![found.ok_or_else(|| {
                not_mounted(&path.display().to_string(), &RunningDaemon::all(&paths.running()))
            })?]
        }
        None => RunningDaemon::all(&paths.running()),
    };
    if chosen.is_empty() {
        let text = "no mount or service of this user runs, so nothing was sent; what an earlier one left unsent is \
            sent by the next";
        return Err(Failure::new(Exit::NotMounted, text));
    }
    stop_waiting_on_signal("sync");
    let mut first = Ok(());
    for running in &chosen {
        match sync_one(running) {
            Ok(done) => say!("{}: {done}.", running.name()),
            Err(failure) if first.is_ok() => first = Err(failure),
            Err(failure) => complain!("s3vault: {failure}"),
        }
    }
    first
}

/// Returns what is true of the vault then.
fn sync_one(running: &RunningDaemon) -> CliResult<&'static str> {
    finish(running, &ControlRequest::Sync)?;
    if !running.read_only {
        return Ok("everything is in the bucket");
    }
    match report_of(running).unsent_not_shown {
        0 => Ok("it is open for reading: there is nothing to send"),
        _ => {
            let text = format!(
                "{}: it is open for reading, and sends nothing, but changes that were made on this machine before are not in \
                 the bucket yet; mount it without --read-only to send them",
                running.name()
            );
            Err(Failure::new(Exit::Unsent, text))
        }
    }
}
