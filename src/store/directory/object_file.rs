//! The file of one object: written in a temporary place, synced, and named in one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::super::object::{Body, OBJECT_MAX, Put};
use crate::os;

/// The directory of files that do not have their names yet; no object's name begins like this.
pub(super) const TEMPORARY: &str = ".tmp";

/// A temporary file older than this is no longer being written.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Tells this process's temporary files apart.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Whether there is no such file.
pub(super) fn is_absent(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes a directory and the missing ones above it, and syncs each entry. Never makes `top` itself, whose disk
/// may be away.
pub(super) fn make_directories(path: &Path, top: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if path.is_dir() {
                Ok(())
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| *parent != top).ok_or(error)?;
            make_directories(parent, top)?;
            make_directories(path, top)
        }
        Err(error) => Err(error),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes what crashed writers left.
pub(super) fn sweep(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|found| found.modified()).map(|time| time.elapsed());
        if matches!(age, Ok(Ok(age)) if age > STALE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether the name is taken.
pub(super) fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Writes and syncs a temporary file, gives it its name in one step, and syncs the directory.
pub(super) fn write(root: &Path, path: &Path, body: &Body, condition: Put) -> io::Result<()> {
    // A cheap check that saves the writing; the link decides.
    if condition == Put::IfAbsent && is_taken(path) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut file = ObjectFile::begin(root)?;
    file.file().write_all(body.bytes())?;
    file.finish(root, path, body.length(), condition)
}

/// A file that does not have an object's name yet. It is removed when this is dropped.
pub(super) struct ObjectFile {
    file: File,
    temporary: PathBuf,
}

impl ObjectFile {
    pub(super) fn begin(root: &Path) -> io::Result<Self> {
        let count = COUNT.fetch_add(1, Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unique = format!("{}-{:x}-{count}", std::process::id(), now.as_nanos());
        let temporary = root.join(TEMPORARY).join(unique);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Self { file, temporary })
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Names the file, once all `length` bytes are written.
    pub(super) fn finish(
        &mut self,
        root: &Path,
        path: &Path,
        length: u64,
        condition: Put,
    ) -> io::Result<()> {
        let parent = path.parent().unwrap_or(root);
        self.file.sync_all()?;
        // The answer to a put promises that all bytes are there (C5).
        if self.file.metadata()?.size() != length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it was not kept whole"));
        }
        if !parent.is_dir() {
            make_directories(parent, root)?;
        }
        match condition {
            Put::IfAbsent => name_if_absent(&self.temporary, path)?,
            Put::Always => fs::rename(&self.temporary, path)?,
        }
        let _ = fs::remove_file(&self.temporary); // after a rename it is gone already
        sync_directory(parent)
    }
}

impl Drop for ObjectFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Gives a file its name unless the name is taken: by link(2), or by `RENAME_NOREPLACE` if the file system has
/// no hard links.
fn name_if_absent(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK)
            ) => {}
        done => return done,
    }
    os::rename_if_absent(temporary, path)
}

/// The file's bytes, or those in the range, and its length.
#[allow(clippy::cast_possible_truncation, reason = "checked against OBJECT_MAX")]
pub(super) fn read(path: &Path, range: Option<Range<u64>>) -> io::Result<(Bytes, u64)> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let length = found.size();
    let range = range.unwrap_or(0..length);
    let end = range.end.min(length);
    let count = end.saturating_sub(range.start);
    if count > OBJECT_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than any object"));
    }
    let mut bytes = vec![0; count as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok((bytes.into(), length))
}
