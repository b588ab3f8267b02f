//! Listing directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{Errno, FileHandle, FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use futures_util::FutureExt;
use parking_lot::Mutex;

use super::decode::{ino, kind, moves_atime};
use super::filesystem::{GENERATION, VaultFs};
use super::operation::Operation;
use super::reply::Fails;
use super::snapshot_states::{NodePlace, SnapshotStates, attr_in, tagged};
use crate::types::InodeNo;
use crate::vfs::{DirEntry, Known};

/// Entries asked of the vfs at once: about what 4 KiB hold of entries with short names.
const DIR_BATCH: usize = 128;
/// The same for entries with their attributes.
const FULL_BATCH: usize = 24;

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
        if let (NodePlace::List, Some(states)) = (self.place_of(&op), self.states.clone()) {
            let work = async move { states.entries(offset).await };
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
        let Some((vfs, tag, reply)) = self.inside(&op, reply) else { return };
        let work = async move {
            if offset == 0 && moves_atime(fh) {
                vfs.note_listing(ino(node)).await?;
            }
            vfs.read_dir(ino(node), offset, DIR_BATCH).await
        };
        self.dispatch.answer(op, reply, work, move |mut reply, list| {
            for entry in list {
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(INodeNo(tagged(tag, entry.ino)), entry.cookie, kind(entry.kind), name)
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
        if let (NodePlace::List, Some(states)) = (self.place_of(&op), self.states.clone()) {
            return self.list_rooms_plus(op, states, offset, reply);
        }
        let Some((vfs, tag, reply)) = self.inside(&op, reply) else { return };
        let (ttl, shown) = (self.ttl(), self.shown);
        let reply = FilledReply(Arc::new(Mutex::new(Some(reply))));
        let filled = reply.clone();
        let add =
            move |entry: &DirEntry, seen: &Known| {
                let name = OsStr::from_bytes(&entry.name);
                let (id, attr) = (INodeNo(tagged(tag, entry.ino)), shown.of(attr_in(tag, seen)));
                filled.0.lock().as_mut().is_some_and(|reply| {
                    !reply.add(id, entry.cookie, name, &ttl, &attr, GENERATION)
                })
            };
        let work = async move {
            if offset == 0 && moves_atime(fh) {
                vfs.note_listing(ino(node)).await?;
            }
            let (mut known, mut from) = (Vec::new(), offset);
            let mut list = vfs.read_dir_plus(ino(node), from, FULL_BATCH).await?;
            while !list.is_empty() {
                for mut entry in list {
                    let Some(seen) = entry.attributes.take() else { continue };
                    if !add(&entry, &seen) {
                        return Ok(known); // the kernel is not told of this one, nor of those after it
                    }
                    from = entry.cookie;
                    known.push(seen);
                }
                // Programs that list all names before they look at each (`find -ls`) ask one by one for entries that
                // the first reply did not hold, so it is filled with what is here. Entries that need a fetch come
                // with the next reply.
                let more = vfs.read_dir_at_hand(ino(node), from, DIR_BATCH).now_or_never();
                list = more.and_then(Result::ok).unwrap_or_default();
            }
            Ok(known)
        };
        self.dispatch.answer(op, reply, work, |reply, known| {
            for seen in known {
                seen.told();
            }
            if let Some(reply) = reply.0.lock().take() {
                reply.ok();
            }
        });
    }

    /// `readdirplus` of the directory of the snapshots.
    fn list_rooms_plus(
        &self,
        op: Operation,
        states: Arc<SnapshotStates>,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let vfs = self.vfs.clone();
        let work = async move {
            let root = vfs.attributes(InodeNo::ROOT).await?;
            Ok((states.entries(offset).await?, root))
        };
        let shown = self.shown;
        self.dispatch.answer(op, reply, work, move |mut reply, (list, root)| {
            for (cookie, number, name) in list {
                let (id, name) = (INodeNo(number), OsStr::from_bytes(&name));
                let attr = shown.of(SnapshotStates::entry_attr(&root, number));
                if reply.add(id, cookie, name, &Duration::ZERO, &attr, GENERATION) {
                    break;
                }
            }
            reply.ok();
        });
    }
}

/// A reply that is filled while entries are looked up: only the reply can tell when it is full.
#[derive(Clone)]
struct FilledReply(Arc<Mutex<Option<ReplyDirectoryPlus>>>);

impl Fails for FilledReply {
    fn fail(self, errno: Errno) {
        if let Some(reply) = self.0.lock().take() {
            reply.error(errno);
        }
    }
}
