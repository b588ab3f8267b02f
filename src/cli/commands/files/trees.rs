//! `s3vault tree` and `du`.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;

use super::listings::NamesOut;
use super::session::{FilesPurpose, FilesSession};
use super::which::Meant;
use super::work::Work;
use crate::cli::args::Global;
use crate::cli::exit::CliResult;
use crate::cli::files::FilesConnection;
use crate::cli::files::wire::FileEntry;
use crate::cli::files_args::{DuArgs, TreeArgs};
use crate::cli::paths::UserPaths;

/// The only path of the command; the root by default.
fn only(meant: &Meant) -> PathBuf {
    meant.paths.first().cloned().unwrap_or_else(|| "/".into())
}

/// Shows a directory as a tree.
pub(crate) async fn tree(global: &Global, paths: &UserPaths, args: &TreeArgs) -> CliResult {
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), args.path.as_ref())?;
    FilesSession::with(global, paths, &meant, FilesPurpose::Print, |session| {
        draw(session, &meant, args.all)
    })
    .await
}

/// What is still to be drawn of a directory; the last entry first.
struct TreeLevel {
    path: PathBuf,
    entries: Vec<FileEntry>,
}

fn draw(session: &FilesSession, meant: &Meant, all: bool) -> CliResult {
    let path = &only(meant);
    let mut connection = session.connect()?;
    let work = Work::new(session, "tree", true);
    let mut out = NamesOut::new(session, meant);
    let level = |connection: &mut FilesConnection, path: PathBuf| {
        let listed = work.heard(&path.display().to_string(), connection.list(&path))?;
        let mut entries = listed.ok()?;
        entries.retain(|entry| all || !entry.name.as_os_str().as_bytes().starts_with(b"."));
        entries.reverse();
        Some(TreeLevel { path, entries })
    };
    let (mut directories, mut files) = (0_u64, 0_u64);
    let mut levels: Vec<_> = level(&mut connection, path.to_owned()).into_iter().collect();
    if !levels.is_empty() {
        out.path(path);
        out.bytes(b"\n");
    }
    let is_drawn = !levels.is_empty();
    while let Some(here) = levels.last_mut() {
        let Some(entry) = here.entries.pop() else {
            levels.pop();
            continue;
        };
        let path = here.path.join(&entry.name);
        let (last, above) = levels
            .split_last()
            .map_or((true, &[][..]), |(here, above)| (here.entries.is_empty(), above));
        for level in above {
            out.bytes(if level.entries.is_empty() { "    " } else { "│   " }.as_bytes());
        }
        out.bytes(if last { "└── " } else { "├── " }.as_bytes());
        out.name(entry.name.as_os_str().as_bytes());
        if let Some(target) = &entry.target {
            out.bytes(b" -> ");
            out.name(target.as_os_str().as_bytes());
        }
        out.bytes(b"\n");
        if entry.is_directory() {
            directories += 1;
            levels.extend(level(&mut connection, path));
        } else {
            files += 1;
        }
        if out.is_over() || work.is_over() {
            break;
        }
    }
    if is_drawn {
        out.bytes(format!("\n{directories} directories, {files} files\n").as_bytes());
    }
    let written = out.finish();
    work.outcome("listed", "the others were").and(written)
}

/// Shows how much data files and directories hold.
pub(crate) async fn du(global: &Global, paths: &UserPaths, args: &DuArgs) -> CliResult {
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), args.path.as_ref())?;
    FilesSession::with(global, paths, &meant, FilesPurpose::Print, |session| {
        sum_up(session, &meant, args)
    })
    .await
}

/// A directory whose sum is not complete yet.
struct Summed {
    path: PathBuf,
    entries: Vec<FileEntry>,
    bytes: u64,
}

fn sum_up(session: &FilesSession, meant: &Meant, args: &DuArgs) -> CliResult {
    let path = &only(meant);
    let mut connection = session.connect()?;
    let work = Work::new(session, "du", true);
    let mut out = NamesOut::new(session, meant);
    let tell = |out: &mut NamesOut<'_>, bytes: u64, path: &Path| {
        let size = if args.bytes { bytes.to_string() } else { ByteSize::b(bytes).to_string() };
        out.bytes(format!("{size}\t").as_bytes());
        out.path(path);
        out.bytes(b"\n");
    };
    // A file with several names counts once.
    let mut seen: HashSet<u64> = HashSet::new();
    let mut size = |entry: &FileEntry| {
        let counts = entry.is_file() && (entry.nlink < 2 || seen.insert(entry.ino));
        if counts { (entry.blocks * 512).min(entry.size) } else { 0 }
    };
    let found = work.heard(&path.display().to_string(), connection.stat(path, true));
    let Some(Ok(entry)) = found else { return work.outcome("looked at", "") };
    if !entry.is_directory() {
        tell(&mut out, size(&entry), path);
        return out.finish();
    }
    let level = |connection: &mut FilesConnection, path: PathBuf| {
        let listed = work.heard(&path.display().to_string(), connection.list(&path))?;
        Some(Summed { path, entries: listed.ok()?, bytes: 0 })
    };
    let mut levels: Vec<_> = level(&mut connection, path.to_owned()).into_iter().collect();
    while let Some(here) = levels.last_mut() {
        if let Some(entry) = here.entries.pop() {
            here.bytes += size(&entry);
            if entry.is_directory() {
                let path = here.path.join(&entry.name);
                levels.extend(level(&mut connection, path));
            }
            if work.is_over() || out.is_over() {
                break;
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        if !args.summarize || levels.is_empty() {
            tell(&mut out, done.bytes, &done.path);
        }
        if let Some(above) = levels.last_mut() {
            above.bytes += done.bytes;
        }
    }
    let written = out.finish();
    work.outcome("looked at", "the others were").and(written)
}
