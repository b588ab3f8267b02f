//! `s3vault put`.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use super::interrupt;
use super::local::is_same_time;
use super::session::{FilesPurpose, FilesSession};
use super::which::{Meant, last_name};
use super::work::Work;
use crate::cli::args::Global;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::FilesConnection;
use crate::cli::files::wire::{FileEntry, FilesRequest, Finish, Frame, PIECE};
use crate::cli::files_args::{PutArgs, last_apart};
use crate::cli::paths::UserPaths;
use crate::os;

/// Pieces of standard input that wait for the daemon.
const PIECES: usize = 4;
/// How often the daemon hears that we live while a pipe brings nothing.
const STILL: Duration = Duration::from_secs(30);
/// Files with several names that are remembered.
const LINKS_MAX: usize = 1 << 20;

/// Puts files and directories of this machine into a vault.
pub(crate) async fn put(global: &Global, paths: &UserPaths, args: &PutArgs) -> CliResult {
    let (sources, to) = last_apart(&args.paths);
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), [&to])?;
    let Some(to) = meant.paths.first().cloned() else { return Ok(()) };
    if sources.iter().any(|source| source == "-") && sources.len() > 1 {
        let text = "- is standard input, which becomes one file: name nothing else beside it; nothing was done";
        return Err(Failure::new(Exit::Usage, text));
    }
    let session = FilesSession::open(global, paths, &meant, FilesPurpose::Change).await?;
    let outcome = match sources {
        [only] if only == "-" => stdin(&session, &to),
        sources => send(&session, sources, &to, !args.recursive),
    };
    session.end(outcome)
}

/// Standard input becomes a file, when it has ended.
fn stdin(session: &FilesSession, to: &Path) -> CliResult {
    let mut connection = session.connect()?;
    let lost = |error: io::Error| session.lost(&error);
    let is_directory =
        connection.stat(to, true).map_err(lost)?.is_ok_and(|there| there.is_directory());
    if is_directory || last_name(to).is_none() || to.as_os_str().as_bytes().ends_with(b"/") {
        let text = format!(
            "{}: it is a directory; nothing was done; name the file that standard input becomes",
            to.display()
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    let work = Work::new(session, "put", true);
    let (send, receive) = mpsc::sync_channel::<io::Result<Vec<u8>>>(PIECES);
    // Not joined: it may wait for a pipe for ever.
    drop(std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut input).take(PIECE as u64).read_to_end(&mut piece);
            let is_end = matches!(read, Ok(0)) || read.is_err();
            if send.send(read.map(|_| piece)).is_err() || is_end {
                return;
            }
        }
    }));
    let sent: io::Result<io::Result<()>> = (|| {
        connection.ask(&FilesRequest::Put { path: to.to_owned(), parents: true })?;
        let mut size = 0;
        loop {
            match receive.recv_timeout(STILL) {
                Ok(Ok(piece)) if piece.is_empty() => break,
                Ok(Ok(piece)) => {
                    connection.send(&Frame::data(size, &piece))?;
                    size += piece.len() as u64;
                    work.tally.bytes.fetch_add(piece.len() as u64, Relaxed);
                    work.show();
                }
                Ok(Err(error)) => return Ok(Err(error)),
                Err(mpsc::RecvTimeoutError::Timeout) => connection.still()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Ok(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
        connection.finish(&Finish { size, ..Finish::default() })?;
        Ok(Ok(()))
    })();
    if let Ok(Err(error)) = sent {
        // The end of the connection takes what had come so far away.
        let text = format!("standard input cannot be read: {error}; nothing was put");
        return Err(Failure::new(Exit::Other, text));
    }
    // When the connection broke, what the daemon said before says more than that it did.
    if work.heard(&to.display().to_string(), connection.outcome()).is_some_and(|done| done.is_ok())
    {
        work.tally.done.fetch_add(1, Relaxed);
    }
    work.outcome("put", "")
}

/// A file to be put.
struct PutJob {
    from: PathBuf,
    to: PathBuf,
}

/// What is done when all files are there.
#[derive(Default)]
struct AfterFiles {
    /// Directories, the upper ones first.
    directories: Vec<(PathBuf, PathBuf, Metadata)>,
    /// Where the first name of a file is, by device and inode.
    first: HashMap<(u64, u64), PathBuf>,
    /// Names of files that have one already.
    links: Vec<(PathBuf, PathBuf)>,
}

fn send(session: &FilesSession, sources: &[OsString], to: &Path, follows: bool) -> CliResult {
    let mut connection = session.connect()?;
    let lost = |error: io::Error| session.lost(&error);
    let there = connection.stat(to, true).map_err(lost)?.ok();
    let is_directory = there.as_ref().is_some_and(FileEntry::is_directory);
    let ends_in_slash = to.as_os_str().as_bytes().ends_with(b"/");
    if there.is_some() && !is_directory && (sources.len() > 1 || ends_in_slash) {
        let text =
            format!("{}: there is something that is no directory; nothing was done", to.display());
        return Err(Failure::new(Exit::Usage, text));
    }
    // Several go into a directory, which is made if need be; so does what is put to `x/`.
    let into = is_directory || sources.len() > 1 || ends_in_slash;
    let above = if into { Some(to) } else { to.parent() };
    if let Some(above) = above.filter(|above| !above.as_os_str().is_empty() && !is_directory) {
        let request = FilesRequest::Mkdir { path: above.to_owned(), parents: true };
        connection.done(&request).map_err(lost)?.map_err(|failure| {
            let message = format!("{}: {}", above.display(), failure.message);
            Failure { message, ..failure }
        })?;
    }
    let one = matches!(sources, [only] if !Path::new(only).is_dir());
    let work = Work::new(session, "put", one);
    let mut later = AfterFiles::default();
    let find = |jobs: &SyncSender<PutJob>| {
        for source in sources {
            let from = PathBuf::from(source);
            let to = match last_name(&from) {
                Some(name) if into => to.join(name),
                _ => to.to_owned(),
            };
            if !look(&work, &mut connection, &mut later, (from, to, follows), jobs) {
                return;
            }
        }
    };
    work.in_parallel(find, |connection, job| one_file(&work, connection, &job));
    if !work.is_over() {
        finish(&work, &mut connection, later);
    }
    work.outcome("put", "the others are in the vault; say it again when that is mended, and what is there is passed over")
}

/// Looks at one thing and all that is below it; `false`: the rest is not worth looking at.
fn look(
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
                later.links.push((first.clone(), to));
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
            // The workers are there until this returns.
            drop(jobs.send(PutJob { from, to }));
        }
    }
    true
}

/// Names of a directory of this machine, each with what the vault has of that name; the vault's directory is made if need
/// be. The last name comes first. `None`: nothing more can be done.
type Names = Vec<(OsString, Option<FileEntry>)>;

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

/// Whether the vault has a file already, as far as length and time tell.
fn is_same(there: &FileEntry, seen: &Metadata) -> bool {
    let time = (seen.mtime(), u32::try_from(seen.mtime_nsec()).unwrap_or(0));
    there.is_file() && there.size == seen.len() && is_same_time(there.mtime, time)
}

/// Puts one file.
fn one_file(work: &Work<'_>, connection: &mut Option<FilesConnection>, job: &PutJob) {
    let shown = job.from.display().to_string();
    let Some(there) = connection else { return };
    let opened = File::open(&job.from).and_then(|file| {
        let seen = file.metadata()?;
        Ok((file, seen, os::xattrs_of(&job.from)?))
    });
    let (file, seen, attributes) = match opened {
        Ok(opened) => opened,
        Err(error) => return work.failed(&shown, Failure::new(Exit::Other, error.to_string())),
    };
    let sent = (|| {
        there.ask(&FilesRequest::Put { path: job.to.clone(), parents: false })?;
        for (name, value) in attributes.iter().filter(|(name, _)| is_kept(name)) {
            there.send(&Frame::attribute(name, value))?;
        }
        match content(work, there, &file, seen.len())? {
            Ok(size) => there.finish(&Finish { size, ..finish_of(&seen) }).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    })();
    if let Ok(Err(error)) = sent {
        // The end of the connection takes what had come so far away.
        *connection = None;
        return work.failed(
            &shown,
            Failure::new(Exit::Other, format!("it cannot be read: {error}; it was not put")),
        );
    }
    // What the daemon said before it ended the connection says more than that it did.
    match work.heard(&shown, there.outcome()) {
        Some(Ok(_)) => _ = work.tally.done.fetch_add(1, Relaxed),
        Some(Err(_)) | None => *connection = None,
    }
}

/// Sends what a file holds, without its holes; returns how long it is. The inner error is of the file.
fn content(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    file: &File,
    size: u64,
) -> io::Result<io::Result<u64>> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let (begin, end) = match os::next_data(file, at) {
            Ok(Some((begin, end))) => (begin, end.min(size)),
            Ok(None) => return Ok(Ok(size)),
            // No such thing on this file system.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (at, size),
            Err(error) => return Ok(Err(error)),
        };
        at = begin;
        while at < end {
            if interrupt::is_asked() {
                return Ok(Err(io::ErrorKind::Interrupted.into()));
            }
            let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let read = match file.read_at(&mut piece[..most], at) {
                // It became shorter meanwhile.
                Ok(0) => return Ok(Ok(at)),
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            connection.send(&Frame::data(at, &piece[..read]))?;
            at += read as u64;
            work.tally.bytes.fetch_add(read as u64, Relaxed);
        }
    }
    Ok(Ok(size))
}

/// What something is to have in the vault. Owners are kept as root, as `cp -a` does.
fn finish_of(seen: &Metadata) -> Finish {
    let is_root = os::effective_ids().0 == 0;
    Finish {
        size: 0,
        mode: Some(seen.mode()),
        owner: is_root.then(|| (seen.uid(), seen.gid())),
        mtime: Some((seen.mtime(), u32::try_from(seen.mtime_nsec()).unwrap_or(0))),
    }
}

/// Whether an extended attribute goes along: not what belongs to this machine's security system.
fn is_kept(name: &[u8]) -> bool {
    let is_root = os::effective_ids().0 == 0;
    name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
        || is_root && (name.starts_with(b"trusted.") || name == b"security.capability")
}

/// A symlink, a fifo or a device; `false`: nothing more can be done.
fn other(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    (from, to): (&Path, &Path),
    seen: &Metadata,
) -> bool {
    let shown = from.display().to_string();
    let target = match seen.is_symlink().then(|| fs::read_link(from)).transpose() {
        Ok(target) => target,
        Err(error) => {
            work.failed(&shown, Failure::new(Exit::Other, error.to_string()));
            return true;
        }
    };
    if seen.mode() & libc::S_IFMT == libc::S_IFSOCK {
        work.failed(
            &shown,
            Failure::new(
                Exit::Other,
                "it is a socket, which is of no use elsewhere; it was not put",
            ),
        );
        return true;
    }
    let rdev = u32::try_from(seen.rdev()).unwrap_or(0);
    let made = (|| {
        connection.ask(&FilesRequest::Make { path: to.to_owned(), target, rdev })?;
        connection.finish(&finish_of(seen))?;
        connection.outcome()
    })();
    match work.heard(&shown, made) {
        Some(Ok(_)) => {
            work.tally.done.fetch_add(1, Relaxed);
            true
        }
        Some(Err(_)) => match work.connect() {
            Some(another) => {
                *connection = another;
                true
            }
            None => false,
        },
        None => false,
    }
}

/// Further names, and the attributes of directories, whose times change while they are filled.
fn finish(work: &Work<'_>, connection: &mut FilesConnection, later: AfterFiles) {
    for (first, to) in later.links {
        let shown = to.display().to_string();
        // What is there makes way, if it is not the same file.
        let names = connection
            .stat(&first, false)
            .and_then(|first| Ok((first, connection.stat(&to, false)?)));
        let Some(Ok((first_seen, there))) = work.heard(&shown, names.map(Ok)) else { return };
        if let (Ok(first), Ok(there)) = (&first_seen, &there)
            && first.ino == there.ino
        {
            work.tally.done.fetch_add(1, Relaxed);
            continue;
        }
        if there.is_ok() {
            let request = FilesRequest::Remove { path: to.clone(), recursive: false };
            match work.heard(&shown, connection.done(&request)) {
                Some(Ok(_)) => {}
                Some(Err(_)) => continue,
                None => return,
            }
        }
        match work.heard(&shown, connection.done(&FilesRequest::Link { from: first, to })) {
            Some(Ok(_)) => _ = work.tally.done.fetch_add(1, Relaxed),
            Some(Err(_)) => {}
            None => return,
        }
    }
    for (from, to, seen) in later.directories.into_iter().rev() {
        // The root of the vault keeps what it has.
        if last_name(&to).is_none() {
            continue;
        }
        let shown = from.display().to_string();
        let dressed = (|| {
            connection.ask(&FilesRequest::Dress { path: to })?;
            for (name, value) in os::xattrs_of(&from).unwrap_or_default() {
                if is_kept(&name) {
                    connection.send(&Frame::attribute(&name, &value))?;
                }
            }
            connection.finish(&finish_of(&seen))?;
            connection.outcome()
        })();
        match work.heard(&shown, dressed) {
            Some(Ok(_)) => {}
            Some(Err(_)) => match work.connect() {
                Some(another) => *connection = another,
                None => return,
            },
            None => return,
        }
    }
}
