//! `s3vault put`.

mod after;
mod content;
mod dress;
mod look;
mod other;
mod stdin;

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use self::after::finish;
use self::content::one_file;
use self::look::{AfterFiles, PutJob, look};
use self::stdin::stdin;
use super::session::{FilesPurpose, FilesSession};
use super::which::{Meant, differ_by_name, last_name};
use super::work::Work;
use crate::cli::args::Global;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::wire::{FileEntry, FilesRequest};
use crate::cli::files_args::{PutArgs, last_apart};
use crate::cli::paths::UserPaths;

/// Puts files and directories of this machine into a vault.
pub(crate) async fn put(global: &Global, paths: &UserPaths, args: &PutArgs) -> CliResult {
    let (sources, to) = last_apart(&args.paths);
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), [&to])?;
    let Some(to) = meant.paths.first().cloned() else { return Ok(()) };
    if sources.iter().any(|source| source == "-") && sources.len() > 1 {
        let text = "- is standard input, which becomes one file: name nothing else beside it; nothing was done";
        return Err(Failure::new(Exit::Usage, text));
    }
    FilesSession::with(global, paths, &meant, FilesPurpose::Put, |session| match sources {
        [only] if only == "-" => stdin(session, &to),
        sources => send(session, sources, &to, !args.recursive),
    })
    .await
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
    // Several sources go into a directory, which is made if necessary. So does a source that is put to `x/`.
    let into = is_directory || sources.len() > 1 || ends_in_slash;
    differ_by_name(sources)?;
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
