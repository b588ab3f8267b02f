//! Mountpoints: what is mounted where, making one ready, cleaning a dead mount up, unmounting.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::{Error, Result, helper};

/// A mount, as `/proc/self/mountinfo` shows it (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// `major:minor`; while it is mounted, no other file system has it.
    pub device: String,
    /// Where.
    pub path: PathBuf,
    /// The type, such as `fuse.s3vault`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
}

/// What `prepare` had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The directory was made.
    pub made: bool,
    /// A mount whose daemon had died was cleaned up.
    pub cleaned: bool,
}

/// Makes `path` a directory that can be mounted on: made if missing, freed of a mount whose daemon died.
pub fn prepare(path: &Path) -> Result<Prepared> {
    let failed = |cause| Error::Mountpoint { path: path.to_owned(), cause };
    let mut prepared = Prepared::default();
    if is_dead(path) {
        detach(path)?;
        prepared.cleaned = true;
    }
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path).map_err(failed)?;
            prepared.made = true;
            fs::metadata(path).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    if !metadata.is_dir() {
        return Err(Error::NotDirectory(path.to_owned()));
    }
    if let Some(mount) = mounted_at(path).map_err(failed)? {
        let what = format!("{} of type {}", mount.source, mount.kind);
        return Err(Error::InUse { path: path.to_owned(), what });
    }
    if fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Err(Error::NotEmpty(path.to_owned()));
    }
    Ok(prepared)
}

/// Whether a FUSE mount is there whose daemon is gone ("Transport endpoint is not connected"). Asked by statfs(2), which
/// the kernel hands on each time: what stat(2) says it may remember for a while after the daemon's death.
pub fn is_dead(path: &Path) -> bool {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: an all-zero struct is a valid value, which statfs overwrites.
    let mut room: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that live across the call.
    let failed = unsafe { libc::statfs(name.as_ptr(), &raw mut room) } != 0;
    let error = io::Error::last_os_error();
    failed && matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// The mount that `path` is the root of, if it is one. Never touches the file system there, which may hang.
pub fn mounted_at(path: &Path) -> io::Result<Option<MountInfo>> {
    let path = resolved(path)?;
    // The last one hides those before it.
    Ok(mounts()?.into_iter().rfind(|mount| mount.path == path))
}

/// All mounts that this process sees, in the order they were made.
pub fn mounts() -> io::Result<Vec<MountInfo>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The path without symlinks, without asking the file system that may be mounted there: readlink(2) of a mount's root
/// fails before it gets there.
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

/// Blanks, tabs, newlines and backslashes are written as `\` and three octal digits.
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

/// Unmounts what is mounted at `path`. The caller has made sure that it is the right one.
pub(super) fn unmount(path: &Path) -> Result<()> {
    run(path, 0, &["-u"])
}

/// Takes a mount out of the tree whatever is open in it, and (as root) ends its connection: every request that waits
/// gets an error. What is open goes on to fail until it is closed.
pub fn detach(path: &Path) -> Result<()> {
    run(path, libc::MNT_DETACH | libc::MNT_FORCE, &["-u", "-z"])
}

fn run(path: &Path, flags: i32, fusermount: &[&str]) -> Result<()> {
    use io::ErrorKind::{NotFound, PermissionDenied};
    let failed = |cause: io::Error| match cause.raw_os_error() {
        Some(libc::EBUSY) => Error::Busy(path.to_owned()),
        _ => Error::Unmount { path: path.to_owned(), cause },
    };
    let target = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    // SAFETY: a system call with a NUL-terminated string that outlives it.
    let done = unsafe { libc::umount2(target.as_ptr(), flags | libc::UMOUNT_NOFOLLOW) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EPERM) => {}
        Some(libc::EINVAL) => return Ok(()), // not a mountpoint (any more)
        _ => return Err(failed(error)),
    }
    // Whoever is not root asks the helper that mounted it.
    let ask = |program: &str| {
        let mut command = Command::new(program);
        command.args(fusermount).arg("--").arg(path);
        helper::run(&mut command, helper::LIMIT)
    };
    let output = match ask("fusermount3") {
        // Not in this PATH: fuser, which mounted it, looks here, too.
        Err(error) if matches!(error.kind(), NotFound | PermissionDenied) => {
            ask("/bin/fusermount3")
        }
        asked => asked,
    };
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("busy") {
        return Err(Error::Busy(path.to_owned()));
    }
    Err(failed(io::Error::other(message)))
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
    fn a_missing_mountpoint_is_made_and_a_full_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("a/b");
        assert_eq!(prepare(&missing).unwrap(), Prepared { made: true, cleaned: false });
        assert_eq!(prepare(&missing).unwrap(), Prepared::default());
        assert!(matches!(prepare(dir.path()), Err(Error::NotEmpty(_))));
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(prepare(&file), Err(Error::NotDirectory(_))));
        assert!(matches!(prepare(Path::new("/proc")), Err(Error::InUse { .. })));
    }
}
