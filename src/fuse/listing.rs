//! Listings of directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{FileHandle, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::decode::{file_attr, ino, kind, moves_atime};
use super::filesystem::{GENERATION, VaultFs};
use super::operation::Operation;

/// Entries asked of the vfs for one reply; what a page (4 KiB, or 128 KiB for a large buffer) holds of short names.
const DIR_BATCH: usize = 128;

impl VaultFs {
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
