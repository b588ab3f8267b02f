//! A disk so small that a test can fill it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file system of its own, unmounted when dropped. Mounting needs root.
pub(crate) struct SmallDisk {
    place: tempfile::TempDir,
}

impl SmallDisk {
    /// A disk of this many bytes, in memory.
    pub(crate) fn of(bytes: u64) -> Self {
        let disk = Self { place: tempfile::tempdir().unwrap() };
        let options = std::ffi::CString::new(format!("size={bytes},nr_inodes=200,mode=0700"));
        let (kind, flags) = (c"tmpfs", rustix::mount::MountFlags::empty());
        rustix::mount::mount(kind, disk.path(), kind, flags, options.unwrap().as_c_str()).unwrap();
        disk
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("others")
    }

    fn names(&self) -> PathBuf {
        self.path().join("names")
    }

    /// Others take all of the free space.
    pub(crate) fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// Others also take every free name.
    pub(crate) fn fill_names(&self) {
        fs::create_dir(self.names()).unwrap();
        let mut free = 0..;
        while free.next().is_some_and(|n| File::create(self.names().join(n.to_string())).is_ok()) {}
    }

    /// The others give everything back.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
        drop(fs::remove_dir_all(self.names()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_small_disk_is_filled_and_emptied() {
    let disk = SmallDisk::of(1 << 20);
    disk.fill();
    assert_eq!(super::super::free_bytes(disk.path()).unwrap(), 0);
    assert!(fs::write(disk.path().join("file"), [0; 4096]).is_err());
    disk.fill_names();
    assert!(File::create(disk.path().join("empty")).is_err());
    disk.empty();
    fs::write(disk.path().join("empty"), [0; 4096]).unwrap();
}
