//! Reading, writing and changing the length of files.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::timeout_at;

use crate::content::{self, Answers, File, Reservation, Took, extents};
use crate::index::View;
use crate::os;
use crate::records::Inode;
use crate::types::{Extent, InodeNo, Timestamp};

use super::attr::{self, SetAttributes};
use super::publish::publish_into;
use super::{Attributes, Error, HandleId, Result, SIZE_MAX, Vfs, acl, remove, request};

/// How often a read starts over because its bytes were overwritten meanwhile, and their pack was dropped unsent.
const LOOKS: usize = 8;

/// How long a write that waits for room may take before it looks again whether anything moves; longer than staging's
/// own wait.
const ROOM_WAIT: Duration = Duration::from_secs(35);

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAt {
    /// This many bytes from the beginning of the file.
    Offset(u64),
    /// The end (`O_APPEND`).
    End,
}

/// A write whose bytes have been taken; [`Vfs::settle`] finishes it.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct TakenWrite {
    length: u32,
    must_publish: bool,
}

/// Runs `work` to its end, and `other` beside it. `other` is first polled after `work`, and dropped when `work` is
/// done.
async fn beside<T>(work: impl Future<Output = T>, other: impl Future<Output = ()>) -> T {
    let (mut work, mut other) = (pin!(work), pin!(other));
    tokio::select! {
        biased;
        done = &mut work => {
            // If `work` never waited, `other` has not been polled yet: poll it once, so that it begins.
            _ = other.now_or_never();
            done
        }
        () = &mut other => work.await,
    }
}

impl Vfs {
    /// `read`: the bytes of a range, fewer at the end of the file.
    pub async fn read_data(&self, handle: HandleId, offset: u64, size: u32) -> Result<Bytes> {
        let handle = self.inner.handles.get(handle)?;
        if !handle.flags.read {
            return Err(Error::BadHandle);
        }
        let touches = !handle.flags.no_atime;
        let read = self.read_file(&handle.file, offset, size.into(), touches).await?;
        os::ProcessTally::ReadBytes.add(read.len() as u64);
        Ok(read)
    }

    async fn read_file(
        &self,
        file: &Arc<File>,
        offset: u64,
        size: u64,
        touches: bool,
    ) -> Result<Bytes> {
        for _ in 0..LOOKS {
            match self.read_once(file, offset, size, touches).await {
                Err(Error::Content(content::Error::Removed(_))) => {}
                done => return done,
            }
        }
        self.read_once(file, offset, size, touches).await
    }

    async fn read_once(
        &self,
        file: &Arc<File>,
        offset: u64,
        size: u64,
        touches: bool,
    ) -> Result<Bytes> {
        let ino = file.ino();
        let range = offset..offset.saturating_add(size).min(SIZE_MAX);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let window = file.window(range.clone());
        let wanted = window.start.min(range.start)..window.end.max(range.end);
        // What is unpublished first, then the map: what is published in between is then in both, rather than in
        // neither.
        let unpublished = file.unpublished();
        let overlay = file.overlay(range.clone())?;
        let (inode, published) = self
            .read(|view| {
                let inode = view.inode(ino)?.ok_or(Error::Stale)?;
                let wanted = wanted.start..wanted.end.min(inode.size);
                if wanted.is_empty() {
                    return Ok((inode, Vec::new()));
                }
                // Beyond the published size there may be extents that a truncation has yet to remove. Extents are not
                // cut at the window: where an extent ends decides how much one request reads ahead.
                let list = extents::clip(&view.extents(ino, &inode, wanted)?, 0..inode.size);
                Ok((inode, list))
            })
            .await?;
        if touches {
            self.touch(ino, &inode);
        }
        let size = unpublished.map_or(inode.size, |unpublished| unpublished.end.max(inode.size));
        let range = range.start..range.end.min(size);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let small = inode.extent.filter(|_| range.start == 0);
        let read = self.inner.content.read(file, range, overlay, published, size);
        let Some(extent) = small else { return Ok(read.await?) };
        Ok(beside(read, self.look_ahead(ino, &extent)).await?)
    }

    /// A small file is being read. If files made together with it were read before, begins to fetch more of them. Waits
    /// for one page of the map at most, which is fetched even if this future is dropped.
    async fn look_ahead(&self, ino: InodeNo, extent: &Extent) {
        let content = &self.inner.content;
        let Some(look) = content.look_ahead(ino, extent) else { return };
        let found = |view: &View<'_>| view.extents_in_inodes(look.range.clone());
        // Errors are ignored, as nobody asked for these records: whoever reads a damaged one is told.
        if let Ok((files, reached)) = self.inner.index.read(found).await {
            content.fetch_ahead(&look, &files, reached);
        }
    }

    /// `write`: all of the bytes, or an error.
    pub async fn write(&self, handle: HandleId, at: WriteAt, data: &[u8]) -> Result<u32> {
        let taken = self.take(handle, at, data).await?;
        self.settle(handle, taken).await
    }

    /// Reserves room in staging for a write. If staging is full, waits as long as anything gets to the bucket, however
    /// slow the link: a pack may take minutes. No lock is held here, but the kernel holds the file's, and other writers
    /// queue behind it.
    async fn room(&self, file: &File, length: usize) -> Result<Reservation> {
        let carried = || self.inner.durability.carried();
        loop {
            let before = carried();
            let room = match self.inner.room_patience.until(before) {
                None => file.room(length).await,
                // Where there is room, the first poll returns it.
                Some(until) => {
                    let room = timeout_at(until, file.room(length)).await;
                    room.unwrap_or_else(|_| Err(content::Error::full()))
                }
            };
            match room {
                Err(full) if full.is_full() && carried() > before => {
                    request::extend_deadline(ROOM_WAIT);
                }
                Err(full) if full.is_full() => {
                    self.inner.room_patience.in_vain(before);
                    return Err(full.into());
                }
                room => return Ok(room?),
            }
        }
    }

    /// First half of a write: takes its bytes, so that every reader sees them. It waits only before it takes any (while
    /// staging is full, while the map is fetched, or to publish when what is unpublished fills a transaction: V1), so
    /// it may be dropped and tried again. The exception is a write that alone replaces too many records: it is taken in
    /// parts, and may wait between them. Such a write is never at the end of the file; tried again, it puts the same
    /// bytes in the same place.
    pub async fn take(&self, handle: HandleId, at: WriteAt, data: &[u8]) -> Result<TakenWrite> {
        self.writable()?;
        let handle = self.inner.handles.get(handle)?;
        if !handle.flags.write {
            return Err(Error::BadHandle);
        }
        let length = u32::try_from(data.len()).map_err(|_| Error::Invalid)?;
        if length == 0 {
            return Ok(TakenWrite { length, must_publish: false });
        }
        let file = &handle.file;
        let mut room = self.room(file, data.len()).await?;
        let offset = match at {
            WriteAt::Offset(offset) => offset,
            WriteAt::End => self.attributes(file.ino()).await?.size,
        };
        if offset.checked_add(length.into()).is_none_or(|end| end > SIZE_MAX) {
            return Err(Error::TooBig);
        }
        os::ProcessTally::WrittenBytes.add(length.into());
        let (mut left, mut taken) = (data, TakenWrite { length, must_publish: false });
        let mut answers = Answers::default();
        while !left.is_empty() {
            let at = offset + (data.len() - left.len()) as u64;
            request::may_go_on()?;
            match file.take(&mut room, at, left, &answers)? {
                Took::Bytes { count, must_publish } => {
                    request::took_effect();
                    (left, taken.must_publish) = (&left[count..], must_publish);
                }
                Took::Ask(question) => {
                    let counted = self.count(file.ino(), &question).await?;
                    answers.add(question, counted);
                }
                Took::Publish => self.publish(file).await?,
            }
        }
        Ok(taken)
    }

    /// Second half of a write: publishes the file if too much of it is unpublished (V1). Returns the bytes written.
    pub async fn settle(&self, handle: HandleId, taken: TakenWrite) -> Result<u32> {
        if taken.must_publish {
            let handle = self.inner.handles.get(handle)?;
            self.publish(&handle.file).await?;
        }
        Ok(taken.length)
    }

    /// `chmod`, `chown`, `truncate`, `utimens`: makes all changes that `set` names in one transaction, together with
    /// what was written before (V2).
    pub async fn set_attributes(&self, ino: InodeNo, set: &SetAttributes) -> Result<Attributes> {
        self.writable()?;
        if set.size.is_some_and(|size| size > SIZE_MAX) {
            return Err(Error::TooBig);
        }
        if set.atime.is_some() {
            // Done before the transaction: a noted read that rode along in it would override the time that is set.
            self.inner.atimes.forget(ino);
        }
        let noted = self.inner.atimes.get(ino);
        let slot = self.invalidation_slot().await?;
        let inode = match set.size {
            Some(size) => self.resize(ino, set, size).await?,
            None => self.set_but_size(ino, set).await?,
        };
        let telling = slot.tell_of(ino, inode.nlink);
        let unpublished = self.inner.content.known(ino).and_then(|file| file.unpublished());
        let mut seen = self.merged(ino, &inode, unpublished);
        // The transaction may have taken the noted time along after `inode` was read.
        seen.atime = noted.map_or(seen.atime, |noted| seen.atime.max(noted));
        telling.notified().await;
        Ok(seen)
    }

    async fn set_but_size(&self, ino: InodeNo, set: &SetAttributes) -> Result<Inode> {
        let pending = self.pending(ino).await?;
        let inode = self
            .change(|draft| {
                let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
                if let Some(pending) = &pending {
                    publish_into(draft, ino, &mut inode, &pending.publication)?;
                }
                attr::apply(&mut inode, set, Timestamp::now());
                if set.mode.is_some() && !self.inner.bare.contains(ino) {
                    acl::after_chmod(draft, ino, inode.mode)?;
                }
                draft.put_inode(ino, &inode);
                Ok(inode)
            })
            .await?;
        if let Some(pending) = pending {
            pending.landed();
        }
        Ok(inode)
    }

    async fn resize(&self, ino: InodeNo, set: &SetAttributes, size: u64) -> Result<Inode> {
        let file = self.inner.content.file(ino);
        let publication = self.turn_to(&file, size).await?;
        let (mut inode, is_cut) = self
            .change(|draft| {
                let mut inode = draft.inode(ino)?.ok_or(Error::Stale)?;
                if !inode.is_file() {
                    return Err(if inode.is_dir() { Error::IsDirectory } else { Error::Invalid });
                }
                publish_into(draft, ino, &mut inode, &publication)?;
                draft.put_inode(ino, &inode);
                let is_cut = remove::cut(draft, ino, &mut inode, size)?;
                attr::apply(&mut inode, set, Timestamp::now());
                draft.put_inode(ino, &inode);
                Ok((inode, is_cut))
            })
            .await?;
        // Before the rest of the truncation: the reply may come while that goes on, and writes after the reply must
        // stay.
        file.published_truncated(&publication, size);
        if !is_cut {
            // The transaction stands whatever becomes of the rest: what is left lies beyond the end, where nobody
            // looks, and whoever raises the size finishes it first (`Vfs::turn_to`).
            self.inner.trims.lock().insert(ino, size);
            let begun = self.inner.left_over.begin();
            let finish = tokio::time::timeout(remove::REMOVAL_WAIT, self.finish_trim(ino));
            match finish.await {
                Ok(Ok(())) => {
                    begun.done();
                    inode = self.read(|view| view.inode(ino)?.ok_or(Error::Stale)).await?;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, ino = ino.0, "a truncation goes on later");
                }
                Err(_elapsed) => {}
            }
        }
        drop(publication);
        Ok(inode)
    }
}
