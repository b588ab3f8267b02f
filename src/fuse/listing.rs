//! Listings of directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{FileHandle, FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::decode::{ino, kind, moves_atime};
use super::filesystem::{GENERATION, VaultFs};
use super::operation::Operation;
use super::rooms::{Room, Rooms, attr_in, tagged};
use crate::types::InodeNo;

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
        if let (Room::List, Some(rooms)) = (self.room(&op), self.rooms.clone()) {
            let work = async move { rooms.entries(offset).await };
            return self.dispatch.answer(op, reply, work, |mut reply, list| {
                for (cookie, number, name) in list {
                    let name = OsStr::from_bytes(&name);
                    if reply.add(INodeNo(number), cookie, FileType::Directory, name) {
                        break;
                    }
                }
                reply.ok();
            });
        }
        let Some((vfs, room, reply)) = self.inside(&op, reply) else { return };
        let work = async move {
            if offset == 0 && moves_atime(fh) {
                vfs.note_listing(ino(node)).await?;
            }
            vfs.read_dir(ino(node), offset, DIR_BATCH).await
        };
        self.dispatch.answer(op, reply, work, move |mut reply, list| {
            for entry in list {
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(INodeNo(tagged(room, entry.ino)), entry.cookie, kind(entry.kind), name)
                {
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
        if let (Room::List, Some(rooms)) = (self.room(&op), self.rooms.clone()) {
            let vfs = self.vfs.clone();
            let work = async move {
                let root = vfs.attributes(InodeNo::ROOT).await?;
                Ok((rooms.entries(offset).await?, root))
            };
            let shown = self.shown;
            return self.dispatch.answer(op, reply, work, move |mut reply, (list, root)| {
                for (cookie, number, name) in list {
                    let (id, name) = (INodeNo(number), OsStr::from_bytes(&name));
                    let attr = shown.of(Rooms::entry_attr(&root, number));
                    if reply.add(id, cookie, name, &Duration::ZERO, &attr, GENERATION) {
                        break;
                    }
                }
                reply.ok();
            });
        }
        let Some((vfs, room, reply)) = self.inside(&op, reply) else { return };
        let (ttl, shown) = (self.ttl(), self.shown);
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
                let id = INodeNo(tagged(room, entry.ino));
                let attr = shown.of(attr_in(room, &seen));
                if reply.add(id, entry.cookie, name, &ttl, &attr, GENERATION) {
                    break; // this one, and what is after it, the kernel is not told
                }
                seen.told();
            }
            reply.ok();
        });
    }
}
