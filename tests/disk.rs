//! The machine's disk as it is: small, full, and with more written to it than it has room for. Real mounts.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/home.rs"]
mod home;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use home::{Home, detach, runs, signal, wait_until};

/// A disk of its own at a directory; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: PathBuf, mib: u64) -> Self {
        fs::create_dir_all(&at).unwrap();
        mount(&at, mib, 0);
        Self(at)
    }

    fn resize(&self, mib: u64) {
        mount(&self.0, mib, libc::MS_REMOUNT);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

fn mount(at: &Path, mib: u64, flags: libc::c_ulong) {
    let at = CString::new(at.as_os_str().as_bytes()).unwrap();
    let data = CString::new(format!("size={mib}m,mode=0700")).unwrap();
    // SAFETY: mount(2) reads these C strings, which live across the call.
    let done = unsafe {
        libc::mount(c"tmpfs".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), flags, data.as_ptr().cast())
    };
    assert_eq!(done, 0, "mounting a tmpfs: {}", std::io::Error::last_os_error());
}

fn warnings(home: &Home, vault: &Path) -> String {
    home.status(vault)["warnings"].to_string()
}

#[test]
fn a_small_disk_has_room_and_one_that_is_full_is_named() {
    let home = Home::new();
    let disk = SmallDisk::new(home.state(), 300);
    let vault = home.path("vault");
    home.type_in("mount vault --cache-size 64M").exits(0);
    fs::write(vault.join("byte"), "x").unwrap();
    fs::write(vault.join("more"), vec![7; 20 << 20]).unwrap();
    assert_eq!(warnings(&home, &vault), "[]");
    home.type_in("umount vault").exits(0);

    // Full for now: mounted, and said there and in `status`; with room it goes on by itself.
    let filler = disk.0.join("filler");
    let free = s3vault::os::free_bytes(&disk.0).unwrap();
    fs::write(&filler, vec![1; usize::try_from(free - (24 << 20)).unwrap()]).unwrap();
    home.type_in("mount vault --cache-size 64M").exits(0).says("30 MiB of it stay free");
    assert!(warnings(&home, &vault).contains("ENOSPC until there are"));
    fs::remove_file(&filler).unwrap();
    assert_eq!(warnings(&home, &vault), "[]");
    fs::write(vault.join("again"), "x").unwrap();

    // Something is unsent: whatever the disk is like, it is mounted to send it.
    fs::rename(home.data().join("store"), home.path("away")).unwrap();
    fs::write(vault.join("unsent"), "x").unwrap();
    let daemon = home.daemon(&vault);
    signal(daemon, libc::SIGKILL);
    wait_until("the daemon ends", || !runs(daemon));
    fs::rename(home.path("away"), home.data().join("store")).unwrap();
    disk.resize(70);
    home.type_in("mount vault --cache-size 64M").exits(0);
    home.type_in("umount vault").exits(0);
    // Nothing is unsent any more: a disk of this size is no place for a vault that is written to.
    home.type_in("mount vault").exits(19).says("--state-dir").says("needs 72");
    home.type_in("mount vault --read-only").exits(0);
    assert_eq!(fs::read(vault.join("unsent")).unwrap(), b"x");
    home.type_in("umount vault").exits(0);
}
