//! A real mount of a vault over a store in memory, for what only the kernel's side can show.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::vfs::tests::World;

mod by_number;
mod direct;
mod names;
mod notify;

/// A mount for the duration of a test. Without /dev/fuse there is nothing to test.
struct TestMount {
    runtime: tokio::runtime::Runtime,
    world: Option<World>,
    mounted: Mounted,
    dir: tempfile::TempDir,
}

impl TestMount {
    fn new() -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("no /dev/fuse: skipped");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        Some(Self::at(dir))
    }

    fn at(dir: tempfile::TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let world = runtime.block_on(World::new());
        let options =
            MountOptions { name: "test".into(), allow_other: true, ..MountOptions::default() };
        let vfs = world.vfs().clone();
        let mounted = mount(vfs, dir.path(), &options, runtime.handle().clone()).unwrap();
        Self { runtime, world: Some(world), mounted, dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// Tells the threads of a test that it is over, even if it fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        let _ = self.mounted.detach();
        self.runtime.block_on(async {
            let ended = self.mounted.ended();
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), ended).await;
        });
        self.world.take();
    }
}

#[test]
fn root_has_the_kernel_ask_for_much_at_once() {
    let Some(mount) = TestMount::new() else { return };
    let place = format!("/sys/class/bdi/{}/read_ahead_kb", mount.mounted.device);
    let Ok(set) = fs::read_to_string(&place) else { return };
    let may = fs::OpenOptions::new().write(true).open(&place).is_ok();
    assert_eq!(set.trim(), if may { "512" } else { "128" });
}

#[test]
fn a_mount_does_what_tools_need() {
    let Some(mount) = TestMount::new() else { return };
    let (file, dir) = (mount.path("file"), mount.path("dir"));
    fs::write(&file, b"hello").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"hello");
    fs::create_dir(&dir).unwrap();
    fs::rename(&file, dir.join("moved")).unwrap();
    assert!(fs::metadata(&file).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound));
    symlink("dir/moved", mount.path("link")).unwrap();
    assert_eq!(fs::read(mount.path("link")).unwrap(), b"hello");
    fs::hard_link(dir.join("moved"), mount.path("second")).unwrap();
    assert_eq!(fs::metadata(mount.path("second")).unwrap().nlink(), 2);

    let mut appended = OpenOptions::new().append(true).open(mount.path("second")).unwrap();
    appended.write_all(b", world").unwrap();
    assert_eq!(fs::read(dir.join("moved")).unwrap(), b"hello, world");
    fs::remove_file(mount.path("second")).unwrap();
    fs::remove_file(dir.join("moved")).unwrap();
    appended.write_all(b"!").unwrap();
    assert_eq!(appended.metadata().unwrap().len(), 13, "unlinked, and still written to");
    drop(appended);

    let sparse = File::create(mount.path("sparse")).unwrap();
    sparse.write_all_at(b"end", 1 << 40).unwrap();
    sparse.sync_all().unwrap();
    assert!(sparse.metadata().unwrap().blocks() < 100);
    let mut sparse = File::open(mount.path("sparse")).unwrap();
    sparse.seek(SeekFrom::Start((1 << 40) - 1)).unwrap();
    let mut end = Vec::new();
    sparse.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"\0end");

    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1750)).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o1750);
    let mut names: Vec<_> =
        fs::read_dir(mount.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dir", "link", "sparse"]);
}

/// How often the kernel has sent requests of this kind.
fn asked(kind: &str) -> u64 {
    let figures = crate::os::operations().into_iter().find(|figures| figures.kind == kind);
    figures.map_or(0, |figures| figures.within.last().copied().unwrap_or(0))
}

/// As `find -ls` and most backup programs do: reads all names first, then looks at each.
#[test]
fn a_large_directory_comes_with_what_is_looked_at_next() {
    let Some(mount) = TestMount::new() else { return };
    let vfs = mount.world.as_ref().unwrap().vfs().clone();
    let owner = crate::vfs::Caller { uid: 0, gid: 0, pid: 0, umask: 0o022 };
    // So many that no reply has room for all of them.
    let names: Vec<_> = (0..4000).map(|n| format!("{n:0>200}")).collect();
    mount.runtime.block_on(async {
        for name in &names {
            vfs.mkdir(&owner, crate::types::InodeNo::ROOT, name.as_bytes(), 0o755).await.unwrap();
        }
    });
    let before = asked("lookup");
    let mut found: Vec<_> = fs::read_dir(mount.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in &found {
        assert!(fs::symlink_metadata(mount.path(name)).unwrap().is_dir());
    }
    let lookups = asked("lookup") - before;
    found.sort();
    assert_eq!(found, names);
    assert!(lookups < 400, "{lookups} of them were asked for one by one");
}

/// Before a write(2) the kernel asks for the file's capabilities, unless it knows that there are none to remove.
#[test]
fn small_writes_are_one_request_each() {
    let Some(mount) = TestMount::new() else { return };
    let mut file = File::create(mount.path("file")).unwrap();
    file.write_all(b"first").unwrap();
    let before = (asked("write"), asked("getxattr"));
    for _ in 0..100 {
        file.write_all(b"more").unwrap();
    }
    let (writes, others) = (asked("write") - before.0, asked("getxattr") - before.1);
    assert!(writes >= 100 && others < 10, "{writes} writes, {others} questions");
}

#[test]
fn a_program_that_runs_is_not_cut() {
    let Some(mount) = TestMount::new() else { return };
    let program = mount.path("program");
    fs::copy("/bin/sleep", &program).unwrap();
    let length = fs::metadata(&program).unwrap().len();
    let mut running = Command::new(&program).arg("60").spawn().unwrap();
    let cut = |read: bool, write: bool| {
        OpenOptions::new().read(read).write(write).custom_flags(libc::O_TRUNC).open(&program)
    };
    let refused = [cut(true, false), cut(false, true), cut(true, true)]
        .map(|opened| opened.map_err(|error| error.raw_os_error()).err().flatten());
    let after = fs::metadata(&program).unwrap().len();
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!((refused, after), ([Some(libc::ETXTBSY); 3], length));
    // Once the program has ended, it is a file like any other.
    drop(cut(true, false).unwrap());
    assert_eq!(fs::metadata(&program).unwrap().len(), 0);
}

#[test]
fn an_unmount_waits_for_open_files_and_never_takes_another_mount() {
    let Some(mount) = TestMount::new() else { return };
    fs::write(mount.path("f"), b"x").unwrap();
    let open = File::open(mount.path("f")).unwrap();
    assert!(matches!(mount.mounted.unmount(), Err(Error::Busy(_))));
    assert!(mount.mounted.is_mounted());
    drop(open);
    mount.mounted.unmount().unwrap();
    assert!(!mount.mounted.is_mounted());
    mount.runtime.block_on(mount.mounted.ended());
    assert!(mount.mounted.has_ended());
    // Somebody else mounts something there: we must not unmount it.
    let other = TestMount::at(tempfile::tempdir_in(mount.dir.path()).unwrap());
    let ended = steal(&other);
    ended.unmount().unwrap();
    ended.detach().unwrap();
    assert!(other.mounted.is_mounted());
}

/// The handle of a mount that has ended, with another mount at its path now.
fn steal(mount: &TestMount) -> Mounted {
    let world = mount.runtime.block_on(World::new());
    let dir = tempfile::tempdir().unwrap();
    let options = MountOptions::default();
    let vfs = world.vfs().clone();
    let mut mounted =
        super::mount(vfs, dir.path(), &options, mount.runtime.handle().clone()).unwrap();
    mounted.unmount().unwrap();
    mounted.path = mount.mounted.path.clone();
    mounted
}
