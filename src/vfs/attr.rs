//! Attributes: what a caller sees of an inode, and the rules by which calls change it.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::index::Draft;
use crate::records::Inode;
use crate::types::{InodeNo, Timestamp};

use super::{Caller, Result};

/// Permission bits with setuid, setgid and sticky: what `chmod` changes.
pub(super) const MODE_BITS: u32 = 0o7777;

/// The size that directories show, in bytes: as on ext4, so that no tool takes one for empty.
const DIRECTORY_SIZE: u64 = 4096;

/// How old an atime may be before a read moves it all the same (relatime), in seconds.
const RELATIME_SECONDS: i64 = 24 * 60 * 60;

/// How many read times are remembered until a transaction takes them along.
const ATIMES_MAX: usize = 16 * 1024;

/// How many read times one transaction takes along: each is a record of some 200 bytes.
const ATIMES_AT_ONCE: usize = 32;

/// What `stat` shows of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The inode number. It never changes.
    pub ino: InodeNo,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Number of names; 0 for an open file that was unlinked.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device number of a device file.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Blocks of 512 bytes that hold content (holes do not count).
    pub blocks: u64,
    /// Last read (relatime).
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of content or attributes.
    pub ctime: Timestamp,
    /// Time of creation.
    pub created: Timestamp,
}

impl Attributes {
    /// The attributes that the map has for `ino`.
    pub(super) fn of(ino: InodeNo, inode: &Inode) -> Self {
        let size = if inode.is_dir() { DIRECTORY_SIZE } else { inode.size };
        Self {
            ino,
            mode: inode.mode,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            size,
            blocks: inode.allocated.div_ceil(512),
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            created: inode.created,
        }
    }

    /// The file type, the `S_IFMT` bits of the mode.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// `UTIME_NOW`.
    Now,
    /// This one.
    To(Timestamp),
}

impl SetTime {
    fn or(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Now => now,
            Self::To(time) => time,
        }
    }
}

/// What `setattr` changes; `None` leaves a value as it is (`UTIME_OMIT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes: truncates or extends.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
    /// Setuid and setgid are removed before `mode` is applied, since whoever changes the size may not keep them.
    pub loses_set_id: bool,
}

/// Applies everything but the size, which `Vfs::resize` changes together with the extents.
pub(super) fn apply(inode: &mut Inode, set: &SetAttributes, now: Timestamp) {
    // chown(2) removes them, whoever calls it.
    if set.loses_set_id || set.uid.is_some() || set.gid.is_some() {
        inode.mode = without_set_id(inode.mode);
    }
    if let Some(mode) = set.mode {
        inode.mode = inode.mode & !MODE_BITS | mode & MODE_BITS;
    }
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    if set.size.is_some() {
        inode.mtime = now;
    }
    inode.atime = set.atime.map_or(inode.atime, |time| time.or(now));
    inode.mtime = set.mtime.map_or(inode.mtime, |time| time.or(now));
    inode.ctime = now;
}

/// A mode without setuid, and without setgid if the group may execute. A directory's mode stays as it is.
pub(super) fn without_set_id(mode: u32) -> u32 {
    if mode & libc::S_IFMT == libc::S_IFDIR {
        return mode;
    }
    let setgid = if mode & libc::S_IXGRP != 0 { libc::S_ISGID } else { 0 };
    mode & !(libc::S_ISUID | setgid)
}

/// A new inode in `parent`. If that has setgid, the inode gets its group, and a directory also gets setgid.
pub(super) fn new_inode(caller: &Caller, parent: &Inode, mode: u32, now: Timestamp) -> Inode {
    let inherits = parent.mode & libc::S_ISGID != 0;
    let is_dir = mode & libc::S_IFMT == libc::S_IFDIR;
    let setgid = if inherits && is_dir { libc::S_ISGID } else { 0 };
    Inode {
        mode: mode | setgid,
        uid: caller.uid,
        gid: if inherits { parent.gid } else { caller.gid },
        nlink: if is_dir { 2 } else { 1 },
        atime: now,
        mtime: now,
        ctime: now,
        created: now,
        ..Inode::default()
    }
}

/// Whether a read at `now` moves the atime (by relatime, mount(8)).
pub(super) fn atime_moves(inode: &Inode, atime: Timestamp, now: Timestamp) -> bool {
    atime <= inode.mtime || atime <= inode.ctime || now.seconds - atime.seconds >= RELATIME_SECONDS
}

/// Read times that no transaction has taken along yet.
#[derive(Debug, Default)]
pub(super) struct Atimes {
    pending: Mutex<HashMap<InodeNo, Timestamp>>,
}

impl Atimes {
    pub(super) fn get(&self, ino: InodeNo) -> Option<Timestamp> {
        self.pending.lock().get(&ino).copied()
    }

    /// Remembers the time of a read. Beyond the limit it is dropped, as if relatime had skipped it.
    pub(super) fn note(&self, ino: InodeNo, time: Timestamp) {
        let mut pending = self.pending.lock();
        if pending.len() < ATIMES_MAX || pending.contains_key(&ino) {
            pending.insert(ino, time);
        }
    }

    /// The times that the next transaction takes along.
    pub(super) fn next_batch(&self) -> Vec<(InodeNo, Timestamp)> {
        let pending = self.pending.lock();
        pending.iter().take(ATIMES_AT_ONCE).map(|(ino, time)| (*ino, *time)).collect()
    }

    /// The atime was set explicitly.
    pub(super) fn forget(&self, ino: InodeNo) {
        self.pending.lock().remove(&ino);
    }

    /// These times are journaled; newer ones stay.
    pub(super) fn journaled(&self, batch: &[(InodeNo, Timestamp)]) {
        let mut pending = self.pending.lock();
        for (ino, time) in batch {
            if pending.get(ino) == Some(time) {
                pending.remove(ino);
            }
        }
    }
}

/// Puts read times into a transaction that is made anyway, for inodes that are on this machine. Read times alone never cause
/// a fetch or a transaction.
pub(super) fn put_atimes(draft: &mut Draft<'_>, batch: &[(InodeNo, Timestamp)]) -> Result<()> {
    if draft.is_empty() {
        return Ok(());
    }
    for (ino, time) in batch {
        if let Some(mut inode) = draft.try_inode_cached(*ino)?
            && inode.atime < *time
        {
            inode.atime = *time;
            draft.put_inode(*ino, &inode);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn a_setgid_directory_gives_its_group() {
        let caller = Caller { uid: 7, gid: 8, pid: 1, umask: 0 };
        let parent = Inode { mode: libc::S_IFDIR | 0o2775, gid: 99, ..Inode::default() };
        let dir = new_inode(&caller, &parent, libc::S_IFDIR | 0o755, at(5));
        assert_eq!((dir.gid, dir.mode, dir.nlink), (99, libc::S_IFDIR | 0o2755, 2));
        let file = new_inode(&caller, &parent, libc::S_IFREG | 0o644, at(5));
        assert_eq!((file.gid, file.mode, file.nlink), (99, libc::S_IFREG | 0o644, 1));
    }

    #[test]
    fn what_a_writer_takes_away() {
        let file = libc::S_IFREG;
        for (mode, left) in [
            (file | 0o6755, file | 0o755),
            (file | 0o4711, file | 0o711),
            // Setgid without group execution does not make a program run as that group, so it stays.
            (file | 0o6745, file | 0o2745),
            (file | 0o644, file | 0o644),
            (file | 0o1755, file | 0o1755),
            (libc::S_IFDIR | 0o6777, libc::S_IFDIR | 0o6777),
        ] {
            assert_eq!(without_set_id(mode), left, "{mode:o}");
        }
    }

    #[test]
    fn relatime_moves_after_a_change_or_a_day() {
        let inode = Inode { mtime: at(10), ctime: at(10), ..Inode::default() };
        assert!(atime_moves(&inode, at(10), at(11)));
        assert!(!atime_moves(&inode, at(11), at(12)));
        assert!(atime_moves(&inode, at(11), at(11 + RELATIME_SECONDS)));
    }
}
