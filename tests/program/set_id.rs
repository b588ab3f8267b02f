//! Setuid and setgid bits are cleared when a user who may not keep them changes a file's content: as on the local disk,
//! for every kind of change.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, OFlags, StatxFlags, copy_file_range, fallocate, statx,
};
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::support::home::Home;

const MODES: [u32; 5] = [0o6755, 0o4711, 0o2750, 0o6777, 0o644];
const CHANGES: [&str; 9] = [
    "write",
    "append",
    "direct",
    "truncate",
    "open",
    "fallocate",
    "copy_file_range",
    "chown",
    NO_CHANGE,
];
/// Sets neither owner nor group. For root, the kernel does not tell the file system what it is for.
const NO_CHANGE: &str = "chown of nothing";

fn change(how: &str, path: &Path, other: &Path) -> io::Result<()> {
    let file = || OpenOptions::new().read(true).write(true).open(path);
    match how {
        "write" => file()?.write_all_at(b"other", 1),
        "append" => OpenOptions::new().append(true).open(path)?.write_all(b"more"),
        "direct" => {
            let flags = OFlags::DIRECT.bits().cast_signed();
            let file = OpenOptions::new().write(true).custom_flags(flags).open(path);
            let file = file.or_else(|_| OpenOptions::new().write(true).open(path))?; // an old tmpfs has no O_DIRECT
            // Aligned, as O_DIRECT requires.
            let room = vec![b'd'; 8192];
            let at = room.as_ptr().align_offset(4096);
            file.write_all_at(&room[at..][..4096], 0)
        }
        NO_CHANGE => fchown(file()?, None, None),
        "truncate" => file()?.set_len(3),
        "open" => File::create(path).map(drop),
        "fallocate" => Ok(fallocate(&file()?, FallocateFlags::empty(), 0, 9000)?),
        "copy_file_range" => {
            let copied = copy_file_range(&File::open(other)?, None, &file()?, None, 3)?;
            assert_eq!(copied, 3);
            Ok(())
        }
        "chown" => {
            let file = file()?;
            let seen = file.metadata()?;
            fchown(&file, Some(seen.uid()), Some(seen.gid()))
        }
        other => panic!("{other}"),
    }
}

/// The mode that the kernel has cached and would execute the file with, without asking the file system.
fn known(path: &Path) -> u32 {
    let flags = AtFlags::STATX_DONT_SYNC;
    u32::from(statx(CWD, path, flags, StatxFlags::MODE).unwrap().stx_mode) & 0o7777
}

/// The mode after each kind of change, for each initial mode, in a directory of any file system.
fn modes_after(dir: &Path, keeps: bool) -> Vec<(String, u32)> {
    fs::create_dir(dir).unwrap();
    let other = dir.join("other");
    fs::write(&other, b"content").unwrap();
    let is_told = |how: &&str| *how != NO_CHANGE || !keeps || !geteuid().is_root();
    let all = CHANGES.into_iter().filter(is_told);
    let made = all.flat_map(|how| MODES.map(|mode| (how, mode))).map(|(how, mode)| {
        let path = dir.join(format!("{how}-{mode:o}"));
        fs::write(&path, b"a program").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "before");
        (how, path)
    });
    let made: Vec<_> = made.collect();
    // Capabilities belong to a thread.
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let mut has = capabilities(None).unwrap();
            has.effective
                .set(CapabilitySet::FSETID, keeps && has.permitted.contains(CapabilitySet::FSETID));
            set_capabilities(None, has).unwrap();
            for (how, path) in &made {
                change(how, path, &other).unwrap_or_else(|error| panic!("{how}: {error}"));
                // The kernel must know the new mode as soon as the change is answered.
                let known = known(path);
                let told = fs::metadata(path).unwrap().mode() & 0o7777;
                assert_eq!(known, told, "the kernel runs {} by {known:o}", path.display());
            }
        });
        changing.join().unwrap();
    });
    modes_of(dir)
}

fn modes_of(dir: &Path) -> Vec<(String, u32)> {
    let of = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().mode() & 0o7777)
    };
    let mut modes: Vec<_> = fs::read_dir(dir).unwrap().map(of).collect();
    modes.sort();
    modes
}

#[test]
fn setuid_and_setgid_go_as_on_this_disk() {
    let home = Home::new();
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    let expected = [("kept", true), ("lost", false)].map(|(name, keeps)| {
        let here = modes_after(&home.path(name), keeps);
        assert_eq!(modes_after(&vault.join(name), keeps), here, "{name}");
        (name, here)
    });
    let root = geteuid().is_root();
    assert_eq!(expected[0].1 != expected[1].1, root, "only with CAP_FSETID anything is kept");
    // After a remount, to see that the mode is not only in the kernel's cache.
    home.type_in("umount vault").exits(0);
    home.type_in("mount vault").exits(0);
    for (name, here) in &expected {
        assert_eq!(modes_of(&vault.join(name)), *here, "{name}");
    }
    home.type_in("umount vault").exits(0);
}
