//! File handles (`name_to_handle_at(2)`), as NFS servers and fanotify keep them: they outlive the kernel's memory and
//! the mount.

use std::io;
use std::os::fd::AsRawFd;

use super::*;
use crate::os::FileHandle;

#[test]
fn a_file_handle_outlives_the_kernels_memory_and_the_mount() {
    let Some(mut mount) = TestMount::new() else { return };
    fs::create_dir_all(mount.path("a/b")).unwrap();
    for name in ["f", "goes", "a/b/g"] {
        fs::write(mount.path(name), name).unwrap();
    }
    let [root, file, goes, deep, dir] =
        ["", "f", "goes", "a/b/g", "a/b"].map(|name| FileHandle::of(&mount.path(name)));
    let top = File::open(mount.dir.path()).unwrap();
    assert_eq!(io::read_to_string(file.open(&top, libc::O_RDONLY).unwrap()).unwrap(), "f");
    fs::remove_file(mount.path("goes")).unwrap();
    assert_eq!(goes.open(&top, libc::O_RDONLY).err(), Some(libc::ESTALE));
    drop(top);

    // A new mount: the kernel remembers nothing.
    mount.mounted.unmount().unwrap();
    mount.runtime.block_on(mount.mounted.ended());
    let options =
        MountOptions { name: "again".into(), allow_other: true, ..MountOptions::default() };
    let vfs = mount.world.as_ref().unwrap().vfs().clone();
    let runtime = mount.runtime.handle().clone();
    mount.mounted = super::super::mount(vfs, mount.dir.path(), &options, runtime).unwrap();
    let top = File::open(mount.dir.path()).unwrap();
    assert_eq!(io::read_to_string(deep.open(&top, libc::O_RDONLY).unwrap()).unwrap(), "a/b/g");
    let mut written = file.open(&top, libc::O_RDWR).unwrap();
    written.write_all(b"F").unwrap();
    assert_eq!(fs::read_to_string(mount.path("f")).unwrap(), "F");
    // A directory gets back its place in the tree.
    let found = dir.open(&top, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
    let path = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).unwrap();
    assert_eq!(path, mount.dir.path().canonicalize().unwrap().join("a/b"));
    assert!(root.open(&top, libc::O_RDONLY).is_ok());
    assert_eq!(goes.open(&top, libc::O_RDONLY).err(), Some(libc::ESTALE));
    drop((written, found, top));
}
