//! Calls by name during renames and unlinks of it: as on a local disk, none of them finds an inode that is gone.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use super::*;
use crate::os::{get_xattr, set_xattr, truncate};
use crate::types::InodeNo;

const ROUNDS: usize = 1500;

type Call = fn(&Path) -> std::io::Result<()>;

#[test]
fn v3_every_call_by_a_name_that_is_always_there_succeeds() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("always");
    fs::write(&path, "old").unwrap();
    set_xattr(&path).unwrap();
    let calls: [(&str, Call); 8] = [
        ("open", |path| File::open(path).map(drop)),
        ("O_CREAT", |path| {
            OpenOptions::new().write(true).create(true).truncate(false).open(path).map(drop)
        }),
        ("read", |path| fs::read(path).map(drop)),
        ("truncate", |path| truncate(path, 3)),
        ("setxattr", set_xattr),
        ("getxattr", get_xattr),
        ("stat", |path| fs::metadata(path).map(drop)),
        ("chmod", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o640))),
    ];
    let (is_over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let failures = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        for first in [0, 4] {
            let (path, calls, is_over, made) = (&path, &calls, &is_over, &made);
            let failures = &failures;
            scope.spawn(move || {
                for at in first.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let (what, call) = calls[at % calls.len()];
                    if let Err(error) = call(path) {
                        failures.lock().push(format!("{what}: {error}"));
                    }
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..ROUNDS {
            let new = mount.path(&format!("new {round}"));
            fs::write(&new, "new").unwrap();
            set_xattr(&new).unwrap();
            fs::rename(&new, &path).unwrap();
        }
        drop(over);
    });
    let failures = failures.into_inner();
    let made = made.into_inner();
    assert!(
        failures.is_empty(),
        "{} of {made}: {:?}",
        failures.len(),
        &failures[..8.min(failures.len())]
    );
    // What was replaced is gone: only the last file is left.
    let vfs = mount.world.as_ref().unwrap().vfs();
    within_a_moment("no orphans", || mount.runtime.block_on(vfs.recover()).unwrap() == 0);
}

#[test]
fn what_only_a_path_descriptor_holds_is_opened_again() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("f");
    fs::write(&path, "content").unwrap();
    let held = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    assert_eq!(fs::read(&again).unwrap(), b"content");
    assert_eq!(held.metadata().unwrap().nlink(), 0);
    let vfs = mount.world.as_ref().unwrap().vfs();
    assert_eq!(mount.runtime.block_on(vfs.recover()).unwrap(), 1);
    drop(held);
    within_a_moment("no orphans", || mount.runtime.block_on(vfs.recover()).unwrap() == 0);
}

#[test]
fn a_removed_file_gives_its_room_back_at_once() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("large");
    let world = mount.world.as_ref().unwrap();
    let before = world.staged();
    let mut file = File::create(&path).unwrap();
    let piece = vec![7; 1 << 20];
    for _ in 0..24 {
        file.write_all(&piece).unwrap();
    }
    assert!(world.staged() > before + (20 << 20));
    fs::remove_file(&path).unwrap();
    drop(file);
    within_a_moment("the room is given back", || world.staged() < before + (1 << 20));
}

/// Waits for what the kernel does after its reply.
fn within_a_moment(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: not within a moment");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_reply_to_a_listing_tells_all_that_it_has_room_for() {
    let Some(mount) = TestMount::new() else { return };
    let world = mount.world.as_ref().unwrap();
    let alice = crate::vfs::Caller { uid: 1000, gid: 100, pid: 1, umask: 0 };
    let flags = crate::vfs::OpenFlags { write: true, ..crate::vfs::OpenFlags::default() };
    mount.runtime.block_on(async {
        for n in 0..1500 {
            let (vfs, name) = (world.vfs(), format!("file {n}"));
            let made = vfs.create(&alice, InodeNo::ROOT, name.as_bytes(), 0o644, flags).await;
            vfs.release(made.unwrap().1).await.unwrap();
        }
    });
    let before = world.held();
    let list: Vec<_> = fs::read_dir(mount.dir.path()).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(list.len(), 1500);
    // Older kernels read a listing by pages, and ask for attributes only with the first.
    let told = world.held() - before;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).take(2).flat_map(str::parse).collect();
    if version >= vec![6, 18] {
        assert_eq!(told, 1500);
    }
    assert!(list.iter().all(|entry| entry.metadata().unwrap().uid() == 1000));
    list.iter().for_each(|entry| fs::remove_file(entry.path()).unwrap());
    assert_eq!(fs::read_dir(mount.dir.path()).unwrap().count(), 0);
}
