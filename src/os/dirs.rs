//! Private directories, and the durability of names.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::IFlags;

use super::medium::{DiskChange, Medium};

/// Makes a directory and the missing ones above it. They are readable by this user only (0700), and durable: each
/// name is fsynced in its parent. An existing directory is made private.
pub fn make_private(dir: &Path) -> io::Result<()> {
    match make(dir) {
        Ok(()) => sync_parent(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {
            fs::set_permissions(dir, Permissions::from_mode(0o700))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                make_missing(parent)?;
                match make(dir) {
                    // Another process was faster.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
                    made => made?,
                }
                sync_parent(dir)
            }
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

fn make(dir: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().mode(0o700).create(dir);
    Medium::of(dir).change(DiskChange::MakeDir, make)
}

/// As [`make_private`], but an existing directory keeps its permissions: it is not ours.
fn make_missing(dir: &Path) -> io::Result<()> {
    if dir.is_dir() { Ok(()) } else { make_private(dir) }
}

/// Makes the names in a directory durable, after files were created, renamed or removed there.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let handle = File::open(dir)?;
    Medium::of(dir).change(DiskChange::SyncDir(dir), || handle.sync_all())
}

/// Makes a directory immutable, as `chattr +i` does: nothing can be made, renamed or removed in it, not even by root,
/// until `chattr -i`. An error if the file system does not support this, or this process may not do it.
pub fn make_immutable(dir: &Path) -> io::Result<()> {
    let handle = File::open(dir)?;
    let flags = rustix::fs::ioctl_getflags(&handle)?;
    if !flags.contains(IFlags::IMMUTABLE) {
        rustix::fs::ioctl_setflags(&handle, flags | IFlags::IMMUTABLE)?;
        handle.sync_all()?;
    }
    Ok(())
}

/// Whether a directory is immutable; false if that cannot be determined.
#[must_use]
pub fn is_immutable(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|handle| {
        rustix::fs::ioctl_getflags(&handle).is_ok_and(|flags| flags.contains(IFlags::IMMUTABLE))
    })
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_directories_are_private_and_others_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let ours = dir.path().join("theirs/a/b");
        fs::create_dir(dir.path().join("theirs")).unwrap();
        fs::set_permissions(dir.path().join("theirs"), Permissions::from_mode(0o755)).unwrap();
        make_private(&ours).unwrap();
        assert_eq!(mode(&ours), 0o700);
        assert_eq!(mode(ours.parent().unwrap()), 0o700);
        assert_eq!(mode(&dir.path().join("theirs")), 0o755);
        fs::set_permissions(&ours, Permissions::from_mode(0o755)).unwrap();
        make_private(&ours).unwrap();
        assert_eq!(mode(&ours), 0o700);
        fs::write(dir.path().join("file"), "x").unwrap();
        assert!(make_private(&dir.path().join("file")).is_err());
    }
}
