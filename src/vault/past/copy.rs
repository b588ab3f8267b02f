//! Copies one past file to a new file.

use std::ops::{ControlFlow, Range};

use super::share::Sharing;
use crate::files::{dress, owned_by};
use crate::types::{AsOf, InodeNo};
use crate::vault::{Error, Result};
use crate::vfs::{Attributes, HandleId, OpenFlags, RenameMode, SetAttributes, Vfs, WriteAt};

/// How many bytes are read and written at a time.
const PIECE: u64 = 1 << 20;

/// What was brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files, directories and the like.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes of content that were not copied but shared: the bucket has them once (V4).
    pub shared: u64,
    /// Commits that were searched for the version.
    pub looked: u64,
    /// The state that it came from.
    pub as_of: Option<AsOf>,
}

/// Called with the progress; `Break` ends the restoration.
pub type OnRestore<'a> = &'a mut (dyn FnMut(&Restored) -> ControlFlow<()> + Send);

/// A restoration under way.
pub(super) struct Copying<'a> {
    pub(super) past: &'a Vfs,
    pub(super) live: &'a Vfs,
    pub(super) sharing: Sharing,
    pub(super) done: Restored,
    pub(super) tell: OnRestore<'a>,
}

impl Copying<'_> {
    /// Reports the progress.
    pub(super) fn tell(&mut self) -> Result<()> {
        match (self.tell)(&self.done) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(refused("nobody waited for it any more; what was brought back so far is there"))
            }
        }
    }
}

pub(super) fn refused(why: impl Into<String>) -> Error {
    Error::NotRestored(why.into())
}

/// Copies a regular file. It is written whole before it gets its name, and replaces what has the name at that
/// moment.
pub(super) async fn copy_file(
    copying: &mut Copying<'_>,
    source: &Attributes,
    parent: InodeNo,
    name: &[u8],
) -> Result<InodeNo> {
    let (past, live) = (copying.past, copying.live);
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let from = past.open(source.ino, flags).await?;
    let made = match live.create_unnamed(&owned_by(source), source.mode, name).await {
        Ok(to) => {
            let named = fill(copying, source, from, to, (parent, name)).await;
            let released = live.release(to).await;
            named.and_then(|made| Ok(released.map(|()| made)?))
        }
        Err(error) => Err(error.into()),
    };
    past.release(from).await?;
    made
}

async fn fill(
    copying: &mut Copying<'_>,
    source: &Attributes,
    from: HandleId,
    to: HandleId,
    (parent, name): (InodeNo, &[u8]),
) -> Result<InodeNo> {
    let (past, live) = (copying.past, copying.live);
    let mut at = 0;
    loop {
        let list = past.records_from(from, at).await?;
        let Some((offset, last)) = list.last() else { break };
        at = offset + last.length;
        let chosen = copying.sharing.choose(&list).await?;
        let sharing = &copying.sharing;
        let is_shared = live.share_old(to, &chosen, |draft| sharing.may(draft)).await?;
        if !is_shared {
            copying.sharing.end();
        }
        for (offset, extent) in &list {
            if is_shared && chosen.binary_search_by_key(offset, |(shared, _)| *shared).is_ok() {
                copying.done.bytes += extent.length;
                copying.done.shared += extent.length;
            } else {
                copy_range(copying, (from, to), *offset..offset + extent.length).await?;
            }
        }
        copying.tell()?;
    }
    let made = live.inode_of(to)?;
    if live.attributes(made).await?.size != source.size {
        let size = Some(source.size);
        live.set_attributes(made, &SetAttributes { size, ..SetAttributes::default() }).await?;
    }
    dress(past, live, source, made).await?;
    live.give_name_alone(to, parent, name, RenameMode::Replace).await?;
    Ok(made)
}

async fn copy_range(
    copying: &mut Copying<'_>,
    (from, to): (HandleId, HandleId),
    range: Range<u64>,
) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let length = u32::try_from(PIECE.min(range.end - at)).unwrap_or(u32::MAX);
        let data = copying.past.read_data(from, at, length).await?;
        if data.is_empty() {
            break;
        }
        copying.live.write(to, WriteAt::Offset(at), &data).await?;
        at += data.len() as u64;
        copying.done.bytes += data.len() as u64;
        copying.tell()?;
    }
    Ok(())
}
