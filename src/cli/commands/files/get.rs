//! `s3vault get`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;

use super::cat::print;
use super::expand::expand;
use super::fetch::{FetchOutcome, fetch};
use super::interrupt;
use super::local::{LocalFile, aside, dress, is_there, make_other};
use super::session::{FilesPurpose, FilesSession};
use super::which::{Meant, differ_by_name, last_name};
use super::work::Work;
use crate::cli::args::Global;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::files::wire::FileEntry;
use crate::cli::files_args::{GetArgs, last_apart};
use crate::cli::paths::UserPaths;

/// How often a file that changes while it is read is tried again.
const TRIES: usize = 5;
/// The most files with several names that are remembered.
const LINKS_MAX: usize = 1 << 20;

/// Fetches files and directories to this machine.
pub(crate) async fn get(global: &Global, paths: &UserPaths, args: &GetArgs) -> CliResult {
    let (sources, to) = last_apart(&args.paths);
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), sources)?;
    if to.as_os_str() == "-" {
        return print(global, paths, &meant).await;
    }
    FilesSession::with(global, paths, &meant, FilesPurpose::Bring, |session| {
        bring(session, &meant.paths, &to, !args.recursive)
    })
    .await
}

/// A file to fetch.
struct GetJob {
    from: PathBuf,
    to: PathBuf,
    entry: FileEntry,
}

/// What is done after all files are fetched.
#[derive(Default)]
struct Later {
    /// Directories, parents first.
    directories: Vec<(PathBuf, PathBuf, FileEntry)>,
    /// The path of the first name of each file, by inode.
    first: HashMap<u64, PathBuf>,
    /// Further names of files that were fetched under another name.
    links: Vec<(PathBuf, PathBuf)>,
}

fn bring(session: &FilesSession, sources: &[PathBuf], to: &Path, follows: bool) -> CliResult {
    let mut connection = session.connect()?;
    let lost = |error: io::Error| session.lost(&error);
    let (mut roots, mut failed) = (Vec::new(), Vec::new());
    for source in sources {
        match expand(&mut connection, source).map_err(lost)? {
            Ok(all) => {
                for path in all {
                    match connection.stat(&path, follows).map_err(lost)? {
                        Ok(entry) => roots.push((path, entry)),
                        Err(failure) => failed.push((path, failure)),
                    }
                }
            }
            Err(failure) => failed.push((source.clone(), failure)),
        }
    }
    let is_directory = fs::metadata(to).is_ok_and(|there| there.is_dir());
    let one_directory = matches!(&roots[..], [(_, entry)] if entry.is_directory());
    let must_be = roots.len() + failed.len() > 1
        || to.as_os_str().as_bytes().ends_with(b"/") && !one_directory;
    if must_be && !is_directory {
        let text = format!(
            "{} is no directory that is there, and what is brought goes into one; nothing was done; make it first",
            to.display()
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    if is_directory {
        let from: Vec<&PathBuf> = roots.iter().map(|(path, _)| path).collect();
        differ_by_name(&from)?;
    }
    let is_single = roots.len() + failed.len() == 1 && !one_directory;
    let work = Work::new(session, "get", is_single);
    for (path, failure) in failed {
        work.failed(&path.display().to_string(), failure);
    }
    // Anything made here would be found by a second attempt, which would then interpret the target differently.
    session.begins();
    let mut later = Later::default();
    let find = |jobs: &SyncSender<GetJob>| {
        for (from, entry) in roots {
            let to = match last_name(&from) {
                Some(name) if is_directory => to.join(name),
                _ => to.to_owned(),
            };
            if !look(&work, &mut connection, &mut later, GetJob { from, to, entry }, jobs) {
                return;
            }
        }
    };
    work.in_parallel(find, |connection, job| one(&work, connection, &job));
    if !work.is_over() {
        finish(&work, &mut connection, later);
    }
    work.outcome(
        "brought",
        "the others are there; say it again when that is mended, and what is there is passed over",
    )
}

/// Walks one entry and everything below it; `false`: the rest should not be walked.
fn look(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    later: &mut Later,
    root: GetJob,
    jobs: &SyncSender<GetJob>,
) -> bool {
    let mut left = vec![root];
    while let Some(GetJob { from, to, entry }) = left.pop() {
        if work.is_over() || interrupt::is_asked() {
            return false;
        }
        work.tally.found.fetch_add(1, Relaxed);
        if entry.is_directory() {
            if let Err(error) = make_directory(&to) {
                work.failed(
                    &to.display().to_string(),
                    here(&error, "the directory cannot be made"),
                );
                continue;
            }
            let listed = work.heard(&from.display().to_string(), connection.list(&from));
            let Some(listed) = listed else { return false };
            let Ok(entries) = listed else { continue };
            // In reverse, since entries are popped from the end.
            for entry in entries.into_iter().rev() {
                let (from, to) = (from.join(&entry.name), to.join(&entry.name));
                left.push(GetJob { from, to, entry });
            }
            later.directories.push((from, to, entry));
            work.tally.done.fetch_add(1, Relaxed);
            continue;
        }
        if entry.nlink > 1 {
            if let Some(first) = later.first.get(&entry.ino) {
                later.links.push((first.clone(), to));
                continue;
            }
            if later.first.len() < LINKS_MAX {
                later.first.insert(entry.ino, to.clone());
            }
        }
        work.tally.bytes_found.fetch_add(if entry.is_file() { entry.size } else { 0 }, Relaxed);
        // The workers run until this returns.
        drop(jobs.send(GetJob { from, to, entry }));
    }
    true
}

/// Makes a directory on this machine. An existing directory is fine, but not a symlink to one.
fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path)?.is_dir()
                || path.join(".").is_dir() && path.ends_with(".")
            {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            }
        }
        made => made,
    }
}

/// Fetches one entry that is not a directory.
fn one(work: &Work<'_>, connection: &mut Option<FilesConnection>, job: &GetJob) {
    let shown = || job.to.display().to_string();
    if fs::symlink_metadata(&job.to).is_ok_and(|there| there.is_dir()) {
        let text =
            "there is a directory of this name, which was left as it is; nothing was brought";
        return work.failed(&shown(), Failure::new(Exit::Other, text));
    }
    if !job.entry.is_file() {
        match make_other(&job.to, &job.entry) {
            Ok(true) => _ = work.tally.done.fetch_add(1, Relaxed),
            Ok(false) => work.failed(
                &job.from.display().to_string(),
                Failure::new(Exit::Other, "it is a socket, which only its program can make"),
            ),
            Err(error) => work.failed(&shown(), here(&error, "it cannot be made")),
        }
        return;
    }
    if is_there(&job.to, &job.entry) {
        work.tally.there.fetch_add(1, Relaxed);
        work.tally.done.fetch_add(1, Relaxed);
        work.tally.bytes_found.fetch_sub(job.entry.size, Relaxed);
        return;
    }
    let file = match LocalFile::create(&job.to) {
        Ok(file) => file,
        Err(error) => return work.failed(&shown(), here(&error, "it cannot be made")),
    };
    for _ in 0..TRIES {
        let Some(there) = connection else { return };
        let fetched = fetch(there, &job.from, |offset, data| {
            if interrupt::is_asked() || work.is_over() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            file.write(offset, data)?;
            work.tally.bytes.fetch_add(data.len() as u64, Relaxed);
            Ok(())
        });
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                *connection = None;
                return work.ends(work.session.lost(&error));
            }
        };
        match fetched {
            FetchOutcome::Whole(entry, attributes) => {
                return match file.keep(&entry, &attributes) {
                    Ok(()) => _ = work.tally.done.fetch_add(1, Relaxed),
                    Err(error) => work.failed(&shown(), here(&error, "it cannot be written")),
                };
            }
            FetchOutcome::Failed(failure) => {
                return work.failed(&job.from.display().to_string(), failure);
            }
            FetchOutcome::NotWritten(error) => {
                *connection = None;
                if error.kind() == io::ErrorKind::Interrupted {
                    return;
                }
                return work.failed(&shown(), here(&error, "it cannot be written"));
            }
            FetchOutcome::Changed => {
                if let Err(error) = file.empty() {
                    return work.failed(&shown(), here(&error, "it cannot be written"));
                }
            }
        }
    }
    let text = "it changes all the time, so no copy of one moment could be made; nothing was brought; try again later";
    work.failed(&job.from.display().to_string(), Failure::new(Exit::Other, text));
}

/// Makes further names, and sets the attributes of directories, whose times change while they are filled.
fn finish(work: &Work<'_>, connection: &mut FilesConnection, later: Later) {
    for (first, to) in later.links {
        match link(&first, &to) {
            Ok(()) => _ = work.tally.done.fetch_add(1, Relaxed),
            Err(error) => {
                work.failed(&to.display().to_string(), here(&error, "it cannot be linked"));
            }
        }
    }
    for (from, to, entry) in later.directories.into_iter().rev() {
        let attributes = work.heard(&from.display().to_string(), connection.attributes(&from));
        let Some(attributes) = attributes else { return };
        let Ok(attributes) = attributes else { continue };
        // The target of a vault's root keeps its own attributes.
        if entry.name.as_os_str().is_empty() {
            continue;
        }
        if let Err(error) = dress(&to, &entry, &attributes) {
            work.failed(&to.display().to_string(), here(&error, "its attributes cannot be set"));
        }
    }
}

/// Gives a file another name, replacing what is there.
fn link(first: &Path, to: &Path) -> io::Result<()> {
    let (seen, there) = (fs::symlink_metadata(first)?, fs::symlink_metadata(to));
    if there.is_ok_and(|there| (there.ino(), there.dev()) == (seen.ino(), seen.dev())) {
        return Ok(());
    }
    let half = aside(to, "-link");
    drop(fs::remove_file(&half)); // a killed command may have left it
    fs::hard_link(first, &half)?;
    fs::rename(&half, to).inspect_err(|_| drop(fs::remove_file(&half)))
}

/// A failure on this machine. Some concern only one file, others the whole disk.
fn here(error: &io::Error, what: &str) -> Failure {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem) {
        let text = format!(
            "{what}: {error}; nothing more is brought, and the files that are whole are there; make room, and say it again: \
             what is there is passed over"
        );
        return Failure::new(Exit::LocalDisk, text);
    }
    Failure::new(Exit::Other, format!("{what}: {error}"))
}
