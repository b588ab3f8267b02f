//! Content and attributes: reads them from the vault, and puts them into it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::io::AsyncRead;
use tokio::time::timeout;

use super::asked::{Asked, IDLE, bytes};
use super::failure::{Broken, refused};
use crate::cli::files::wire::{FilesReply, Finish, Frame, FrameKind, PIECE};
use crate::files::{Dress, Error, Found, VfsError};
use crate::types::Timestamp;

/// The most bytes of extended attributes of one file, names and values; the kernel has similar bounds.
const ATTRIBUTES_MAX: usize = 4 << 20;

impl<R: AsyncRead + Unpin + Send> Asked<'_, R> {
    pub(super) async fn tell_attributes(&self, found: &Found) -> Result<u64, Broken> {
        let all = self.files.attributes_beyond(found.attributes.ino).await;
        let all = all.map_err(|error| self.broken(error))?;
        for (name, value) in &all {
            self.send(Frame::attribute(name, value)).await?;
        }
        Ok(all.len() as u64)
    }

    pub(super) async fn get(&self, path: &Path) -> Result<u64, Broken> {
        let found = self.find(path, true).await?;
        if found.is_directory() {
            return Err(self.broken(VfsError::IsDirectory.into()));
        }
        let ino = found.attributes.ino;
        if found.attributes.kind() != libc::S_IFREG {
            return Err(
                refused("it is no regular file, and has no content; nothing was read").into()
            );
        }
        let mut reading = self.files.read(ino).await.map_err(|error| self.broken(error))?;
        let entry = self.entry(&found.name, &found.attributes).await;
        let mut entry = entry.map_err(|error| self.broken(error))?;
        entry.size = reading.size();
        self.tell(&FilesReply::Entries { entries: vec![entry] }).await?;
        self.tell_attributes(&found).await?;
        let most = u32::try_from(PIECE).unwrap_or(u32::MAX);
        while let Some(piece) = reading.next(most).await.map_err(|error| self.broken(error))? {
            self.send(Frame::data(piece.offset, &piece.data)).await?;
        }
        Ok(1)
    }

    pub(super) async fn put(&mut self, path: &Path, parents: bool) -> Result<u64, Broken> {
        let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        match self.files.place(bytes(path)).await {
            // Fails before all of the content has come.
            Ok(place) if place.is_directory() => {
                return Err(self.broken(VfsError::IsDirectory.into()));
            }
            Ok(_) => {}
            Err(Error::Vfs(VfsError::NotFound)) if parents => {}
            Err(error) => return Err(self.broken(error)),
        }
        let mut file = self.files.create(name).await.map_err(|error| self.broken(error))?;
        let mut attributes = Vec::new();
        let finish = loop {
            let frame = self.next_frame().await?;
            match frame.kind {
                FrameKind::Data => {
                    let (offset, data) = frame.as_data()?;
                    file.write(offset, data).await.map_err(|error| self.broken(error))?;
                }
                FrameKind::Attribute => keep_attribute(&mut attributes, &frame)?,
                FrameKind::Message => {
                    break serde_json::from_slice::<Finish>(&frame.payload)
                        .map_err(io::Error::from)?;
                }
                FrameKind::Still => {}
            }
        };
        if parents && let Some(above) = path.parent() {
            let made = self.files.make_directories(bytes(above)).await;
            made.map_err(|error| self.broken(error))?;
        }
        let place = self.place(path).await?;
        let mut dress = dress_of(&finish, attributes);
        if dress.mode.is_none() {
            // A file that is overwritten keeps its mode and owner.
            let there = place.there.filter(|there| there.kind() == libc::S_IFREG);
            dress.mode = there.map(|there| there.mode & 0o7777);
            dress.owner = there.map(|there| (there.uid, there.gid));
        }
        let kept = file.keep(self.files, &place, finish.size, &dress).await;
        kept.map(|_| 1).map_err(|error| self.broken(error))
    }

    /// The next frame that belongs to the request.
    async fn next_frame(&mut self) -> Result<Frame, Broken> {
        let frame = timeout(IDLE, Frame::read(self.read)).await.map_err(io::Error::from)??;
        frame.ok_or_else(|| Broken::Lost(io::ErrorKind::UnexpectedEof.into()))
    }

    /// The attributes of an entry without content.
    pub(super) async fn no_content(&mut self) -> Result<(Finish, Dress), Broken> {
        let mut attributes = Vec::new();
        loop {
            let frame = self.next_frame().await?;
            match frame.kind {
                FrameKind::Attribute => keep_attribute(&mut attributes, &frame)?,
                FrameKind::Message => {
                    let finish = serde_json::from_slice(&frame.payload).map_err(io::Error::from)?;
                    let dress = dress_of(&finish, attributes);
                    return Ok((finish, dress));
                }
                FrameKind::Data | FrameKind::Still => {}
            }
        }
    }
}

fn keep_attribute(all: &mut Vec<(Vec<u8>, Vec<u8>)>, frame: &Frame) -> Result<(), Broken> {
    let (name, value) = frame.as_attribute()?;
    all.push((name.to_vec(), value.to_vec()));
    let length: usize = all.iter().map(|(name, value)| name.len() + value.len()).sum();
    if length > ATTRIBUTES_MAX {
        return Err(
            refused("it has more extended attributes than a vault keeps of one file").into()
        );
    }
    Ok(())
}

fn dress_of(finish: &Finish, attributes: Vec<(Vec<u8>, Vec<u8>)>) -> Dress {
    let time = |(seconds, nanos): (i64, u32)| Timestamp { seconds, nanos: nanos.min(999_999_999) };
    Dress {
        mode: finish.mode.map(|mode| mode & 0o7777),
        owner: finish.owner,
        mtime: finish.mtime.map(time),
        attributes,
    }
}
