//! The requests of the kernel: decode, call the vfs, reply.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::decode::{
    caller, configure, directory_handle, file_attr, handle, ino, rename_mode, set_time, setter,
};
use super::front::{Front, GENERATION};
use crate::vfs::{NAME_MAX, OpenFlags as Open, Seek, SetAttributes};

impl Filesystem for Front {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        configure(config, self.is_reader);
        Ok(())
    }

    fn destroy(&mut self) {
        self.over();
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.look_up(parent, name, reply);
    }

    fn forget(&self, _: &Request, node: INodeNo, times: u64) {
        self.forgotten(node, times);
    }

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
        let flags = Open::from_bits(flags.0);
        let (vfs, how) = (self.vfs.clone(), self.open_flags(flags));
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
        let flags = Open::from_bits(flags);
        let (ttl, how) = (self.ttl(), self.open_flags(flags));
        let work = async move { vfs.create(&caller, ino(parent), &name, mode, flags).await };
        self.dispatch.answer("create", reply, work, move |reply, (seen, id)| {
            reply.created(&ttl, &file_attr(&seen.told()), GENERATION, FileHandle(id.0), how);
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
        self.write_bytes(fh, offset, data, (write_flags, flags), reply);
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

    fn opendir(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(directory_handle(flags), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list(node, fh, offset, reply);
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list_plus(node, fh, offset, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let vfs = self.vfs.clone();
        let work = async move { vfs.space().await };
        self.dispatch.answer("statfs", reply, work, |reply, space| {
            let block = u32::try_from(space.block).unwrap_or(4096);
            let longest = u32::try_from(NAME_MAX).unwrap_or(u32::MAX);
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
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let (vfs, name, value) = (self.vfs.clone(), name.as_bytes().to_vec(), value.to_vec());
        let by = setter(request, &name);
        self.empty("setxattr", reply, async move {
            vfs.set_xattr(ino(node), &name, &value, flags, &by).await
        });
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (vfs, name) = (self.vfs.clone(), name.as_bytes().to_vec());
        self.xattr("getxattr", size, reply, async move { vfs.xattr(ino(node), &name).await });
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let (vfs, all) = (self.vfs.clone(), request.uid() == 0);
        self.xattr("listxattr", size, reply, async move {
            // As on a local disk, only the superuser sees those that are only the superuser's.
            let shown = |name: &Vec<u8>| all || !name.starts_with(b"trusted.");
            let names = vfs.xattrs(ino(node)).await?.into_iter().filter(shown);
            Ok(names.flat_map(|name| name.into_iter().chain([0])).collect())
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
