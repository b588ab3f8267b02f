//! What is mounted where.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// A mount, as `/proc/self/mountinfo` shows it (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// `major:minor`; unique among mounted file systems.
    pub device: String,
    /// The mountpoint.
    pub path: PathBuf,
    /// The type, such as `fuse.s3vault`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
}

/// Whether `path` is a FUSE mount whose daemon is gone ("Transport endpoint is not connected"). It asks by statfs(2),
/// which the kernel passes on each time; the kernel may answer stat(2) from its cache for a while after the daemon's
/// death.
pub fn is_dead_mount(path: &Path) -> bool {
    matches!(rustix::fs::statfs(path), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// The mount whose root is `path`, if it is one. Never touches the file system there, which may hang.
pub fn mounted_at(path: &Path) -> io::Result<Option<MountInfo>> {
    let path = resolved(path)?;
    // The last mount hides those before it.
    Ok(mounts()?.into_iter().rfind(|mount| mount.path == path))
}

/// All mounts that this process sees, in the order in which they were made.
pub fn mounts() -> io::Result<Vec<MountInfo>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Unmounts what is mounted at `path`; needs root. `force`: detaches it even if files in it are open, and ends its
/// connection, so that every waiting request gets an error. If nothing is mounted there (any more), that is no error.
///
/// # Errors
/// `ResourceBusy`; `PermissionDenied` if not root.
pub fn unmount(path: &Path, force: bool) -> io::Result<()> {
    let force =
        if force { UnmountFlags::DETACH | UnmountFlags::FORCE } else { UnmountFlags::empty() };
    match rustix::mount::unmount(path, force | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sets how many bytes the kernel reads ahead in a mount, and so how much it requests at once.
///
/// # Errors
/// `PermissionDenied` if not root; `NotFound` if there is no /sys.
pub fn set_read_ahead(device: &str, bytes: u64) -> io::Result<()> {
    let place = format!("/sys/class/bdi/{device}/read_ahead_kb");
    // In one write(2), without creating a file.
    fs::OpenOptions::new().write(true).open(place)?.write_all((bytes / 1024).to_string().as_bytes())
}

/// The path without symlinks, found without touching the file system that may be mounted there: readlink(2) of a mount's
/// root fails before it gets there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(_), Some(_)) if fs::read_link(&path).is_ok() => path.canonicalize(),
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(path),
    }
}

/// One line: id, parent, device, root, mountpoint, options, optional fields, `-`, type, source, options.
fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let path = fields.nth(1)?;
    let mut rest = fields.skip_while(|field| *field != b"-");
    let (kind, source) = (rest.nth(1)?, rest.next()?);
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let path = OsString::from_vec(unescape(path)).into();
    Some(MountInfo { device: text(device), path, kind: text(kind), source: text(source) })
}

/// Decodes blanks, tabs, newlines and backslashes, which are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes() {
        let line = br"36 35 0:98 / /mnt/a\040b\134c rw,nosuid shared:1 master:2 - fuse.s3vault s3://x rw,fd=3";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, "0:98");
        assert_eq!(mount.path, Path::new(r"/mnt/a b\c"));
        assert_eq!((&*mount.kind, &*mount.source), ("fuse.s3vault", "s3://x"));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 0:98 / /mnt rw - "), None);
    }

    #[test]
    fn the_root_is_mounted_and_what_is_no_mount_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(mounted_at(Path::new("/proc")).unwrap().is_some_and(|mount| mount.kind == "proc"));
        assert_eq!(mounted_at(dir.path()).unwrap(), None);
        assert!(!is_dead_mount(dir.path()));
    }
}
