//! How a daemon ended, noted beside its journal for clients that lost the connection before they were told.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exit::{CliResult, Failure};
use super::registry::RunningDaemon;
use crate::os::{read_small, replace};
use crate::vault;

/// The file's name in the vault's state directory.
const NAME: &str = "last.json";
/// The file that is there while a daemon writes the vault.
const WRITING: &str = "writing.json";
/// The most bytes of the note; a failure is a few lines.
const LENGTH_MAX: u64 = 64 << 10;

/// The outcome, and the daemon that it belongs to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Last {
    pid: u32,
    started: u64,
    namespace: u64,
    failure: Option<Failure>,
}

/// Notes how this daemon ended.
pub(super) fn keep(running: &RunningDaemon, outcome: &CliResult) -> io::Result<()> {
    let last = Last {
        pid: running.pid,
        started: running.started,
        namespace: running.namespace,
        failure: outcome.clone().err(),
    };
    replace(&path(&running.dir), &serde_json::to_vec(&last)?)
}

/// How this very daemon ended; `None` if it was killed, or could not note it.
pub(super) fn of(running: &RunningDaemon) -> Option<CliResult> {
    let text = read_small(&path(&running.dir), LENGTH_MAX).ok()??;
    let last: Last = serde_json::from_slice(&text).ok()?;
    let same = (last.pid, last.started, last.namespace)
        == (running.pid, running.started, running.namespace);
    same.then_some(last.failure.map_or(Ok(()), Err))
}

/// Notes that this daemon writes its vault, until [`ends_well`]: a daemon that is killed leaves the note behind.
pub(super) fn begins(running: &RunningDaemon) -> io::Result<()> {
    replace(&running.dir.join(WRITING), &serde_json::to_vec(running)?)
}

/// Removes the note of [`begins`]: everything is in the bucket.
pub(super) fn ends_well(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(WRITING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The daemon that wrote the vault in this state directory last, if it did not end well and no other one runs: what it had
/// not sent lies there.
pub(super) fn unfinished_in(dir: &Path) -> Option<RunningDaemon> {
    let text = read_small(&dir.join(WRITING), LENGTH_MAX).ok()??;
    let wrote: RunningDaemon = serde_json::from_slice(&text).ok()?;
    (!vault::is_held(dir)).then_some(wrote)
}

/// The same, of all state directories below `state`.
pub(super) fn unfinished(state: &Path) -> Vec<(PathBuf, RunningDaemon)> {
    let dirs = std::fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> =
        dirs.filter_map(|dir| Some((dir.clone(), unfinished_in(&dir)?))).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}
