//! Finds what has to be put: walks the local tree and compares it with the vault.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;

use super::super::interrupt;
use super::super::local::is_same_time;
use super::super::which::last_name;
use super::super::work::Work;
use super::other::other;
use crate::cli::exit::{Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::files::wire::{FileEntry, FilesRequest};

/// The most files with several names that are remembered.
const LINKS_MAX: usize = 1 << 20;

/// A file to put.
pub(super) struct PutJob {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
}

/// What is done after all files are put.
#[derive(Default)]
pub(super) struct AfterFiles {
    /// Directories, parents first.
    pub(super) directories: Vec<(PathBuf, PathBuf, Metadata)>,
    /// The vault path of the first name of each file, by device and inode.
    pub(super) first: HashMap<(u64, u64), PathBuf>,
    /// Further names of files that were put under another name: where they are here, that other name in the vault, and theirs.
    pub(super) links: Vec<(PathBuf, PathBuf, PathBuf)>,
}

/// Walks one entry and everything below it; `false`: the rest should not be walked.
pub(super) fn look(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    later: &mut AfterFiles,
    (from, to, follows): (PathBuf, PathBuf, bool),
    jobs: &SyncSender<PutJob>,
) -> bool {
    let Some(there) = work.known(connection.stat(&to, false)) else { return false };
    let there = there.ok();
    let mut left = vec![(from, to, there, follows)];
    while let Some((from, to, there, follows)) = left.pop() {
        if work.is_over() || interrupt::is_asked() {
            return false;
        }
        work.tally.found.fetch_add(1, Relaxed);
        let shown = from.display().to_string();
        let seen = if follows { fs::metadata(&from) } else { fs::symlink_metadata(&from) };
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                work.failed(&shown, Failure::new(Exit::Other, error.to_string()));
                continue;
            }
        };
        if seen.is_dir() && there.as_ref().is_some_and(|there| !there.is_directory()) {
            let text = "what has this name in the vault is no directory, and was left as it is; nothing was put";
            work.failed(&shown, Failure::new(Exit::Other, text));
            continue;
        }
        if seen.is_dir() {
            let names = match directory(work, connection, (&from, &to), there.as_ref()) {
                Some(Ok(names)) => names,
                Some(Err(())) => continue,
                None => return false,
            };
            for (name, there) in names {
                left.push((from.join(&name), to.join(&name), there, false));
            }
            later.directories.push((from, to, seen));
            continue;
        }
        if there.as_ref().is_some_and(FileEntry::is_directory) {
            let text = "there is a directory of this name in the vault, which was left as it is; nothing was put";
            work.failed(&shown, Failure::new(Exit::Other, text));
            continue;
        }
        if seen.nlink() > 1 {
            let key = (seen.dev(), seen.ino());
            if let Some(first) = later.first.get(&key) {
                later.links.push((from, first.clone(), to));
                continue;
            }
            if later.first.len() < LINKS_MAX {
                later.first.insert(key, to.clone());
            }
        }
        if !seen.is_file() {
            if !other(work, connection, (&from, &to), &seen) {
                return false;
            }
        } else if there.is_some_and(|there| is_same(&there, &seen)) {
            work.tally.there.fetch_add(1, Relaxed);
            work.tally.done.fetch_add(1, Relaxed);
        } else {
            work.tally.bytes_found.fetch_add(seen.len(), Relaxed);
            // The workers run until this returns.
            drop(jobs.send(PutJob { from, to }));
        }
    }
    true
}

/// The names in a local directory, each with the vault's entry of that name; the last name first.
type Names = Vec<(OsString, Option<FileEntry>)>;

/// Reads a local directory, and makes the vault's if need be. `None`: nothing more can be done.
fn directory(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    (from, to): (&Path, &Path),
    there: Option<&FileEntry>,
) -> Option<Result<Names, ()>> {
    let shown = from.display().to_string();
    let read = fs::read_dir(from).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
    });
    let mut names = match read {
        Ok(names) => names,
        Err(error) => {
            work.failed(&shown, Failure::new(Exit::Other, error.to_string()));
            return Some(Err(()));
        }
    };
    names.sort_by(|a, b| b.cmp(a));
    let mut entries = HashMap::new();
    if last_name(to).is_none() || there.is_some_and(FileEntry::is_directory) {
        let listed = work.heard(&shown, connection.list(to))?;
        let Ok(listed) = listed else { return Some(Err(())) };
        let wanted: HashSet<&OsStr> = names.iter().map(OsString::as_os_str).collect();
        let listed = listed.into_iter().filter(|entry| wanted.contains(entry.name.as_os_str()));
        entries.extend(listed.map(|entry| (entry.name.clone().into_os_string(), entry)));
    } else {
        let request = FilesRequest::Mkdir { path: to.to_owned(), parents: false };
        if work.heard(&shown, connection.done(&request))?.is_err() {
            return Some(Err(()));
        }
    }
    work.tally.done.fetch_add(1, Relaxed);
    let names = names.into_iter().map(|name| {
        let there = entries.remove(&name);
        (name, there)
    });
    Some(Ok(names.collect()))
}

/// Whether the vault has the file already, judged by size and time.
pub(super) fn is_same(there: &FileEntry, seen: &Metadata) -> bool {
    let time = (seen.mtime(), u32::try_from(seen.mtime_nsec()).unwrap_or(0));
    there.is_file() && there.size == seen.len() && is_same_time(there.mtime, time)
}
