//! Small state files: replaced whole, read whole, locked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::medium::{DiskChange, Medium};
use super::sync_dir;

/// Replaces a file that only this user can read (0600). Even after a power cut it is the old one or the new one, whole;
/// once this returns, the new one. On failure the old one is unchanged.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        create_durably(&temporary, content)?;
        rename(&temporary, path)?;
        sync_dir(dir)
    };
    // If the temporary file cannot be removed either, the next call overwrites it.
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Makes a file that only this user can read (0600), or replaces its content in place, and fsyncs it. Its name is
/// durable after [`sync_dir`].
pub fn create_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let medium = Medium::of(path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = medium.change(DiskChange::Create(path), || options.open(path))?;
    medium.write(&file, content, 0)?;
    medium.change(DiskChange::Sync(&file), || file.sync_all())
}

/// rename(2): durable after [`sync_dir`] of both directories.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Medium::of(from).change(DiskChange::Rename(from, to), || fs::rename(from, to))
}

/// link(2): gives a file another name, durable after [`sync_dir`].
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    Medium::of(to).change(DiskChange::Link, || fs::hard_link(from, to))
}

/// unlink(2): durable after [`sync_dir`].
pub fn remove(path: &Path) -> io::Result<()> {
    Medium::of(path).change(DiskChange::Remove(path), || fs::remove_file(path))
}

/// fsync(2) of a file, or of a directory and everything below it.
pub fn sync_tree(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        let file = File::open(path)?;
        return Medium::of(path).change(DiskChange::Sync(&file), || file.sync_all());
    }
    for entry in fs::read_dir(path)? {
        sync_tree(&entry?.path())?;
    }
    sync_dir(path)
}

/// Renames a file unless the new name is taken (`RENAME_NOREPLACE`).
///
/// # Errors
/// `AlreadyExists`; `InvalidInput` if the file system does not support this.
pub fn rename_if_absent(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// The content of a small file; `None` if there is none.
///
/// # Errors
/// `InvalidData` if it has more than `max` bytes: then it is not one of ours.
pub fn read_small(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        let text = format!("it has more than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some(content))
}

/// Holds a lock on a file against all others that lock it, whatever their namespaces (flock(2)), until it is dropped or
/// this process ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Writes into the file, for those who find it locked. Not durable: it is of use only while the lock is held.
    pub fn note(&self, text: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        (&self.file).write_all(text)
    }
}

/// Locks an existing file or directory; waits for its holder.
pub fn lock(path: &Path) -> io::Result<FileLock> {
    let file = File::open(path)?;
    file.lock()?;
    Ok(FileLock { file })
}

/// Locks a file, which is made if it does not exist; `None` if another holds it. Never waits.
pub fn try_lock(path: &Path) -> io::Result<Option<FileLock>> {
    let mut options = OpenOptions::new();
    let file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(FileLock { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(read_small(&path, 3).unwrap(), None);
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(read_small(&path, 3).unwrap().unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_small(&path, 2).unwrap_err().kind(), io::ErrorKind::InvalidData);
        // A directory of that name cannot be replaced; the temporary file is removed.
        fs::create_dir(dir.path().join("directory")).unwrap();
        replace(&dir.path().join("directory"), b"x").unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn one_holds_a_lock_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = try_lock(&path).unwrap().expect("nobody holds it");
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }
}
