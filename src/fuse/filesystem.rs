//! The vault as fuser sees it, with one function for each kind of reply. `ops.rs` maps the requests to them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, OpenFlags, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, WriteFlags,
};
use futures_util::FutureExt;
use tokio::sync::watch;

use super::decode::{handle, ino, nothing};
use super::dispatch::Dispatch;
use super::operation::Operation;
use super::reply::{Fails, refuse};
use super::shown::ShownAs;
use super::snapshot_states::{NAME, NodePlace, SnapshotStates, attr_in, tag_of};
use crate::types::InodeNo;
use crate::vfs::{
    Attributes, Error, HandleId, Known, NAME_MAX, OpenFlags as Open, Result, Seek, TakenWrite, Vfs,
    WriteAt,
};

/// How long the kernel may answer from its own memory. Only the writer's mount changes the vault: its changes pass
/// through the kernel, which keeps its memory right, or the kernel is told (`notify`). So this only bounds the age.
const TTL_WRITER: Duration = Duration::from_secs(3600);
/// The same for a read-only mount, which follows what another machine writes.
const TTL_READER: Duration = Duration::from_secs(1);

/// Inode numbers are never reused, so the generation is constant.
pub(super) const GENERATION: Generation = Generation(0);

/// Takes the bytes of a write. If `loses` is set, first removes setuid and setgid from that file.
async fn take_bytes(
    vfs: &Vfs,
    loses: Option<InodeNo>,
    (handle, at): (HandleId, WriteAt),
    data: &[u8],
) -> Result<TakenWrite> {
    if let Some(ino) = loses {
        vfs.lose_set_id(ino).await?;
    }
    vfs.take(handle, at, data).await
}

/// A vault as a file system, as fuser calls it.
pub(super) struct VaultFs {
    pub(super) vfs: Vfs,
    /// Old states of the vault, if the mount shows them.
    pub(super) states: Option<Arc<SnapshotStates>>,
    pub(super) dispatch: Dispatch,
    pub(super) is_reader: bool,
    pub(super) shown: ShownAs,
    /// Set when the session has ended.
    pub(super) ended: watch::Sender<bool>,
}

impl VaultFs {
    pub(super) fn new(
        vfs: Vfs,
        states: Option<Arc<SnapshotStates>>,
        dispatch: Dispatch,
        ended: watch::Sender<bool>,
        shown: ShownAs,
    ) -> Self {
        let is_reader = vfs.options().read_only;
        Self { vfs, states, dispatch, is_reader, shown, ended }
    }

    /// The state (`snapshot_states.rs`) that a request belongs to, by its inode number.
    pub(super) fn place_of(&self, op: &Operation) -> NodePlace {
        match (&self.states, tag_of(op.ino)) {
            (_, 0) => NodePlace::In(self.vfs.clone(), 0),
            (Some(states), _) => states.find(op.ino),
            (None, _) => NodePlace::Gone,
        }
    }

    /// The file system that a request is for, and its tag. If there is none, refuses the request.
    pub(super) fn inside<R: Fails>(&self, op: &Operation, reply: R) -> Option<(Vfs, u16, R)> {
        self.inside_or(op, reply, Errno::EROFS)
    }

    /// As `inside`; the directory of the snapshots, which lies in no file system, answers with `in_list`.
    fn inside_or<R: Fails>(
        &self,
        op: &Operation,
        reply: R,
        in_list: Errno,
    ) -> Option<(Vfs, u16, R)> {
        match self.place_of(op) {
            NodePlace::In(vfs, tag) => return Some((vfs, tag, reply)),
            NodePlace::List => refuse(op, reply, in_list),
            NodePlace::Gone => refuse(op, reply, Errno::ESTALE),
        }
        None
    }

    pub(super) fn ttl(&self) -> Duration {
        if self.is_reader { TTL_READER } else { TTL_WRITER }
    }

    /// Keeps the page cache across opens: a writer's is always right, and `AUTO_INVAL_DATA` drops what is stale in a
    /// reader's. A handle that cannot write has nothing to flush, which saves a request at its close.
    pub(super) fn open_flags(&self, flags: Open) -> FopenFlags {
        let mut how = FopenFlags::empty();
        how.set(FopenFlags::FOPEN_KEEP_CACHE, !self.is_reader);
        how.set(FopenFlags::FOPEN_NOFLUSH, !flags.write);
        how
    }

    pub(super) fn entry<F>(&self, op: Operation, reply: ReplyEntry, work: impl FnOnce(Vfs) -> F)
    where
        F: Future<Output = Result<Known>> + Send + 'static,
    {
        let Some((vfs, tag, reply)) = self.inside(&op, reply) else { return };
        let (work, ttl, shown) = (work(vfs), self.ttl(), self.shown);
        self.dispatch.answer(op, reply, work, move |reply, seen| {
            reply.entry(&ttl, &shown.of(attr_in(tag, &seen.told())), GENERATION);
        });
    }

    pub(super) fn empty<F>(&self, op: Operation, reply: ReplyEmpty, work: impl FnOnce(Vfs) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let Some((vfs, _, reply)) = self.inside(&op, reply) else { return };
        self.dispatch.answer(op, reply, work(vfs), |reply, ()| reply.ok());
    }

    pub(super) fn data<B, F>(&self, op: Operation, reply: ReplyData, work: impl FnOnce(Vfs) -> F)
    where
        B: AsRef<[u8]> + Send + 'static,
        F: Future<Output = Result<B>> + Send + 'static,
    {
        let Some((vfs, _, reply)) = self.inside(&op, reply) else { return };
        self.dispatch.answer(op, reply, work(vfs), |reply, bytes| reply.data(bytes.as_ref()));
    }

    pub(super) fn attributes<F>(&self, op: Operation, reply: ReplyAttr, work: impl FnOnce(Vfs) -> F)
    where
        F: Future<Output = Result<Attributes>> + Send + 'static,
    {
        let Some((vfs, tag, reply)) = self.inside(&op, reply) else { return };
        let (work, ttl, shown) = (work(vfs), self.ttl(), self.shown);
        self.dispatch.answer(op, reply, work, move |reply, seen| {
            reply.attr(&ttl, &shown.of(attr_in(tag, &seen)));
        });
    }

    pub(super) fn xattr<F>(
        &self,
        op: Operation,
        size: u32,
        reply: ReplyXattr,
        work: impl FnOnce(Vfs) -> F,
    ) where
        F: Future<Output = Result<Vec<u8>>> + Send + 'static,
    {
        let Some((vfs, _, reply)) = self.inside_or(&op, reply, Errno::EOPNOTSUPP) else { return };
        self.dispatch.answer(op, reply, work(vfs), move |reply, value| {
            match u32::try_from(value.len()) {
                Ok(length) if size == 0 => reply.size(length),
                Ok(length) if length <= size => reply.data(&value),
                _ => reply.error(Errno::ERANGE),
            }
        });
    }

    /// The session has ended: the kernel knows no inode any more.
    pub(super) fn over(&self) {
        self.vfs.nobody_listens();
        let vfs = self.vfs.clone();
        let op = Operation::new("destroy", 0, InodeNo::ROOT.0);
        self.dispatch.tend(op, async move { vfs.forget_all().await });
        self.ended.send_replace(true);
    }

    /// `forget`: the kernel forgets an inode that it was told of.
    pub(super) fn forgotten(&self, op: Operation, node: INodeNo, times: u64) {
        // Old states do not change, so nothing depends on what the kernel knows of them.
        if tag_of(node.0) != 0 {
            return;
        }
        // For most inodes nothing is left to do.
        match self.dispatch.tend_now(&op, || self.vfs.forget(ino(node), times)) {
            None => op.done(),
            Some(departure) => {
                let vfs = self.vfs.clone();
                self.dispatch.tend(op, async move { vfs.depart(departure).await });
            }
        }
    }

    /// `lookup`. The kernel also remembers that a name is not there.
    pub(super) fn look_up(&self, op: Operation, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (states, name) = (self.states.clone(), name.as_bytes().to_vec());
        if let (NodePlace::List, Some(states)) = (self.place_of(&op), states.clone()) {
            let work = async move { states.enter(&name).await };
            return self.dispatch.answer(op, reply, work, |reply, attr| {
                reply.entry(&TTL_READER, &attr, GENERATION);
            });
        }
        let Some((vfs, tag, reply)) = self.inside(&op, reply) else { return };
        let (ttl, shown, parent) = (self.ttl(), self.shown, ino(parent));
        let leads_back = tag == 0 && states.is_some() && parent == InodeNo::ROOT && name == NAME;
        let work = async move {
            match vfs.lookup(parent, &name).await {
                Ok(seen) => Ok((shown.of(attr_in(tag, &seen.told())), ttl)),
                // An entry of the vault's own with this name takes precedence.
                Err(Error::NotFound) if leads_back => {
                    let root = vfs.attributes(parent).await?;
                    Ok((shown.of(SnapshotStates::list_attr(&root)), TTL_READER))
                }
                Err(Error::NotFound) => Ok((nothing(), ttl)),
                Err(error) => Err(error),
            }
        };
        self.dispatch.answer(op, reply, work, |reply, (attr, ttl)| {
            reply.entry(&ttl, &attr, GENERATION);
        });
    }

    /// `getattr`.
    pub(super) fn attributes_of(&self, op: Operation, node: INodeNo, reply: ReplyAttr) {
        if let NodePlace::List = self.place_of(&op) {
            return self.list_attributes(op, reply);
        }
        self.attributes(op, reply, move |vfs| async move { vfs.attributes(ino(node)).await });
    }

    /// `getattr` of the directory of the snapshots.
    fn list_attributes(&self, op: Operation, reply: ReplyAttr) {
        let vfs = self.vfs.clone();
        let shown = self.shown;
        let work = async move { vfs.attributes(InodeNo::ROOT).await };
        self.dispatch.answer(op, reply, work, move |reply, root| {
            reply.attr(&TTL_READER, &shown.of(SnapshotStates::list_attr(&root)));
        });
    }

    /// `open`. Files of old states are opened for reading only.
    pub(super) fn open_file(&self, op: Operation, node: INodeNo, flags: Open, reply: ReplyOpen) {
        let Some((vfs, tag, reply)) = self.inside(&op, reply) else { return };
        if tag != 0 && flags.write {
            return refuse(&op, reply, Errno::EROFS);
        }
        let (how, states) = (self.open_flags(flags), self.states.clone().filter(|_| tag != 0));
        let work = async move { vfs.open(ino(node), flags).await };
        self.dispatch.answer(op, reply, work, move |reply, id| {
            if let Some(states) = states {
                states.file_opened(node.0);
            }
            reply.opened(FileHandle(id.0), how);
        });
    }

    /// `release`.
    pub(super) fn release_file(&self, op: Operation, fh: FileHandle, reply: ReplyEmpty) {
        if let (1.., Some(states)) = (tag_of(op.ino), &self.states) {
            states.file_closed(op.ino);
        }
        self.empty(op, reply, move |vfs| async move { vfs.release(handle(fh)).await });
    }

    /// For `rename` and `link`: refuses with EXDEV unless both inodes are in the same state.
    pub(super) fn same_state<R: Fails>(
        &self,
        op: &Operation,
        other: INodeNo,
        reply: R,
    ) -> Option<R> {
        if tag_of(op.ino) == tag_of(other.0) {
            return Some(reply);
        }
        refuse(op, reply, Errno::EXDEV);
        None
    }

    /// `write`: taken from the request's own buffer if there is room at once; copied only if it has to wait.
    pub(super) fn write_bytes(
        &self,
        op: Operation,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        (write_flags, flags): (WriteFlags, OpenFlags),
        reply: ReplyWrite,
    ) {
        // A page written back from an `mmap` goes to its offset, whatever the flags of the handle that the kernel
        // picked.
        let is_page = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let at = if flags.0 & libc::O_APPEND != 0 && !is_page {
            WriteAt::End
        } else {
            WriteAt::Offset(offset)
        };
        let Some((vfs, tag, reply)) = self.inside(&op, reply) else { return };
        if tag != 0 {
            return refuse(&op, reply, Errno::EROFS);
        }
        let id = handle(fh);
        let loses =
            write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID).then_some(InodeNo(op.ino));
        let taken =
            self.dispatch.now(&op, || take_bytes(&vfs, loses, (id, at), data).now_or_never());
        let data = if taken.is_none() { data.to_vec() } else { Vec::new() };
        let work = async move {
            let taken = match taken {
                Some(taken) => taken?,
                None => take_bytes(&vfs, loses, (id, at), &data).await?,
            };
            vfs.settle(id, taken).await
        };
        self.dispatch.answer(op, reply, work, ReplyWrite::written);
    }

    /// `listxattr`. As on a local disk, only the superuser sees `trusted.` names, which nobody else can use.
    pub(super) fn list_xattrs(
        &self,
        op: Operation,
        (node, is_superuser): (INodeNo, bool),
        size: u32,
        reply: ReplyXattr,
    ) {
        self.xattr(op, size, reply, move |vfs| async move {
            let is_shown = |name: &Vec<u8>| is_superuser || !name.starts_with(b"trusted.");
            let names = vfs.xattrs(ino(node)).await?.into_iter().filter(is_shown);
            Ok(names.flat_map(|name| name.into_iter().chain([0])).collect())
        });
    }

    /// `lseek` for data and holes; the kernel does the rest itself.
    pub(super) fn seek(
        &self,
        op: Operation,
        fh: FileHandle,
        (offset, whence): (i64, i32),
        reply: ReplyLseek,
    ) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return refuse(&op, reply, Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return refuse(&op, reply, Errno::ENXIO) };
        let Some((vfs, _, reply)) = self.inside(&op, reply) else { return };
        let work = async move { vfs.seek(handle(fh), offset, what).await };
        self.dispatch.answer(op, reply, work, |reply, at| {
            reply.offset(i64::try_from(at).unwrap_or(i64::MAX));
        });
    }

    /// `statfs`.
    pub(super) fn space(&self, op: Operation, reply: ReplyStatfs) {
        let vfs = match self.place_of(&op) {
            NodePlace::In(vfs, _) => vfs,
            NodePlace::List | NodePlace::Gone => self.vfs.clone(),
        };
        let work = async move { vfs.space().await };
        self.dispatch.answer(op, reply, work, |reply, space| {
            let block = u32::try_from(space.block).unwrap_or(4096);
            let longest = u32::try_from(NAME_MAX).unwrap_or(u32::MAX);
            let (blocks, free) = (space.blocks, space.free);
            let (inodes, free_inodes) = (space.inodes, space.free_inodes);
            reply.statfs(blocks, free, free, inodes, free_inodes, block, longest, block);
        });
    }
}
