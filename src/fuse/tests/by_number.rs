//! Handles of files (`name_to_handle_at(2)`), as NFS servers and fanotify keep them: they outlive what the kernel
//! remembers, and the mount.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;

use super::*;

/// `struct file_handle`, with room for the longest there is.
#[repr(C)]
#[derive(Clone)]
struct Handle {
    bytes: u32,
    kind: i32,
    content: [u8; 128],
}

impl Handle {
    fn of(path: &Path) -> Self {
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let (mut handle, mut mount) = (Self { bytes: 128, kind: 0, content: [0; 128] }, 0_i32);
        // SAFETY: all pointers are to values that live across the call, and `bytes` says how long the handle may be.
        let done = unsafe {
            let (cwd, name) = (libc::AT_FDCWD, name.as_ptr());
            let at = libc::SYS_name_to_handle_at;
            libc::syscall(at, cwd, name, &raw mut handle, &raw mut mount, 0)
        };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        handle
    }

    fn open(&self, mount: &File, flags: i32) -> std::result::Result<File, i32> {
        let mut handle = self.clone();
        // SAFETY: as above.
        let fd = unsafe {
            let (mount, handle) = (mount.as_raw_fd(), &raw mut handle);
            libc::syscall(libc::SYS_open_by_handle_at, mount, handle, flags)
        };
        let fd = i32::try_from(fd).unwrap();
        if fd < 0 {
            return Err(io::Error::last_os_error().raw_os_error().unwrap());
        }
        // SAFETY: a descriptor that was just opened, and is nobody else's.
        Ok(unsafe { File::from_raw_fd(fd) })
    }
}

#[test]
fn a_file_handle_outlives_the_kernels_memory_and_the_mount() {
    let Some(mut mount) = Mount::new() else { return };
    fs::create_dir_all(mount.path("a/b")).unwrap();
    for name in ["f", "goes", "a/b/g"] {
        fs::write(mount.path(name), name).unwrap();
    }
    let [root, file, goes, deep, dir] =
        ["", "f", "goes", "a/b/g", "a/b"].map(|name| Handle::of(&mount.path(name)));
    let top = File::open(mount.dir.path()).unwrap();
    assert_eq!(io::read_to_string(file.open(&top, libc::O_RDONLY).unwrap()).unwrap(), "f");
    fs::remove_file(mount.path("goes")).unwrap();
    assert_eq!(goes.open(&top, libc::O_RDONLY).err(), Some(libc::ESTALE));
    drop(top);

    // A new mount: the kernel knows nothing.
    mount.mounted.unmount().unwrap();
    mount.runtime.block_on(mount.mounted.ended());
    let options = MountOptions { name: "again".into(), allow_other: true };
    let vfs = mount.world.as_ref().unwrap().vfs().clone();
    let runtime = mount.runtime.handle().clone();
    mount.mounted = super::super::mount(vfs, mount.dir.path(), &options, runtime).unwrap();
    let top = File::open(mount.dir.path()).unwrap();
    assert_eq!(io::read_to_string(deep.open(&top, libc::O_RDONLY).unwrap()).unwrap(), "a/b/g");
    let mut written = file.open(&top, libc::O_RDWR).unwrap();
    written.write_all(b"F").unwrap();
    assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), "F");
    // A directory gets its place in the tree back.
    let found = dir.open(&top, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
    let path = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).unwrap();
    assert_eq!(path, mount.dir.path().canonicalize().unwrap().join("a/b"));
    assert!(root.open(&top, libc::O_RDONLY).is_ok());
    assert_eq!(goes.open(&top, libc::O_RDONLY).err(), Some(libc::ESTALE));
    drop((written, found, top));
}
