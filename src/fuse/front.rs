//! What fuser calls, and how answers of a kind are given.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, OpenFlags, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr, WriteFlags,
};
use futures_util::FutureExt;
use tokio::sync::watch;

use super::decode::{file_attr, handle, ino, kind, moves_atime, nothing};
use super::dispatch::Dispatch;
use super::operation::Operation;
use crate::types::InodeNo;
use crate::vfs::{Error, Known, OpenFlags as Open, Result, Vfs, WriteAt};

/// For how long the kernel may answer from its own memory. A writer's mount is the only one that changes the vault. Its
/// changes pass the kernel, which keeps what it knows right, or the kernel is told (`notify`); so this only bounds its
/// memory's age.
const TTL_WRITER: Duration = Duration::from_secs(3600);
/// A read-only mount follows what another machine writes.
const TTL_READER: Duration = Duration::from_secs(1);

/// Inode numbers are never given twice, so a generation says nothing.
pub(super) const GENERATION: Generation = Generation(0);

/// Entries asked of the vfs for one reply; what a page (4 KiB, or 128 KiB for a large buffer) holds of short names.
const DIR_BATCH: usize = 128;

/// What fuser calls.
pub(super) struct Front {
    pub(super) vfs: Vfs,
    pub(super) dispatch: Dispatch,
    pub(super) is_reader: bool,
    /// Says that the session is over.
    pub(super) ended: watch::Sender<bool>,
}

impl Front {
    pub(super) fn new(vfs: Vfs, dispatch: Dispatch, ended: watch::Sender<bool>) -> Self {
        let is_reader = vfs.options().read_only;
        Self { vfs, dispatch, is_reader, ended }
    }

    pub(super) fn ttl(&self) -> Duration {
        if self.is_reader { TTL_READER } else { TTL_WRITER }
    }

    /// Page cache across opens: for a writer's mount always right, for a reader's what `AUTO_INVAL_DATA` finds stale
    /// goes. Whoever cannot write has nothing to flush: its close is one request less.
    pub(super) fn open_flags(&self, flags: Open) -> FopenFlags {
        let mut how = FopenFlags::empty();
        how.set(FopenFlags::FOPEN_KEEP_CACHE, !self.is_reader);
        how.set(FopenFlags::FOPEN_NOFLUSH, !flags.write);
        how
    }

    pub(super) fn entry<F>(&self, op: Operation, reply: ReplyEntry, work: F)
    where
        F: Future<Output = Result<Known>> + Send + 'static,
    {
        let ttl = self.ttl();
        self.dispatch.answer(op, reply, work, move |reply, seen| {
            reply.entry(&ttl, &file_attr(&seen.told()), GENERATION);
        });
    }

    pub(super) fn empty<F>(&self, op: Operation, reply: ReplyEmpty, work: F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.dispatch.answer(op, reply, work, |reply, ()| reply.ok());
    }

    pub(super) fn xattr<F>(&self, op: Operation, size: u32, reply: ReplyXattr, work: F)
    where
        F: Future<Output = Result<Vec<u8>>> + Send + 'static,
    {
        self.dispatch.answer(op, reply, work, move |reply, value| {
            match u32::try_from(value.len()) {
                Ok(length) if size == 0 => reply.size(length),
                Ok(length) if length <= size => reply.data(&value),
                _ => reply.error(Errno::ERANGE),
            }
        });
    }

    /// The session has ended.
    pub(super) fn over(&self) {
        self.vfs.nobody_listens();
        let vfs = self.vfs.clone();
        let op = Operation::new("destroy", 0, InodeNo::ROOT.0);
        self.dispatch.tend(op, async move { vfs.forget_all().await });
        self.ended.send_replace(true);
    }

    /// The kernel forgets what it was told of.
    pub(super) fn forgotten(&self, op: Operation, node: INodeNo, times: u64) {
        let vfs = self.vfs.clone();
        self.dispatch.tend(op, async move { vfs.forget(ino(node), times).await });
    }

    /// `lookup`; that a name is not there is remembered by the kernel too.
    pub(super) fn look_up(&self, op: Operation, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (vfs, name, ttl) = (self.vfs.clone(), name.as_bytes().to_vec(), self.ttl());
        let work = async move {
            match vfs.lookup(ino(parent), &name).await {
                Ok(seen) => Ok(Some(seen)),
                Err(Error::NotFound) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.dispatch.answer(op, reply, work, move |reply, seen| {
            let attr = seen.map_or_else(nothing, |seen| file_attr(&seen.told()));
            reply.entry(&ttl, &attr, GENERATION);
        });
    }

    /// `write`: taken from the request's own buffer if there is room at once; copied only to wait for it.
    pub(super) fn write_bytes(
        &self,
        op: Operation,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        (write_flags, flags): (WriteFlags, OpenFlags),
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
        let taken = self.dispatch.now(&op, || vfs.take(id, at, data).now_or_never());
        let data = if taken.is_none() { data.to_vec() } else { Vec::new() };
        let work = async move {
            let taken = match taken {
                Some(taken) => taken?,
                None => vfs.take(id, at, &data).await?,
            };
            vfs.settle(id, taken).await
        };
        self.dispatch.answer(op, reply, work, ReplyWrite::written);
    }

    /// `readdir`.
    pub(super) fn list(
        &self,
        op: Operation,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let vfs = self.vfs.clone();
        let work = async move {
            if offset == 0 && moves_atime(fh) {
                vfs.note_listing(ino(node)).await?;
            }
            vfs.read_dir(ino(node), offset, DIR_BATCH).await
        };
        self.dispatch.answer(op, reply, work, |mut reply, list| {
            for entry in list {
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(INodeNo(entry.ino.0), entry.cookie, kind(entry.kind), name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    /// `readdirplus`.
    pub(super) fn list_plus(
        &self,
        op: Operation,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (vfs, ttl) = (self.vfs.clone(), self.ttl());
        let work = async move {
            if offset == 0 && moves_atime(fh) {
                vfs.note_listing(ino(node)).await?;
            }
            vfs.read_dir_plus(ino(node), offset, DIR_BATCH).await
        };
        self.dispatch.answer(op, reply, work, move |mut reply, list| {
            for entry in list {
                let name = OsStr::from_bytes(&entry.name);
                let Some(seen) = entry.attributes else { continue };
                let id = INodeNo(entry.ino.0);
                if reply.add(id, entry.cookie, name, &ttl, &file_attr(&seen), GENERATION) {
                    break; // this one, and what is after it, the kernel is not told
                }
                seen.told();
            }
            reply.ok();
        });
    }
}
