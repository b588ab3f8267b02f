//! `s3vault gc`, `retention` and `snapshot`: requests to the daemon that has the vault open, or to one started for
//! them.

use std::path::Path;

use super::ask::{change, leave, not_mounted, start};
use super::mount::{not_in_use_yet, spec};
use crate::cli::args::{Global, OpeningArgs};
use crate::cli::config::Config;
use crate::cli::control::ControlRequest;
use crate::cli::daemon::spec::Spec;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::old_states::{OldStates, WhichOne, span};
use crate::cli::old_states_args::{GcArgs, RetentionArgs, SnapshotArgs, SnapshotCommand};
use crate::cli::paths::{UserPaths, absolute};
use crate::cli::registry::RunningDaemon;
use crate::cli::target::Target;
use crate::cli::unlock::Unlocker;
use crate::vault::Unlocked;

/// Deletes from the bucket what no kept state needs any more.
pub(crate) async fn gc(global: &Global, paths: &UserPaths, args: &GcArgs) -> CliResult {
    let which = WhichOne { path: args.mountpoint.clone(), bucket: args.bucket.bucket.clone() };
    ask(global, paths, &which, OldStates::Gc { dry_run: args.dry_run }).await
}

/// Shows or changes how long old states are kept.
pub(crate) async fn retention(
    global: &Global,
    paths: &UserPaths,
    args: &RetentionArgs,
) -> CliResult {
    // The span is optional: the first argument may be the mountpoint.
    let (keep, path) = match (&args.span, &args.mountpoint) {
        (Some(text), None) if span(text).is_err() && std::path::Path::new(text).exists() => {
            (None, Some(text.into()))
        }
        (Some(text), path) => {
            let keep =
                span(text).map_err(|why| Failure::new(Exit::Usage, format!("{text}: {why}")))?;
            (Some(keep), path.clone())
        }
        (None, path) => (None, path.clone()),
    };
    let which = WhichOne { path, bucket: args.bucket.bucket.clone() };
    ask(global, paths, &which, OldStates::Retention { keep }).await
}

/// Makes, lists and deletes snapshots.
pub(crate) async fn snapshot(global: &Global, paths: &UserPaths, args: &SnapshotArgs) -> CliResult {
    let (what, path) = match &args.command {
        SnapshotCommand::Create { name, mountpoint, keep } => {
            (OldStates::Make { name: name.clone(), keep: *keep }, mountpoint)
        }
        SnapshotCommand::List { mountpoint } => (OldStates::List, mountpoint),
        SnapshotCommand::Delete { name, mountpoint } => {
            (OldStates::Delete { name: name.clone() }, mountpoint)
        }
    };
    let which = WhichOne { path: path.clone(), bucket: args.bucket.bucket.clone() };
    ask(global, paths, &which, what).await
}

async fn ask(global: &Global, paths: &UserPaths, which: &WhichOne, what: OldStates) -> CliResult {
    let request = ControlRequest::OldStates(what);
    let all = RunningDaemon::all(&paths.running());
    if let Some(path) = &which.path {
        let path = absolute(path)?;
        let found = RunningDaemon::around(&paths.running(), &path);
        let found = found.ok_or_else(|| not_mounted(&path.display().to_string(), &all))?;
        return change(&found, &request);
    }
    let writers: Vec<_> = all.iter().filter(|running| !running.read_only).collect();
    if let (None, [only]) = (&which.bucket, &writers[..]) {
        return change(only, &request);
    }
    let config = Config::read(&paths.config)?;
    let target = Target::choose(global, paths, &config, which.bucket.as_deref(), None)?;
    if let Some(running) = target.running(paths).filter(|running| !running.read_only) {
        return change(&running, &request);
    }
    alone(global, paths, &target, &request).await
}

/// Nobody has the vault open: starts a daemon without mount and service, asks it, and ends it.
async fn alone(
    global: &Global,
    paths: &UserPaths,
    target: &Target,
    request: &ControlRequest,
) -> CliResult {
    let bucket = target.open().await?;
    let unlocked = Unlocker { global, paths, target }.unlock(&bucket).await?;
    drop(bucket);
    by_itself(global, paths, target, unlocked, request).await
}

/// The same, for a vault that is unlocked already.
pub(super) async fn by_itself(
    global: &Global,
    paths: &UserPaths,
    target: &Target,
    unlocked: Unlocked,
    request: &ControlRequest,
) -> CliResult {
    let dir = paths.state.join(unlocked.vault.to_string());
    not_in_use_yet(paths, |running| running.dir == dir)?;
    // The daemon ends when this process does, whatever the reason.
    let opening = OpeningArgs { foreground: true, ..OpeningArgs::usual() };
    let spec: Spec = spec(global, paths, &opening, target, &unlocked)?;
    drop(unlocked);
    let (_daemon, running) = start(paths, &spec).await?;
    let done = change(&running, request);
    done.and(leave(&running))?;
    say_if_copied(spec.superblock.as_deref());
    Ok(())
}

/// Printed only on success, since a failure has a single line.
pub(super) fn say_if_copied(path: Option<&Path>) {
    if let Some(path) = path {
        complain!(
            "s3vault: the superblock is lost from the bucket, or does not open: that of {} was used; a mount for writing puts \
             it back",
            path.display()
        );
    }
}
