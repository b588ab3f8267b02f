//! What the user's own files have besides content: extended attributes, times, holes; and nodes that are not files.
//! Symlinks are not followed.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
    lgetxattr, llistxattr, lsetxattr, makedev, mknodat, seek, utimensat,
};
use rustix::io::Errno;

/// The longest possible list of names, and the longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 << 10;

/// The extended attributes, names with values; none if the file system does not support them.
pub fn xattrs_of(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; XATTR_MAX];
    let length = match llistxattr(path, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        length => length?,
    };
    names.truncate(length);
    let mut found = Vec::new();
    let mut value = vec![0; if names.is_empty() { 0 } else { XATTR_MAX }];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match lgetxattr(path, name, &mut value[..]) {
            Ok(length) => found.push((name.to_vec(), value[..length].to_vec())),
            // Removed meanwhile, or not visible to us.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// The value of one attribute; `None`: the file does not have it.
pub fn xattr_of(path: &Path, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; XATTR_MAX];
    match lgetxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets one attribute; `false` if the file system does not support it, or this user may not.
pub fn put_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<bool> {
    match lsetxattr(path, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sets when the content was last changed: seconds and nanoseconds since 1970.
pub fn set_mtime(path: &Path, (seconds, nanos): (i64, u32)) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Makes a fifo, a socket or a device.
pub fn make_node(path: &Path, mode: u32, rdev: u32) -> io::Result<()> {
    let device = u64::from(rdev);
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | (device >> 12) & 0xfff00);
    let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let device = makedev(part(major), part(minor));
    let kind = FileType::from_raw_mode(mode);
    Ok(mknodat(CWD, path, kind, Mode::from_raw_mode(mode & 0o7777), device)?)
}

/// The range of the next data at or after an offset; `None`: there is none.
pub fn next_data(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let begin = match seek(file, SeekFrom::Data(from)) {
        Err(Errno::NXIO) => return Ok(None),
        begin => begin?,
    };
    Ok(Some((begin, seek(file, SeekFrom::Hole(begin))?)))
}

/// The permission bits that new files of this process do not get.
pub fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o022)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;

    #[test]
    fn what_a_file_has_besides_its_content_is_set_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create_new(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", 1 << 19).unwrap();
        let (begin, end) = next_data(&file, 0).unwrap().unwrap();
        assert!(begin <= 1 << 19 && end > 1 << 19);
        assert_eq!(next_data(&file, 1 << 20).unwrap(), None);
        set_mtime(&path, (-5, 7)).unwrap();
        let seen = path.metadata().unwrap();
        assert_eq!((seen.mtime(), seen.mtime_nsec()), (-5, 7));
        if put_xattr(&path, b"user.a", b"value").unwrap() {
            let found = xattrs_of(&path).unwrap();
            assert!(found.contains(&(b"user.a".to_vec(), b"value".to_vec())));
        }
        let fifo = dir.path().join("fifo");
        make_node(&fifo, libc::S_IFIFO | 0o640, 0).unwrap();
        assert!(fifo.symlink_metadata().unwrap().file_type().is_fifo());
        assert!(umask() < 0o1000);
    }
}
