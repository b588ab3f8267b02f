//! Translates between the kernel's types and those of the vfs.

use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{
    FileAttr, FileHandle, FileType, INodeNo, InitFlags, KernelConfig, OpenFlags as OpenBits,
    RenameFlags, Request, TimeOrNow,
};

use crate::types::{InodeNo, Timestamp};
use crate::vfs::{Attributes, Caller, HandleId, RenameMode, SetTime, Setter, is_acl};

/// Bits of an inode number that are the inode's own. At a million new inodes a second, 2^48 last for nine years.
pub(super) const OWN_BITS: u32 = 48;
/// Read-ahead and writeback requests that the kernel keeps in flight. Read-ahead is ours to do, but each 128 KiB of a
/// buffered read is a request of its own.
const MAX_BACKGROUND: u16 = 64;
/// The most bytes of one write; the kernel's own limit.
const MAX_WRITE: u32 = 1 << 20;

/// The block size of directories: the C library decides by it how much of a directory to read at once.
const DIRECTORY_BLOCK: u32 = 1 << 20;

pub(super) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask }
}

/// The handle of an open directory. It says only whether `O_NOATIME` was given: no other flag matters to a listing.
pub(super) fn directory_handle(flags: OpenBits) -> FileHandle {
    FileHandle(u64::from(flags.0 & libc::O_NOATIME != 0))
}

pub(super) fn moves_atime(directory: FileHandle) -> bool {
    directory.0 == 0
}

/// Who sets an attribute. The groups of the caller matter to an ACL only. The kernel checks them itself, but the flag
/// that tells the result needs `SETXATTR_EXT`, and a request names only one group. So we ask `/proc`, as libfuse does.
pub(super) fn setter(request: &Request, name: &[u8]) -> Setter {
    if request.uid() == 0 || !is_acl(name) {
        return Setter::Superuser;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", request.pid()));
    let mut groups = groups(&status.unwrap_or_default());
    groups.push(request.gid());
    Setter::Member(groups)
}

fn groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|gid| gid.parse().ok()).collect()
}

fn own(number: u64) -> InodeNo {
    InodeNo(number & ((1 << OWN_BITS) - 1))
}

/// The inode's own number, without the tag of its state (`snapshot_states.rs`).
pub(super) fn ino(ino: INodeNo) -> InodeNo {
    own(ino.0)
}

pub(super) fn handle(handle: FileHandle) -> HandleId {
    HandleId(handle.0)
}

pub(super) fn kind(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub(super) fn file_attr(seen: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(seen.ino.0),
        size: seen.size,
        blocks: seen.blocks,
        atime: seen.atime.into(),
        mtime: seen.mtime.into(),
        ctime: seen.ctime.into(),
        crtime: seen.created.into(),
        kind: kind(seen.mode),
        perm: u16::try_from(seen.mode & 0o7777).unwrap_or(0),
        nlink: seen.nlink,
        uid: seen.uid,
        gid: seen.gid,
        rdev: seen.rdev,
        blksize: if kind(seen.mode) == FileType::Directory { DIRECTORY_BLOCK } else { 4096 },
        flags: 0,
    }
}

/// The reply that lets the kernel remember that a name is not there.
pub(super) fn nothing() -> FileAttr {
    let none = Attributes {
        ino: InodeNo(0),
        mode: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        created: Timestamp::default(),
    };
    file_attr(&none)
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(set_to(time)),
    }
}

/// The time that a caller set. For times before 1970, fuser 0.18 subtracts the nanoseconds from the seconds instead of
/// adding them (`system_time_from_time`); this undoes that.
fn set_to(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(_) => time.into(),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            Timestamp { seconds, nanos: before.subsec_nanos() }
        }
    }
}

/// The capabilities to ask of the kernel. Never asked for:
/// - `io_uring`, `SETXATTR_EXT`, idmapped mounts, `SECURITY_CTX`, remote locks: fuser 0.18 cannot honour them.
/// - The write-back cache: if the daemon died, bytes for which `write` had returned could be lost, and nobody would get
///   an error.
/// - `ATOMIC_O_TRUNC`: the kernel sends `open` first, and only then checks whether the file is a running program. A
///   refused `open(O_RDONLY | O_TRUNC)` would have cut it already.
/// - `ASYNC_DIO` on a writer's mount: after an asynchronous direct write the kernel keeps, for good, pages that a
///   concurrent reader has put into the page cache. Without the flag the write ends within `io_submit(2)`, which drops
///   those pages.
fn wanted(is_reader: bool, has_inodes_here: bool) -> InitFlags {
    let both = InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_CACHE_SYMLINKS
        // The kernel finds an inode that it has forgotten by its number: it looks up `.` in it.
        | InitFlags::FUSE_EXPORT_SUPPORT
        // ACLs for permissions. The umask is then ours to apply, since a directory's default ACL replaces it.
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_DONT_MASK;
    // With this flag the kernel asks for attributes in the first reply of a listing, and later only if entries were
    // looked up meanwhile. But programs that look at every entry read all names first (`find -ls`, `ls -l`, most backup
    // programs), and then ask one by one. So it is only for machines that would have to fetch attributes nobody may
    // want.
    let both = if has_inodes_here { both } else { both | InitFlags::FUSE_READDIRPLUS_AUTO };
    if is_reader {
        both | InitFlags::FUSE_AUTO_INVAL_DATA | InitFlags::FUSE_ASYNC_DIO
    } else {
        // Our own writes change the mtime, but the pages that they went through stay right.
        both | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            // We remove setuid and setgid (`set_id`). The kernel then asks a file without them for its
            // `security.capability` once, not before each write.
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
    }
}

/// Sets the capabilities and limits of a session.
pub(super) fn configure(config: &mut KernelConfig, is_reader: bool, has_inodes_here: bool) {
    for flag in wanted(is_reader, has_inodes_here) {
        if config.add_capabilities(flag).is_err() {
            tracing::info!(?flag, "this kernel does not offer it");
        }
    }
    // A setter that refuses a value returns the nearest one that is allowed, as its error.
    if let Err(nearest) = config.set_max_write(MAX_WRITE) {
        let _ = config.set_max_write(nearest);
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        let _ = config.set_max_background(nearest);
    }
}

/// The flags of a rename that are supported: not whiteouts, which the upper layers of overlayfs use.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    match flags {
        RenameFlags::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        flags if flags.is_empty() => Some(RenameMode::Replace),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_groups_of_a_process_are_read_from_its_status() {
        assert_eq!(groups("Name:\tx\nGroups:\t4 60 65534 \nNStgid:\t1\n"), [4, 60, 65534]);
        assert!(groups("Groups:\t \n").is_empty() && groups("").is_empty());
    }

    #[test]
    fn a_time_before_1970_is_what_the_caller_set() {
        // The time that fuser makes of (seconds, nanoseconds).
        for (seconds, nanos) in [(-2_i64, 500_000_000), (-1, 1), (-7, 0)] {
            let fusers = UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanos);
            assert_eq!(set_to(fusers), Timestamp { seconds, nanos });
        }
        let later = Timestamp { seconds: 7, nanos: 5 };
        assert_eq!(set_to(later.into()), later);
    }
}
