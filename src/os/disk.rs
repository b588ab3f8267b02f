//! The files of one directory, behind a trait, so that tests can substitute a disk that fails or loses its power.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::medium::{DiskChange, Medium};

/// The files of one flat directory. Names are file names, not paths. What `sync` and `sync_dir` acknowledge survives
/// power loss; nothing else is assumed (`PROTOCOL.md`, "The medium").
pub trait Disk: Debug + Send + Sync {
    /// The names of the files, with their lengths in bytes.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Creates a file (0600); an error if it exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file to read and write.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames atomically within the directory.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// fsync of the directory: makes earlier creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that an unprivileged writer can still use on this file system.
    fn free(&self) -> io::Result<u64>;
    /// The path of a file, for a caller that takes the file over.
    fn path(&self, name: &str) -> PathBuf;
}

/// One open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Writes all of `bytes` at this offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills the buffer from this offset; an error if the file is too short.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Bytes that the disk holds for the file, including those beyond its end.
    fn allocated(&self) -> io::Result<u64>;
    /// Reserves room for `length` bytes from byte `from` on, also beyond the file's end; its length stays. Returns
    /// whether this disk supports that (see [`super::take_room`]).
    fn take_room(&self, from: u64, length: u64) -> io::Result<bool>;
    /// Truncates the file, or extends it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// fdatasync: makes content and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
    medium: Medium,
}

/// A file of such a directory.
#[derive(Debug)]
struct DirectoryFile {
    file: File,
    medium: Medium,
}

/// Opens a file only for reading; its directory need not be opened.
pub fn open_to_read(path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    Ok(Arc::new(DirectoryFile { file: File::open(path)?, medium: Medium::of(path) }))
}

impl Directory {
    /// Opens the directory, or makes it with mode 0700 (its parents too), durably.
    pub fn open(path: &Path) -> io::Result<Self> {
        super::make_private(path)?;
        Ok(Self { path: path.to_owned(), handle: File::open(path)?, medium: Medium::of(path) })
    }

    fn opened(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(DirectoryFile { file, medium: self.medium.clone() })
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for entry in self.path.read_dir()? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                found.push((name, metadata.len()));
            }
        }
        Ok(found)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let path = self.path.join(name);
        let file = self.medium.change(DiskChange::Create(&path), || options.open(&path))?;
        Ok(self.opened(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.opened(OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        super::rename(&self.path.join(from), &self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        super::remove(&self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.medium.change(DiskChange::SyncDir(&self.path), || self.handle.sync_all())
    }

    fn free(&self) -> io::Result<u64> {
        super::free_bytes(&self.path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl DiskFile for DirectoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.medium.write(&self.file, bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn take_room(&self, from: u64, length: u64) -> io::Result<bool> {
        self.medium.change(DiskChange::TakeRoom, || super::take_room(&self.file, from, length))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.medium.change(DiskChange::SetLength, || self.file.set_len(length))
    }

    fn sync(&self) -> io::Result<()> {
        self.medium.change(DiskChange::Sync(&self.file), || self.file.sync_data())
    }
}
