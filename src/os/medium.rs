//! Every change that our rooms make to the files of this machine comes through here: `Directory` and its files, small
//! files that are replaced, directories, links. In a program nothing stands between the change and the disk. In a test
//! something may: a disk that is full, fails, tears a write, or loses its power (`os/testing/simulated_disk.rs`).
//!
//! What can be deleted at no loss but time (index, cache) does not come through here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[cfg(test)]
use super::testing::SimulatedDisk;

/// A change, before it is made.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "a simulated disk alone looks at them"))]
pub(crate) enum DiskChange<'a> {
    /// A new file.
    Create(&'a Path),
    /// A file's length.
    SetLength,
    /// Room beyond what is written.
    TakeRoom,
    /// fsync of a file.
    Sync(&'a File),
    /// fsync of a directory.
    SyncDir(&'a Path),
    /// A new directory.
    MakeDir,
    /// Another name for what has the first.
    Rename(&'a Path, &'a Path),
    /// One name more for a file.
    Link,
    /// A name goes.
    Remove(&'a Path),
}

/// What a path or an open file lies on.
#[derive(Clone, Debug)]
pub(super) struct Medium {
    #[cfg(test)]
    simulated: Option<std::sync::Arc<SimulatedDisk>>,
}

#[cfg(not(test))]
#[allow(clippy::unused_self, reason = "there is one medium, and it does as it is told")]
impl Medium {
    pub(super) fn of(_: &Path) -> Self {
        Self {}
    }

    pub(super) fn change<T>(
        &self,
        _: DiskChange<'_>,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        make()
    }

    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }
}

#[cfg(test)]
impl Medium {
    pub(super) fn of(path: &Path) -> Self {
        Self { simulated: SimulatedDisk::under(path) }
    }

    pub(super) fn change<T>(
        &self,
        change: DiskChange<'_>,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(disk) = &self.simulated else { return make() };
        disk.before(change)?;
        let made = make()?;
        disk.after(change);
        Ok(made)
    }

    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(disk) = &self.simulated else { return file.write_all_at(bytes, offset) };
        let (part, failure) = disk.before_write(bytes);
        file.write_all_at(&bytes[..part], offset)?;
        failure.map_or(Ok(()), Err)
    }
}
