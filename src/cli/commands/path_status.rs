//! `s3vault status PATH`: how safe a file is, or the content of a directory.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Serialize;
use serde_json::json;

use super::ask::report_of;
use crate::cli::daemon_report::{describe_progress, plural};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::output;
use crate::cli::registry::RunningDaemon;
use crate::os;

/// The extended attributes in which the mount reports the state of a file.
const STATE: &[u8] = b"user.s3vault.state";
const S3_KEY: &[u8] = b"user.s3vault.s3_key";
/// How many names of entries that are not in the bucket yet are shown.
const SHOWN: usize = 10;
/// How many objects are shown.
const KEYS: usize = 10;

/// The number and size of entries in one state.
#[derive(Debug, Default, Serialize)]
struct StateCount {
    entries: u64,
    bytes: u64,
}

/// The states of everything below a path.
#[derive(Debug, Default, Serialize)]
struct PathState {
    path: String,
    /// The least safe state of all entries.
    state: &'static str,
    size: u64,
    objects: Vec<String>,
    local: StateCount,
    uploading: StateCount,
    durable: StateCount,
    /// Some entries that are not durable.
    #[serde(skip)]
    waiting: Vec<PathBuf>,
    #[serde(skip)]
    is_directory: bool,
}

impl PathState {
    /// Examines a path and everything below it.
    fn of(path: &Path) -> CliResult<Self> {
        let failed =
            |error| Failure::io(format_args!("{} cannot be looked at", path.display()), &error);
        let mut found = Self { path: path.display().to_string(), ..Self::default() };
        let top = path.symlink_metadata().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::new(Exit::Other, format!("{}: no such file or directory", path.display()))
            }
            _ => failed(error),
        })?;
        found.is_directory = top.is_dir();
        if top.is_file() {
            let keys = os::xattr_of(path, S3_KEY).map_err(failed)?.unwrap_or_default();
            found.objects = String::from_utf8_lossy(&keys).lines().map(str::to_owned).collect();
        }
        let mut left = VecDeque::from([path.to_owned()]);
        while let Some(next) = left.pop_front() {
            let entry = match next.symlink_metadata() {
                Ok(entry) => entry,
                // It was removed a moment ago.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && next != path => {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            // A file system that is mounted inside this mount is skipped.
            if entry.dev() != top.dev() {
                continue;
            }
            found.count(&next, &entry).map_err(failed)?;
            if entry.is_dir() {
                for below in fs::read_dir(&next).map_err(failed)? {
                    left.push_back(below.map_err(failed)?.path());
                }
            }
        }
        let (local, uploading) = (found.local.entries, found.uploading.entries);
        found.state = match (local, uploading) {
            (0, 0) => "durable",
            (0, _) => "uploading",
            _ => "local",
        };
        Ok(found)
    }

    fn count(&mut self, path: &Path, entry: &fs::Metadata) -> std::io::Result<()> {
        // Symlinks do not have this attribute; their state is the directory's.
        let Some(state) = os::xattr_of(path, STATE)? else { return Ok(()) };
        let bytes = if entry.is_file() { entry.len() } else { 0 };
        self.size += bytes;
        let count = match &state[..] {
            b"durable" => &mut self.durable,
            b"uploading" => &mut self.uploading,
            _ => &mut self.local,
        };
        count.entries += 1;
        count.bytes += bytes;
        if state != b"durable" && self.waiting.len() < SHOWN {
            self.waiting.push(path.to_owned());
        }
        Ok(())
    }

    fn describe(&self, on_its_way: &str) -> String {
        let mut lines = vec![self.path.clone()];
        let mut line = |name: &str, text: &str| lines.push(format!("  {name:<12}{text}"));
        let said = match self.state {
            "durable" => "durable: all of it is in the bucket",
            "uploading" => "uploading: it is on its way to the bucket",
            _ => "local: not all of it is in the bucket, or on its way there",
        };
        line("state", said);
        line("size", &ByteSize::b(self.size).to_string());
        if self.is_directory {
            for (name, count) in
                [("durable", &self.durable), ("uploading", &self.uploading), ("local", &self.local)]
            {
                let (entries, bytes) = (count.entries, ByteSize::b(count.bytes));
                let entries = format!("{entries} file{} and directories", plural(entries));
                line(name, &format!("{entries}, {bytes}"));
            }
        }
        for (nth, key) in self.objects.iter().take(KEYS).enumerate() {
            line(if nth == 0 { "objects" } else { "" }, key);
        }
        if self.objects.len() > KEYS {
            line("", &format!("and {} more", self.objects.len() - KEYS));
        }
        if self.state != "durable" {
            line("on its way", on_its_way);
        }
        for (nth, path) in self.waiting.iter().filter(|_| self.is_directory).enumerate() {
            line(if nth == 0 { "waiting" } else { "" }, &path.display().to_string());
        }
        lines.join("\n")
    }
}

/// Shows how safe a path in a mount is.
pub(super) fn path_status(running: &RunningDaemon, path: &Path, as_json: bool) -> CliResult {
    let found = PathState::of(path)?;
    if as_json {
        return output::show(&json!(found).to_string());
    }
    let report = report_of(running);
    output::show(&found.describe(&describe_progress(&report.progress)))
}
