//! How a daemon ended, noted beside its journal for clients that lost the connection before they were told.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exit::{CliResult, Failure};
use super::registry::RunningDaemon;
use crate::os::{read_small, replace};

/// The file's name in the vault's state directory.
const NAME: &str = "last.json";
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

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}
