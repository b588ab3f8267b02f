//! The kernel's requests, one function each: decode, call the vfs, reply.

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
use super::filesystem::{GENERATION, VaultFs};
use super::operation::Operation;
use super::reply::refuse;
use super::set_id::takes_set_id;
use crate::vfs::{OpenFlags as Open, SetAttributes};

impl Filesystem for VaultFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        configure(config, self.is_reader, self.vfs.has_inodes_here());
        Ok(())
    }

    fn destroy(&mut self) {
        self.over();
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.look_up(Operation::of("lookup", request, parent), parent, name, reply);
    }

    fn forget(&self, request: &Request, node: INodeNo, times: u64) {
        self.forgotten(Operation::of("forget", request, node), node, times);
    }

    fn getattr(&self, request: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.attributes_of(Operation::of("getattr", request, node), node, reply);
    }

    fn setattr(
        &self,
        request: &Request,
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
        let op = Operation::of("setattr", request, node);
        let (pid, loses_set_id) = (request.pid(), false);
        // A setattr without attributes: before a write, the kernel sends it only to remove setuid and setgid. Its reply
        // tells the kernel that they are gone, before the write itself is sent.
        let is_of_nothing = (mode, uid, gid, size, atime, mtime) == Default::default();
        let mut set = SetAttributes {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            loses_set_id,
        };
        self.attributes(op, reply, move |vfs| async move {
            set.loses_set_id =
                (size.is_some() || is_of_nothing) && takes_set_id(&vfs, ino(node), pid).await?;
            vfs.set_attributes(ino(node), &set).await
        });
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let op = Operation::of("readlink", request, node);
        self.data(op, reply, move |vfs| async move { vfs.read_link(ino(node)).await });
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
        let op = Operation::of("mknod", request, parent);
        let (name, caller) = (name.as_bytes().to_vec(), caller(request, umask));
        self.entry(op, reply, move |vfs| async move {
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
        let op = Operation::of("mkdir", request, parent);
        let (name, caller) = (name.as_bytes().to_vec(), caller(request, umask));
        self.entry(op, reply, move |vfs| async move {
            vfs.mkdir(&caller, ino(parent), &name, mode).await
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let op = Operation::of("unlink", request, parent);
        let name = name.as_bytes().to_vec();
        self.empty(op, reply, move |vfs| async move { vfs.unlink(ino(parent), &name).await });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let op = Operation::of("rmdir", request, parent);
        let name = name.as_bytes().to_vec();
        self.empty(op, reply, move |vfs| async move { vfs.rmdir(ino(parent), &name).await });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let op = Operation::of("symlink", request, parent);
        let (name, caller) = (name.as_bytes().to_vec(), caller(request, 0));
        let target = target.as_os_str().as_bytes().to_vec();
        self.entry(op, reply, move |vfs| async move {
            vfs.symlink(&caller, ino(parent), &name, &target).await
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let op = Operation::of("rename", request, parent);
        let Some(mode) = rename_mode(flags) else { return refuse(&op, reply, Errno::EINVAL) };
        let Some(reply) = self.same_state(&op, new_parent, reply) else { return };
        let (from, to) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        self.empty(op, reply, move |vfs| async move {
            vfs.rename((ino(parent), &from), (ino(new_parent), &to), mode).await
        });
    }

    fn link(
        &self,
        request: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let op = Operation::of("link", request, node);
        let Some(reply) = self.same_state(&op, new_parent, reply) else { return };
        let name = new_name.as_bytes().to_vec();
        self.entry(op, reply, move |vfs| async move {
            vfs.link(ino(node), ino(new_parent), &name).await
        });
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let op = Operation::of("open", request, node);
        self.open_file(op, node, Open::from_bits(flags.0), reply);
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
        let op = Operation::of("create", request, parent);
        let Some((vfs, tag, reply)) = self.inside(&op, reply) else { return };
        if tag != 0 {
            return refuse(&op, reply, Errno::EROFS);
        }
        let (name, caller) = (name.as_bytes().to_vec(), caller(request, umask));
        let flags = Open::from_bits(flags);
        let (ttl, how, shown) = (self.ttl(), self.open_flags(flags), self.shown);
        let work = async move { vfs.create(&caller, ino(parent), &name, mode, flags).await };
        self.dispatch.answer(op, reply, work, move |reply, (seen, id)| {
            let attr = shown.of(file_attr(&seen.told()));
            reply.created(&ttl, &attr, GENERATION, FileHandle(id.0), how);
        });
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let op = Operation::of("read", request, node);
        self.data(
            op,
            reply,
            move |vfs| async move { vfs.read_data(handle(fh), offset, size).await },
        );
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let op = Operation::of("write", request, node);
        self.write_bytes(op, fh, offset, data, (write_flags, flags), reply);
    }

    fn flush(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        let op = Operation::of("flush", request, node);
        self.empty(op, reply, move |vfs| async move { vfs.flush(handle(fh)).await });
    }

    fn release(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let op = Operation::of("release", request, node);
        self.release_file(op, fh, reply);
    }

    fn fsync(&self, request: &Request, node: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        let op = Operation::of("fsync", request, node);
        self.empty(op, reply, move |vfs| async move { vfs.fsync(handle(fh)).await });
    }

    fn fsyncdir(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let op = Operation::of("fsyncdir", request, node);
        self.empty(op, reply, move |vfs| async move { vfs.fsync_directory().await });
    }

    fn opendir(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        drop(Operation::of("opendir", request, node));
        reply.opened(directory_handle(flags), FopenFlags::empty());
    }

    fn readdir(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let op = Operation::of("readdir", request, node);
        self.list(op, node, fh, offset, reply);
    }

    fn readdirplus(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let op = Operation::of("readdirplus", request, node);
        self.list_plus(op, node, fh, offset, reply);
    }

    fn statfs(&self, request: &Request, node: INodeNo, reply: ReplyStatfs) {
        self.space(Operation::of("statfs", request, node), reply);
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
        let op = Operation::of("setxattr", request, node);
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        let by = setter(request, &name);
        self.empty(op, reply, move |vfs| async move {
            vfs.set_xattr(ino(node), &name, &value, flags, &by).await
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let op = Operation::of("getxattr", request, node);
        let name = name.as_bytes().to_vec();
        self.xattr(op, size, reply, move |vfs| async move { vfs.xattr(ino(node), &name).await });
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let op = Operation::of("listxattr", request, node);
        self.list_xattrs(op, (node, request.uid() == 0), size, reply);
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let op = Operation::of("removexattr", request, node);
        let name = name.as_bytes().to_vec();
        self.empty(op, reply, move |vfs| async move { vfs.remove_xattr(ino(node), &name).await });
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let op = Operation::of("fallocate", request, node);
        let pid = request.pid();
        self.empty(op, reply, move |vfs| async move {
            if takes_set_id(&vfs, ino(node), pid).await? {
                vfs.lose_set_id(ino(node)).await?;
            }
            vfs.allocate(handle(fh), mode, offset..offset.saturating_add(length)).await
        });
    }

    fn lseek(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let op = Operation::of("lseek", request, node);
        self.seek(op, fh, (offset, whence), reply);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        node: INodeNo,
        from: FileHandle,
        from_offset: u64,
        to_node: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let op = Operation::of("copy_file_range", request, node);
        // After EXDEV, programs copy the bytes themselves.
        let Some(reply) = self.same_state(&op, to_node, reply) else { return };
        let Some((vfs, _, reply)) = self.inside(&op, reply) else { return };
        let pid = request.pid();
        let work = async move {
            if takes_set_id(&vfs, ino(to_node), pid).await? {
                vfs.lose_set_id(ino(to_node)).await?;
            }
            vfs.copy_range((handle(from), from_offset), (handle(to), to_offset), length).await
        };
        self.dispatch.answer(op, reply, work, |reply, copied| {
            reply.written(u32::try_from(copied).unwrap_or(u32::MAX));
        });
    }
}
