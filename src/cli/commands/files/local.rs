//! The local side of `get`: a file appears under its name only once it is complete.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, TryLockError};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::interrupt::HalfFile;
use crate::cli::files::wire::FileEntry;
use crate::os;

/// A file on this machine that is being written under a temporary name beside its final one. If this is dropped before
/// `keep`, nothing of the file is left.
pub(super) struct LocalFile {
    file: File,
    path: PathBuf,
    to: PathBuf,
    _half: HalfFile,
}

impl LocalFile {
    /// A temporary file that a killed command left under that name is overwritten.
    pub(super) fn create(to: &Path) -> io::Result<Self> {
        let path = aside(to, "");
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        loop {
            let file = options.open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::other("another command brings this file just now"));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The other command may have renamed it to its final name in between.
            let is_it = fs::symlink_metadata(&path)
                .is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino()));
            if is_it {
                file.set_len(0)?;
                let (to, half) = (to.to_owned(), HalfFile::new(&path));
                return Ok(Self { file, path, to, _half: half });
            }
        }
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Starts again from an empty file.
    pub(super) fn empty(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Sets the file's length and attributes, and gives it its final name.
    pub(super) fn keep(
        self,
        entry: &FileEntry,
        attributes: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        self.file.set_len(entry.size)?;
        dress(&self.path, entry, attributes)?;
        fs::rename(&self.path, &self.to)
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        // Once the file has its final name, nothing has the temporary one; or another command does, which holds its own
        // lock.
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|there| self.file.metadata().is_ok_and(|own| own.ino() == there.ino()));
        if is_ours {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Sets owner (as root), extended attributes, permissions and time, in an order in which none undoes another.
pub(super) fn dress(
    path: &Path,
    entry: &FileEntry,
    attributes: &[(Vec<u8>, Vec<u8>)],
) -> io::Result<()> {
    let is_link = entry.kind() == libc::S_IFLNK;
    if os::effective_ids().0 == 0 {
        std::os::unix::fs::lchown(path, Some(entry.uid), Some(entry.gid))?;
    }
    if !is_link {
        fs::set_permissions(path, fs::Permissions::from_mode(entry.mode & 0o7777))?;
    }
    for (name, value) in attributes {
        // Not every file system stores all of them, and not every user may set them: failures are ignored, as `cp -a`
        // does.
        os::put_xattr(path, name, value)?;
    }
    os::set_mtime(path, entry.mtime)
}

/// Whether this machine has the file already, judged by size and time.
pub(super) fn is_there(path: &Path, entry: &FileEntry) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| {
        let time = (there.mtime(), u32::try_from(there.mtime_nsec()).unwrap_or(0));
        there.is_file() && there.len() == entry.size && is_same_time(time, entry.mtime)
    })
}

/// Whether two times are equal; one side may have whole seconds only.
pub(super) fn is_same_time(a: (i64, u32), b: (i64, u32)) -> bool {
    a.0 == b.0 && (a.1 == b.1 || a.1 == 0 || b.1 == 0)
}

/// Where something is made before it gets its name: always at the same place, so that what a killed command left is replaced.
pub(super) fn aside(to: &Path, kind: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    to.file_name().unwrap_or_default().as_bytes().hash(&mut hasher);
    to.with_file_name(format!(".s3vault-get-{:016x}{kind}", hasher.finish()))
}

/// Makes a symlink, fifo or device as in the vault. Whatever is there and not a directory is replaced. `false`: it is a
/// socket, which only its own program can make.
pub(super) fn make_other(path: &Path, entry: &FileEntry) -> io::Result<bool> {
    let half = aside(path, "-other");
    drop(fs::remove_file(&half)); // a killed command may have left it
    match entry.kind() {
        libc::S_IFLNK => {
            let target = entry.target.clone().unwrap_or_default();
            std::os::unix::fs::symlink(target, &half)?;
        }
        libc::S_IFSOCK => return Ok(false),
        _ => os::make_node(&half, entry.mode, entry.rdev)?,
    }
    let made = dress(&half, entry, &[]).and_then(|()| fs::rename(&half, path));
    made.inspect_err(|_| drop(fs::remove_file(&half))).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(size: u64) -> FileEntry {
        FileEntry {
            name: "f".into(),
            mode: libc::S_IFREG | 0o640,
            nlink: 1,
            uid: os::effective_ids().0,
            gid: os::effective_ids().1,
            rdev: 0,
            size,
            blocks: 0,
            ino: 7,
            mtime: (1000, 5),
            target: None,
        }
    }

    #[test]
    fn what_a_killed_command_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        fs::write(aside(&path, "-other"), "left").unwrap();
        let link = FileEntry { mode: libc::S_IFLNK | 0o777, target: Some("to".into()), ..entry(2) };
        assert!(make_other(&path, &link).unwrap());
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("to"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_there_when_it_is_whole_and_nothing_is_left_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n".repeat(255));
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let file = LocalFile::create(&path).unwrap();
        file.write(3, b"abc").unwrap();
        assert!(LocalFile::create(&path).is_err() && !path.exists());
        drop(file);
        assert_eq!(names(), 0);
        // A killed command left something longer.
        let file = LocalFile::create(&path).unwrap();
        file.write(0, &[1; 100]).unwrap();
        let left = file.path.clone();
        let (temporary, content) = (left.clone(), fs::read(&left).unwrap());
        drop(file);
        fs::write(&temporary, content).unwrap();
        let file = LocalFile::create(&path).unwrap();
        file.write(3, b"abc").unwrap();
        file.keep(&entry(10), &[]).unwrap();
        assert_eq!((names(), &fs::read(&path).unwrap()[..]), (1, &b"\0\0\0abc\0\0\0\0"[..]));
        assert!(is_there(&path, &entry(10)) && !is_there(&path, &entry(11)));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    }

    #[test]
    fn other_things_replace_what_is_there_but_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "old").unwrap();
        let mode = libc::S_IFLNK | 0o777;
        let link = FileEntry { mode, target: Some("to".into()), ..entry(2) };
        assert!(make_other(&path, &link).unwrap());
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("to"));
        assert!(!make_other(&path, &FileEntry { mode: libc::S_IFSOCK, ..entry(0) }).unwrap());
        let inside = dir.path().join("d");
        fs::create_dir_all(inside.join("e")).unwrap();
        assert!(make_other(&inside, &link).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
