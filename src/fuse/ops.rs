//! The requests of the kernel: decode, call the vfs, reply.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use futures_util::FutureExt;
use tokio::sync::watch;

use super::decode::{
    caller, configure, file_attr, handle, ino, kind, nothing, rename_mode, set_time,
};
use super::dispatch::Dispatch;
use crate::vfs::{
    Attributes, NAME_MAX, OpenFlags as Open, Result, Seek, SetAttributes, Vfs, WriteAt,
};

/// For how long the kernel may answer from its own memory. A writer's mount is the only one that changes the vault,
/// and all its changes pass the kernel, which keeps what it knows right; so this only bounds its memory's age.
const TTL_WRITER: Duration = Duration::from_secs(3600);
/// A read-only mount follows what another machine writes.
const TTL_READER: Duration = Duration::from_secs(1);

/// Inode numbers are never given twice, so a generation says nothing.
const GENERATION: Generation = Generation(0);

/// Entries asked of the vfs for one reply; what a page (4 KiB, or 128 KiB for a large buffer) holds of short names.
const DIR_BATCH: usize = 128;

/// What fuser calls.
pub(super) struct Front {
    vfs: Vfs,
    dispatch: Dispatch,
    is_reader: bool,
    /// Says that the session is over.
    ended: watch::Sender<bool>,
}

impl Front {
    pub(super) fn new(vfs: Vfs, dispatch: Dispatch, ended: watch::Sender<bool>) -> Self {
        let is_reader = vfs.options().read_only;
        Self { vfs, dispatch, is_reader, ended }
    }

    fn ttl(&self) -> Duration {
        if self.is_reader { TTL_READER } else { TTL_WRITER }
    }

    /// Page cache across opens: for a writer's mount always right, for a reader's what `AUTO_INVAL_DATA` finds stale
    /// goes.
    fn open_flags(&self) -> FopenFlags {
        if self.is_reader { FopenFlags::empty() } else { FopenFlags::FOPEN_KEEP_CACHE }
    }

    fn entry<F>(&self, what: &'static str, reply: ReplyEntry, work: F)
    where
        F: Future<Output = Result<Attributes>> + Send + 'static,
    {
        let ttl = self.ttl();
        self.dispatch.answer(what, reply, work, move |reply, seen| {
            reply.entry(&ttl, &file_attr(&seen), GENERATION);
        });
    }

    fn empty<F>(&self, what: &'static str, reply: ReplyEmpty, work: F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.dispatch.answer(what, reply, work, |reply, ()| reply.ok());
    }

    fn xattr<F>(&self, what: &'static str, size: u32, reply: ReplyXattr, work: F)
    where
        F: Future<Output = Result<Vec<u8>>> + Send + 'static,
    {
        self.dispatch.answer(what, reply, work, move |reply, value| {
            match u32::try_from(value.len()) {
                Ok(length) if size == 0 => reply.size(length),
                Ok(length) if length <= size => reply.data(&value),
                _ => reply.error(Errno::ERANGE),
            }
        });
    }
}

impl Filesystem for Front {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        configure(config, self.is_reader);
        Ok(())
    }

    fn destroy(&mut self) {
        self.ended.send_replace(true);
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (vfs, name, ttl) = (self.vfs.clone(), name.as_bytes().to_vec(), self.ttl());
        let work = async move {
            match vfs.lookup(ino(parent), &name).await {
                Ok(seen) => Ok(Some(seen)),
                Err(crate::vfs::Error::NotFound) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.dispatch.answer("lookup", reply, work, move |reply, seen| {
            let attr = seen.map_or_else(nothing, |seen| file_attr(&seen));
            reply.entry(&ttl, &attr, GENERATION);
        });
    }

    // The vfs keeps nothing for what the kernel merely knows.
    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let (vfs, ttl) = (self.vfs.clone(), self.ttl());
        let work = async move { vfs.attributes(ino(node)).await };
        self.dispatch.answer("getattr", reply, work, move |reply, seen| {
            reply.attr(&ttl, &file_attr(&seen));
        });
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttributes {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        let (vfs, ttl) = (self.vfs.clone(), self.ttl());
        let work = async move { vfs.set_attributes(ino(node), &set).await };
        self.dispatch.answer("setattr", reply, work, move |reply, seen| {
            reply.attr(&ttl, &file_attr(&seen));
        });
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        let vfs = self.vfs.clone();
        let work = async move { vfs.read_link(ino(node)).await };
        self.dispatch.answer("readlink", reply, work, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (vfs, name, caller) =
            (self.vfs.clone(), name.as_bytes().to_vec(), caller(request, umask));
        self.entry("mknod", reply, async move {
            vfs.mknod(&caller, ino(parent), &name, mode, rdev).await
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (vfs, name, caller) =
            (self.vfs.clone(), name.as_bytes().to_vec(), caller(request, umask));
        self.entry(
            "mkdir",
            reply,
            async move { vfs.mkdir(&caller, ino(parent), &name, mode).await },
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (self.vfs.clone(), name.as_bytes().to_vec());
        self.empty("unlink", reply, async move { vfs.unlink(ino(parent), &name).await });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (self.vfs.clone(), name.as_bytes().to_vec());
        self.empty("rmdir", reply, async move { vfs.rmdir(ino(parent), &name).await });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (vfs, name, caller) = (self.vfs.clone(), name.as_bytes().to_vec(), caller(request, 0));
        let target = target.as_os_str().as_bytes().to_vec();
        self.entry("symlink", reply, async move {
            vfs.symlink(&caller, ino(parent), &name, &target).await
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = rename_mode(flags) else { return reply.error(Errno::EINVAL) };
        let (vfs, from, to) =
            (self.vfs.clone(), name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        self.empty("rename", reply, async move {
            vfs.rename((ino(parent), &from), (ino(new_parent), &to), mode).await
        });
    }

    fn link(
        &self,
        _: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (vfs, name) = (self.vfs.clone(), new_name.as_bytes().to_vec());
        self.entry("link", reply, async move { vfs.link(ino(node), ino(new_parent), &name).await });
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (vfs, how) = (self.vfs.clone(), self.open_flags());
        let flags = Open::from_bits(flags.0);
        let work = async move { vfs.open(ino(node), flags).await };
        self.dispatch
            .answer("open", reply, work, move |reply, id| reply.opened(FileHandle(id.0), how));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (vfs, name, caller) =
            (self.vfs.clone(), name.as_bytes().to_vec(), caller(request, umask));
        let (ttl, how) = (self.ttl(), self.open_flags());
        let flags = Open::from_bits(flags);
        let work = async move { vfs.create(&caller, ino(parent), &name, mode, flags).await };
        self.dispatch.answer("create", reply, work, move |reply, (seen, id)| {
            reply.created(&ttl, &file_attr(&seen), GENERATION, FileHandle(id.0), how);
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let vfs = self.vfs.clone();
        let work = async move { vfs.read_data(handle(fh), offset, size).await };
        self.dispatch.answer("read", reply, work, |reply, bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // A page of an `mmap` goes where it lies, whatever the flags of the handle that the kernel picked.
        let is_page = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let at = if flags.0 & libc::O_APPEND != 0 && !is_page {
            WriteAt::End
        } else {
            WriteAt::Offset(offset)
        };
        let (vfs, id) = (self.vfs.clone(), handle(fh));
        let taken = self.dispatch.now(|| vfs.take(id, at, data).now_or_never());
        let data = if taken.is_none() { data.to_vec() } else { Vec::new() };
        let work = async move {
            let taken = match taken {
                Some(taken) => taken?,
                None => vfs.take(id, at, &data).await?,
            };
            vfs.settle(id, taken).await
        };
        self.dispatch.answer("write", reply, work, |reply, length| reply.written(length));
    }

    fn flush(&self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let vfs = self.vfs.clone();
        self.empty("flush", reply, async move { vfs.flush(handle(fh)).await });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let vfs = self.vfs.clone();
        self.empty("release", reply, async move { vfs.release(handle(fh)).await });
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        let vfs = self.vfs.clone();
        self.empty("fsync", reply, async move { vfs.fsync(handle(fh)).await });
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let vfs = self.vfs.clone();
        self.empty("fsyncdir", reply, async move { vfs.fsync_directory().await });
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let vfs = self.vfs.clone();
        let work = async move { vfs.read_dir(ino(node), offset, DIR_BATCH).await };
        self.dispatch.answer("readdir", reply, work, |mut reply, list| {
            for entry in list {
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(INodeNo(entry.ino.0), entry.cookie, kind(entry.kind), name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (vfs, ttl) = (self.vfs.clone(), self.ttl());
        let work = async move { vfs.read_dir_plus(ino(node), offset, DIR_BATCH).await };
        self.dispatch.answer("readdirplus", reply, work, move |mut reply, list| {
            for entry in list {
                let name = OsStr::from_bytes(&entry.name);
                let Some(seen) = &entry.attributes else { continue };
                let id = INodeNo(entry.ino.0);
                if reply.add(id, entry.cookie, name, &ttl, &file_attr(seen), GENERATION) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let vfs = self.vfs.clone();
        let work = async move { vfs.space().await };
        self.dispatch.answer("statfs", reply, work, |reply, space| {
            let block = u32::try_from(space.block).unwrap_or(4096);
            let longest = NAME_MAX as u32;
            let (blocks, free) = (space.blocks, space.free);
            reply.statfs(
                blocks,
                free,
                free,
                space.inodes,
                space.free_inodes,
                block,
                longest,
                block,
            );
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let (vfs, name, value) = (self.vfs.clone(), name.as_bytes().to_vec(), value.to_vec());
        self.empty("setxattr", reply, async move {
            vfs.set_xattr(ino(node), &name, &value, flags).await
        });
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (vfs, name) = (self.vfs.clone(), name.as_bytes().to_vec());
        self.xattr("getxattr", size, reply, async move { vfs.xattr(ino(node), &name).await });
    }

    fn listxattr(&self, _: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let vfs = self.vfs.clone();
        self.xattr("listxattr", size, reply, async move {
            let names = vfs.xattrs(ino(node)).await?;
            let with_nul = |name: Vec<u8>| name.into_iter().chain([0]);
            Ok(names.into_iter().flat_map(with_nul).collect())
        });
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (self.vfs.clone(), name.as_bytes().to_vec());
        self.empty("removexattr", reply, async move { vfs.remove_xattr(ino(node), &name).await });
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let vfs = self.vfs.clone();
        self.empty("fallocate", reply, async move {
            vfs.allocate(handle(fh), mode, offset..offset.saturating_add(length)).await
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL), // the others the kernel does itself
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let vfs = self.vfs.clone();
        let work = async move { vfs.seek(handle(fh), offset, what).await };
        self.dispatch.answer("lseek", reply, work, |reply, at| {
            reply.offset(i64::try_from(at).unwrap_or(i64::MAX));
        });
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let vfs = self.vfs.clone();
        let work = async move {
            vfs.copy_range((handle(from), from_offset), (handle(to), to_offset), length).await
        };
        self.dispatch.answer("copy_file_range", reply, work, |reply, copied| {
            reply.written(u32::try_from(copied).unwrap_or(u32::MAX));
        });
    }
}
