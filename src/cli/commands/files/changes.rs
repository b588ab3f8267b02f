//! `s3vault cp`, `mv`, `mkdir` and `rm`: the daemon makes these changes in the vault.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use super::expand::expand;
use super::session::{FilesPurpose, FilesSession};
use super::which::{Meant, differ_by_name};
use super::work::Work;
use crate::cli::args::Global;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::wire::{FilesReply, FilesRequest};
use crate::cli::files::{FilesConnection, FromDaemon};
use crate::cli::files_args::{CpArgs, MkdirArgs, MvArgs, RmArgs};
use crate::cli::paths::UserPaths;

/// Copies inside a vault.
pub(crate) async fn cp(global: &Global, paths: &UserPaths, args: &CpArgs) -> CliResult {
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), [&args.from, &args.to])?;
    let recursive = args.recursive;
    let request = |from: PathBuf, to: PathBuf| FilesRequest::Copy { from, to, recursive };
    from_to(global, paths, &meant, "copied", request).await
}

/// Moves inside a vault.
pub(crate) async fn mv(global: &Global, paths: &UserPaths, args: &MvArgs) -> CliResult {
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), [&args.from, &args.to])?;
    let request = |from: PathBuf, to: PathBuf| FilesRequest::Move { from, to };
    from_to(global, paths, &meant, "moved", request).await
}

async fn from_to(
    global: &Global,
    paths: &UserPaths,
    meant: &Meant,
    verb: &str,
    request: impl Fn(PathBuf, PathBuf) -> FilesRequest,
) -> CliResult {
    let [from, to] = &meant.paths[..] else { return Ok(()) };
    FilesSession::with(global, paths, meant, FilesPurpose::Change, |session| {
        let mut connection = session.connect()?;
        let found = find_all(session, &mut connection, std::slice::from_ref(from))?;
        let to = target(session, &mut connection, &found.0, to, verb)?;
        one_by_one(session, connection, found, verb, |from| request(from.to_owned(), to.clone()))
    })
    .await
}

/// Where all of these go: several only into a directory, since each would replace the one before.
fn target(
    session: &FilesSession,
    connection: &mut FilesConnection,
    all: &[PathBuf],
    to: &Path,
    verb: &str,
) -> CliResult<PathBuf> {
    if all.len() < 2 {
        return Ok(to.to_owned());
    }
    let there = connection.stat(to, true).map_err(|error| session.lost(&error))?;
    if !there.is_ok_and(|there| there.is_directory()) {
        let text = format!(
            "{} is no directory that is there, and {} things can only go into one; nothing was {verb}; make it first",
            to.display(),
            all.len()
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    differ_by_name(all)?;
    // Should it be removed meanwhile, nothing more is done.
    Ok(to.join("."))
}

/// Makes directories.
pub(crate) async fn mkdir(global: &Global, paths: &UserPaths, args: &MkdirArgs) -> CliResult {
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), &args.paths)?;
    FilesSession::with(global, paths, &meant, FilesPurpose::Change, |session| {
        let mut connection = session.connect()?;
        let work = Work::new(session, "mkdir", meant.paths.len() == 1);
        for path in &meant.paths {
            let request = FilesRequest::Mkdir { path: path.clone(), parents: args.parents };
            if !ask(&work, &mut connection, path, &request) {
                break;
            }
        }
        work.outcome("made", "the others were")
    })
    .await
}

/// Removes files and directories.
pub(crate) async fn rm(global: &Global, paths: &UserPaths, args: &RmArgs) -> CliResult {
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), &args.paths)?;
    FilesSession::with(global, paths, &meant, FilesPurpose::Change, |session| {
        let mut wanted = meant.paths.clone();
        if args.force {
            let mut connection = session.connect()?;
            let mut there = Vec::new();
            for path in wanted {
                let found = expand(&mut connection, &path).map_err(|error| session.lost(&error))?;
                for path in found.unwrap_or_default() {
                    let seen =
                        connection.stat(&path, false).map_err(|error| session.lost(&error))?;
                    there.extend(seen.ok().map(|_| path));
                }
            }
            wanted = there;
        }
        let mut connection = session.connect()?;
        let found = find_all(session, &mut connection, &wanted)?;
        one_by_one(session, connection, found, "removed", |path| FilesRequest::Remove {
            path: path.to_owned(),
            recursive: args.recursive,
        })
    })
    .await
}

/// The paths that some paths stand for, and those that stand for nothing.
type FoundPaths = (Vec<PathBuf>, Vec<(PathBuf, Failure)>);

/// Matches wildcards in the vault.
fn find_all(
    session: &FilesSession,
    connection: &mut FilesConnection,
    paths: &[PathBuf],
) -> CliResult<FoundPaths> {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        match expand(connection, path).map_err(|error| session.lost(&error))? {
            Ok(found) => all.extend(found),
            Err(failure) => failed.push((path.clone(), failure)),
        }
    }
    Ok((all, failed))
}

/// Sends the same request for each path.
fn one_by_one(
    session: &FilesSession,
    mut connection: FilesConnection,
    (all, failed): FoundPaths,
    verb: &str,
    request: impl Fn(&Path) -> FilesRequest,
) -> CliResult {
    let work = Work::new(session, verb, all.len() + failed.len() <= 1);
    for (path, failure) in failed {
        work.failed(&path.display().to_string(), failure);
    }
    for path in &all {
        if work.is_over() || !ask(&work, &mut connection, path, &request(path)) {
            break;
        }
    }
    work.outcome(verb, "the others were")
}

/// Sends a request and shows its progress; `false`: the connection is lost.
fn ask(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    path: &Path,
    request: &FilesRequest,
) -> bool {
    let shown = path.display().to_string();
    let before = work.tally.done.load(Relaxed);
    let asked = connection.ask(request);
    let mut next = || {
        asked.as_ref().map_err(|error| std::io::Error::from(error.kind()))?;
        connection.next()
    };
    loop {
        match next() {
            Ok(FromDaemon::Reply(FilesReply::SoFar { things, bytes })) => {
                work.tally.done.store(before + things, Relaxed);
                work.tally.bytes.store(bytes, Relaxed);
                work.show();
            }
            Ok(FromDaemon::Reply(FilesReply::Problem { path, failure })) => {
                work.failed_inside(&path.display().to_string(), failure);
            }
            Ok(FromDaemon::Reply(FilesReply::Done { things })) => {
                work.tally.done.store(before + things, Relaxed);
                return true;
            }
            Ok(FromDaemon::Reply(FilesReply::Failed { failure })) => {
                work.failed(&shown, failure);
                return true;
            }
            Ok(_) => {
                work.ends(work.session.lost(&std::io::Error::other("a reply to something else")));
                return false;
            }
            Err(error) => {
                work.ends(work.session.lost(&error));
                return false;
            }
        }
    }
}
