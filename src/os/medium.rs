//! Every change that this program makes to its durable local state passes through here: `Directory` and its files,
//! small files that are replaced, directories, links. In the program nothing stands between a change and the disk. A
//! test can put a disk there that is full, fails, tears a write, or loses its power (`os/testing/simulated_disk.rs`).
//!
//! What can be deleted at no loss but time (index, cache) does not pass through here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[cfg(test)]
use super::testing::SimulatedDisk;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "a simulated disk alone looks at them"))]
pub(crate) enum DiskChange<'a> {
    /// Creates a file.
    Create(&'a Path),
    /// Sets a file's length.
    SetLength,
    /// Reserves room beyond what is written.
    TakeRoom,
    /// fsync of a file.
    Sync(&'a File),
    /// fsync of a directory.
    SyncDir(&'a Path),
    /// Makes a directory.
    MakeDir,
    /// Renames the first path to the second.
    Rename(&'a Path, &'a Path),
    /// Gives a file another name.
    Link,
    /// Removes a name.
    Remove(&'a Path),
}

/// The medium of a path or an open file.
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
