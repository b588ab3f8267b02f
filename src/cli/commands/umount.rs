//! `s3vault umount`

use std::io;
use std::path::Path;
use std::time::Duration;

use super::ask::{END_WAIT, finish_within, not_mounted, report_of, silent};
use crate::cli::args::UmountArgs;
use crate::cli::control::{Client, ControlReply, ControlRequest};
use crate::cli::daemon_report::{DaemonReport, State, describe_progress};
use crate::cli::end_signal::stop_waiting_on_signal;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::last;
use crate::cli::messages;
use crate::cli::mount_dir;
use crate::cli::paths::{UserPaths, absolute};
use crate::cli::registry::RunningDaemon;
use crate::os::{self, ProcessHandle};

/// Unmounts and waits for the uploads, at most for `--timeout`; with `--force`, ends the mount in any case.
pub(crate) fn umount(paths: &UserPaths, args: &UmountArgs) -> CliResult {
    let path = absolute(&args.mountpoint)?;
    let shown = path.display();
    if args.lazy && mount_dir::ours_at(&path).is_some() {
        return mount_dir::detach(&path).map_err(|error| messages::of_fuse(&error));
    }
    let Some(running) = RunningDaemon::at(&paths.running(), &path) else {
        if args.any && mount_dir::ours_at(&path).is_some() && !os::is_dead_mount(&path) {
            // It is another user's mount: its daemon notices the unmount, and goes on sending.
            return mount_dir::unmount(&path).map_err(|error| messages::of_fuse(&error));
        }
        return without_daemon(paths, &path);
    };
    if args.force {
        return force(&running, &path);
    }
    let process = running.process().map_err(|error| silent(&running, &error))?;
    let DaemonReport { service, unsent_not_shown, .. } = report_of(&running);
    stop_waiting_on_signal("umount");
    let request = ControlRequest::Umount { within: args.timeout };
    finish_to_its_end(&running, &request, args.timeout, process)?;
    if let Some(service) = service {
        say!("The service at {} has ended with it.", service.url);
    }
    let sent = match (running.read_only || running.past, unsent_not_shown) {
        (false, _) => "; everything is in the bucket",
        (true, 0) => "",
        (true, _) => {
            "; changes that were made on this machine before it are not in the bucket yet: a mount without --read-only sends \
             them"
        }
    };
    say!("{shown} is unmounted{sent}.");
    Ok(())
}

/// Makes the daemon end, and waits until it has, whatever its last reply is, so that nothing is in the way of a new
/// start.
pub(super) fn finish_to_its_end(
    running: &RunningDaemon,
    request: &ControlRequest,
    limit: Option<Duration>,
    process: Option<ProcessHandle>,
) -> CliResult {
    let done = finish_within(running, request, limit);
    if done.as_ref().err().is_none_or(|failure| ends_with(running, failure)) {
        wait_for_end(running, process);
    }
    done
}

/// Whether a daemon that failed to do what it was asked ends on its own, for example because the vault was taken over.
fn ends_with(running: &RunningDaemon, failure: &Failure) -> bool {
    match failure.exit {
        Exit::Busy => false,
        // It goes on sending, unless its note says that it ended.
        Exit::Unsent => last::of(running).is_some(),
        _ => match report_of(running).state {
            State::Finishing => true,
            State::Silent => failure.exit != Exit::Other, // it hangs
            _ => false,
        },
    }
}

fn wait_for_end(running: &RunningDaemon, process: Option<ProcessHandle>) {
    if process.is_some_and(|process| !process.wait(END_WAIT)) {
        complain!("s3vault: the daemon (process {}) has not ended yet", running.pid);
    }
}

/// There is no daemon: what is there may be the dead mount of one that crashed.
fn without_daemon(paths: &UserPaths, path: &Path) -> CliResult {
    let shown = path.display();
    if os::is_dead_mount(path) {
        let failed = |error| {
            let text = format!(
                "the dead mount at {shown} cannot be cleaned up: {error}; as root: `umount -l {shown}`"
            );
            Failure::new(Exit::Mountpoint, text)
        };
        mount_dir::detach(path).map_err(failed)?;
        let text = format!(
            "Cleaned up a dead mount at {shown}. What its daemon had not sent is on this disk; the next mount sends it."
        );
        return Err(Failure::new(Exit::Unsent, text));
    }
    Err(not_mounted(&shown.to_string(), &RunningDaemon::all(&paths.running())))
}

/// Ends the mount now: detaches it first, and then, unless the daemon can end well at once, kills the very process that
/// was noted.
fn force(running: &RunningDaemon, path: &Path) -> CliResult {
    let shown = path.display();
    let process = running.process().map_err(|error| silent(running, &error))?;
    let before = report_of(running);
    if mount_dir::ours_at(path).is_some()
        && let Err(error) = mount_dir::detach(path)
    {
        complain!("s3vault: {shown} cannot be detached and stays visible: {error}");
    }
    let Some(process) = process else {
        say!("{shown} is unmounted; its daemon had ended already.");
        return Ok(());
    };
    if is_quiet(&before) && ends_well(running) && process.wait(END_WAIT) {
        say!("{shown} is unmounted; everything is in the bucket.");
        return Ok(());
    }
    process.kill().map_err(|error| silent(running, &error))?;
    if !process.wait(END_WAIT) {
        let text = format!(
            "{shown} is detached, but its daemon (process {}) does not end: the kernel holds it; what is \
             unsent stays on this disk",
            running.pid
        );
        return Err(Failure::new(Exit::Forced, text));
    }
    // A mount whose daemon is gone. The lazy unmount above leaves little room for a race.
    if os::is_dead_mount(path) {
        drop(mount_dir::detach(path));
    }
    let missing = match before.state {
        State::Silent => "what was unsent is not known, as its daemon did not answer".to_owned(),
        _ => describe_progress(&before.progress),
    };
    let text = format!(
        "the mount at {shown} was ended at once: {missing}; closed files are safe on this disk, and the next \
         mount of this vault on this machine sends them"
    );
    Err(Failure::new(Exit::Forced, text))
}

fn is_quiet(report: &DaemonReport) -> bool {
    report.state != State::Silent && report.progress.is_done()
}

/// Whether a daemon with nothing to send ends on its own within a moment. If the connection was lost, it may have ended
/// well and noted that before.
pub(super) fn ends_well(running: &RunningDaemon) -> bool {
    asked_to_end(running).unwrap_or_else(|_| last::of(running) == Some(Ok(())))
}

fn asked_to_end(running: &RunningDaemon) -> io::Result<bool> {
    let mut client = Client::ask(&running.dir, &ControlRequest::Umount { within: None }, END_WAIT)?;
    // The daemon reports its progress every half second, so this many replies fit into the wait.
    for _ in 0..20 {
        match client.next()? {
            ControlReply::Done => return Ok(true),
            ControlReply::Progress(progress) if progress.is_done() => {}
            _ => break,
        }
    }
    Ok(false)
}
