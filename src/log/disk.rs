//! The two calls that make local files durable, behind a trait so that a test can lose
//! what was not made durable, or fail them.

use std::fs::File;
use std::io;
use std::path::Path;

/// What the operating system promises about local files.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// fdatasync(2): the file's content and length are durable.
    fn sync_file(&self, file: &File, path: &Path) -> io::Result<()>;
    /// fsync(2) of a directory: the names in it are durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn sync_file(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
