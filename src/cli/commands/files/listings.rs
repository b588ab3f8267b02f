//! `s3vault ls` and `find`.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::expand::expand;
use super::session::{FilesPurpose, FilesSession};
use super::which::Meant;
use super::work::Work;
use crate::cli::args::Global;
use crate::cli::exit::CliResult;
use crate::cli::files::wire::FileEntry;
use crate::cli::files::{FilesConnection, matches, mode_text, quoted};
use crate::cli::files_args::{FindArgs, LsArgs};
use crate::cli::messages;
use crate::cli::output;
use crate::cli::paths::UserPaths;
use crate::types::Timestamp;

/// Standard output for names: raw, or quoted at a terminal so that control characters have no effect.
pub(super) struct NamesOut<'a> {
    session: &'a FilesSession,
    meant: &'a Meant,
    out: BufWriter<io::Stdout>,
    is_terminal: bool,
    /// The first write error.
    error: Option<io::Error>,
}

impl<'a> NamesOut<'a> {
    pub(super) fn new(session: &'a FilesSession, meant: &'a Meant) -> Self {
        let out = io::stdout();
        let (is_terminal, out) = (out.is_terminal(), BufWriter::new(out));
        Self { session, meant, is_terminal, out, error: None }
    }

    /// Writes a path, as the commands take it.
    pub(super) fn path(&mut self, path: &Path) {
        let shown = self.meant.shown(path);
        self.name(&shown);
    }

    /// Writes a name.
    pub(super) fn name(&mut self, name: &[u8]) {
        if self.is_terminal {
            self.bytes(quoted(name).as_bytes());
        } else {
            self.bytes(name);
        }
    }

    /// Writes anything else.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.session.begins();
        if self.error.is_none() {
            self.error = self.out.write_all(bytes).err();
        }
    }

    /// Whether writing failed, so that nobody reads any more.
    pub(super) fn is_over(&self) -> bool {
        self.error.is_some()
    }

    /// A reader that has seen enough is not a failure.
    pub(super) fn finish(mut self) -> CliResult {
        match self.error.take().or_else(|| self.out.flush().err()) {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(output::failure(&error))
            }
            _ => Ok(()),
        }
    }
}

/// Lists files.
pub(crate) async fn ls(global: &Global, paths: &UserPaths, args: &LsArgs) -> CliResult {
    let mut meant = Meant::of(paths, args.bucket.bucket.as_deref(), &args.paths)?;
    if meant.paths.is_empty() {
        meant.paths.push("/".into());
    }
    FilesSession::with(global, paths, &meant, FilesPurpose::Print, |session| {
        list_all(session, &meant, args)
    })
    .await
}

fn list_all(session: &FilesSession, meant: &Meant, args: &LsArgs) -> CliResult {
    let paths = &meant.paths[..];
    let mut connection = session.connect()?;
    let work = Work::new(session, "ls", paths.len() == 1);
    let mut out = NamesOut::new(session, meant);
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for path in paths {
        let shown = path.display().to_string();
        let Some(all) = work.heard(&shown, expand(&mut connection, path)) else { break };
        for path in all.unwrap_or_default() {
            let shown = path.display().to_string();
            // A symlink to a directory is followed, except with -l.
            let seen = connection.stat(&path, !args.long);
            let seen = match (seen, args.long) {
                (Ok(Err(_)), false) => connection.stat(&path, false),
                (seen, _) => seen,
            };
            match work.heard(&shown, seen) {
                Some(Ok(entry)) if entry.is_directory() => directories.push(path),
                Some(Ok(entry)) => files.push((path, entry)),
                Some(Err(_)) => {}
                None => break,
            }
        }
    }
    let names: Vec<_> = files.iter().map(|(path, entry)| (meant.shown(path), entry)).collect();
    print(&mut out, &names, args.long);
    let has_heads = args.recursive || files.len() + directories.len() > 1;
    let mut is_first = files.is_empty();
    directories.reverse();
    while let Some(directory) = directories.pop() {
        let listed = work.heard(&directory.display().to_string(), connection.list(&directory));
        let Some(listed) = listed else { break };
        let Ok(mut entries) = listed else { continue };
        entries.retain(|entry| args.all || !entry.name.as_os_str().as_bytes().starts_with(b"."));
        if has_heads {
            out.bytes(if is_first { b"" } else { b"\n" });
            out.path(&directory);
            out.bytes(b":\n");
        }
        is_first = false;
        let names: Vec<_> =
            entries.iter().map(|entry| (entry.name.as_os_str().as_bytes().into(), entry)).collect();
        print(&mut out, &names, args.long);
        if args.recursive {
            let below = entries.iter().rev().filter(|entry| entry.is_directory());
            directories.extend(below.map(|entry| directory.join(&entry.name)));
        }
        if out.is_over() {
            break;
        }
    }
    let written = out.finish();
    work.outcome("listed", "the others were").and(written)
}

fn print(out: &mut NamesOut<'_>, names: &[(Cow<'_, [u8]>, &FileEntry)], long: bool) {
    let width = |number: fn(&FileEntry) -> u64| {
        names.iter().map(|(_, entry)| number(entry).to_string().len()).max().unwrap_or(0)
    };
    let links = width(|entry| entry.nlink.into());
    let users = width(|entry| entry.uid.into());
    let groups = width(|entry| entry.gid.into());
    let sizes = width(|entry| entry.size);
    for (name, entry) in names {
        if long {
            let (seconds, nanos) = entry.mtime;
            let line = format!(
                "{} {:>links$} {:>users$} {:>groups$} {:>sizes$} {} ",
                mode_text(entry.mode),
                entry.nlink,
                entry.uid,
                entry.gid,
                entry.size,
                messages::when(Timestamp { seconds, nanos }),
            );
            out.bytes(line.as_bytes());
        }
        out.name(name);
        if let (true, Some(target)) = (long, &entry.target) {
            out.bytes(b" -> ");
            out.name(target.as_os_str().as_bytes());
        }
        out.bytes(b"\n");
    }
}

/// Looks for files.
pub(crate) async fn find(global: &Global, paths: &UserPaths, args: &FindArgs) -> CliResult {
    let mut meant = Meant::of(paths, args.bucket.bucket.as_deref(), args.path.as_ref())?;
    if meant.paths.is_empty() {
        meant.paths.push("/".into());
    }
    FilesSession::with(global, paths, &meant, FilesPurpose::Print, |session| {
        find_all(session, &meant, args)
    })
    .await
}

fn find_all(session: &FilesSession, meant: &Meant, args: &FindArgs) -> CliResult {
    let mut connection = session.connect()?;
    let work = Work::new(session, "find", false);
    let mut out = NamesOut::new(session, meant);
    for path in &meant.paths {
        let Some(all) = work.heard(&path.display().to_string(), expand(&mut connection, path))
        else {
            break;
        };
        for path in all.unwrap_or_default() {
            let mut found = |path: &Path, entry: &FileEntry| {
                if is_wanted(entry, args) {
                    if args.print0 {
                        out.bytes(&meant.shown(path));
                        out.bytes(b"\0");
                    } else {
                        out.path(path);
                        out.bytes(b"\n");
                    }
                }
                !out.is_over()
            };
            if !walk(&work, &mut connection, &path, &mut found) {
                break;
            }
        }
    }
    let written = out.finish();
    work.outcome("looked at", "the others were").and(written)
}

fn is_wanted(entry: &FileEntry, args: &FindArgs) -> bool {
    let name = entry.name.as_os_str().as_bytes();
    let kind = match args.kind.as_deref() {
        Some("f") => entry.is_file(),
        Some("d") => entry.is_directory(),
        Some("l") => entry.target.is_some(),
        _ => true,
    };
    let is_new = args.newer_than.is_none_or(|time| {
        let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
            Err(_) => (i64::MIN, 0),
        };
        entry.mtime > (seconds, nanos)
    });
    // Like find(1): the wildcards of -name match a leading dot.
    let is_named = args.name.as_ref().is_none_or(|pattern| {
        let pattern = pattern.as_bytes();
        matches(pattern, name)
            || name.starts_with(b".") && matches(&[b".", pattern].concat(), &[b".", name].concat())
    });
    kind && is_new && is_named
}

/// Visits a path and everything below it, parents first; `found` says whether to go on. `false`: nothing more can be
/// done.
pub(super) fn walk(
    work: &Work<'_>,
    connection: &mut FilesConnection,
    path: &Path,
    found: &mut dyn FnMut(&Path, &FileEntry) -> bool,
) -> bool {
    let Some(seen) = work.heard(&path.display().to_string(), connection.stat(path, false)) else {
        return false;
    };
    let Ok(seen) = seen else { return true };
    let mut left = vec![(path.to_owned(), seen)];
    while let Some((path, entry)) = left.pop() {
        if !found(&path, &entry) {
            return false;
        }
        if !entry.is_directory() {
            continue;
        }
        let Some(listed) = work.heard(&path.display().to_string(), connection.list(&path)) else {
            return false;
        };
        let entries = listed.unwrap_or_default().into_iter().rev();
        left.extend(entries.map(|entry| (path.join(&entry.name), entry)));
    }
    true
}
