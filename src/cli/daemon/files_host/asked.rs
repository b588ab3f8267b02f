//! One request: finds, examines and changes what it names.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::failure::{Broken, Fail, told_as};
use crate::cli::files::wire::{FileEntry, FilesReply, FilesRequest, Frame, PIECE};
use crate::files::{self, Attributes, Error, Files, Found, Place, VfsError};

/// How long a client may send or take nothing: a user may have stopped it for a while (Ctrl-Z).
pub(super) const IDLE: Duration = Duration::from_hours(1);

/// A request being carried out.
pub(super) struct Asked<'a, R> {
    pub(super) files: &'a Files,
    pub(super) fail: Fail<'a>,
    pub(super) read: &'a mut R,
    pub(super) told: mpsc::Sender<Frame>,
}

impl<R: AsyncRead + Unpin + Send> Asked<'_, R> {
    pub(super) async fn carry_out(&mut self, request: FilesRequest) -> Result<u64, Broken> {
        match request {
            FilesRequest::Stat { path, follows } => self.stat(&path, follows).await,
            FilesRequest::List { path } => self.list(&path).await,
            FilesRequest::Attributes { path } => {
                let found = self.find(&path, false).await?;
                self.tell_attributes(&found).await
            }
            FilesRequest::Get { path } => self.get(&path).await,
            FilesRequest::Put { path, parents } => self.put(&path, parents).await,
            FilesRequest::Make { path, target, rdev } => {
                let (finish, dress) = self.no_content().await?;
                let place = self.place(&path).await?;
                let target = target.unwrap_or_default();
                let (mode, target) = (finish.mode.unwrap_or(0), bytes(&target));
                let made = self.files.make_other(&place, mode, target, rdev, &dress).await;
                made.map(|()| 1).map_err(|error| self.broken(error))
            }
            FilesRequest::Dress { path } => {
                let (_, dress) = self.no_content().await?;
                let found = self.find(&path, false).await?;
                let dressed = self.files.dress(found.attributes.ino, &dress).await;
                dressed.map(|_| 1).map_err(|error| self.broken(error))
            }
            FilesRequest::Mkdir { path, parents } => {
                let made = self.files.make_directory(bytes(&path), parents).await;
                made.map(|_| 1).map_err(|error| self.broken(error))
            }
            FilesRequest::Link { from, to } => {
                let (found, place) = (self.find(&from, false).await?, self.place(&to).await?);
                let linked = self.files.link(&found, &place).await;
                linked.map(|()| 1).map_err(|error| self.broken(error))
            }
            FilesRequest::Remove { path, recursive } => self.remove(&path, recursive).await,
            FilesRequest::Move { from, to } => self.rename(&from, &to).await,
            FilesRequest::Copy { from, to, recursive } => self.copy(&from, &to, recursive).await,
        }
    }

    pub(super) async fn tell(&self, reply: &FilesReply) -> io::Result<()> {
        self.send(Frame::message(reply)?).await
    }

    pub(super) async fn send(&self, frame: Frame) -> io::Result<()> {
        // Fails only if the connection did.
        self.told.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    pub(super) fn broken(&self, error: Error) -> Broken {
        match error {
            Error::Changed => Broken::Changed,
            Error::GivenUp => Broken::Lost(io::ErrorKind::BrokenPipe.into()),
            error => Broken::Failed(told_as(error, self.fail)),
        }
    }

    pub(super) async fn find(&self, path: &Path, follows: bool) -> Result<Found, Broken> {
        self.files.find(bytes(path), follows).await.map_err(|error| self.broken(error))
    }

    pub(super) async fn place(&self, path: &Path) -> Result<Place, Broken> {
        self.files.place(bytes(path)).await.map_err(|error| self.broken(error))
    }

    pub(super) async fn entry(&self, name: &[u8], seen: &Attributes) -> files::Result<FileEntry> {
        let target = match seen.kind() {
            libc::S_IFLNK => Some(path_of(&self.files.read_link(seen.ino).await?)),
            _ => None,
        };
        Ok(FileEntry {
            name: path_of(name),
            mode: seen.mode,
            nlink: seen.nlink,
            uid: seen.uid,
            gid: seen.gid,
            rdev: seen.rdev,
            size: seen.size,
            blocks: seen.blocks,
            ino: seen.ino.0,
            mtime: (seen.mtime.seconds, seen.mtime.nanos),
            target,
        })
    }

    async fn stat(&self, path: &Path, follows: bool) -> Result<u64, Broken> {
        let found = self.find(path, follows).await?;
        let entry = self.entry(&found.name, &found.attributes).await;
        let entries = vec![entry.map_err(|error| self.broken(error))?];
        self.tell(&FilesReply::Entries { entries }).await?;
        Ok(1)
    }

    async fn list(&self, path: &Path) -> Result<u64, Broken> {
        let directory = self.files.directory(bytes(path)).await;
        let directory = directory.map_err(|error| self.broken(error))?;
        let (mut from, mut count) = (0, 0);
        loop {
            let page =
                self.files.list(directory, from).await.map_err(|error| self.broken(error))?;
            let Some((page, next)) = page else { return Ok(count) };
            from = next;
            let (mut entries, mut length) = (Vec::new(), 0);
            for found in page {
                let Some(seen) = found.attributes else { continue };
                let entry = match self.entry(&found.name, &seen).await {
                    Ok(entry) => entry,
                    // Removed a moment ago. On any other error the list fails, since an incomplete list must not pass
                    // for a complete one.
                    Err(Error::Vfs(VfsError::Stale | VfsError::NotFound)) => continue,
                    Err(error) => return Err(self.broken(error)),
                };
                count += 1;
                // In JSON, a byte that is not text takes four.
                let target = entry.target.as_ref().map_or(0, |target| target.as_os_str().len());
                length += 300 + 4 * (found.name.len() + target);
                entries.push(entry);
                if length > PIECE {
                    length = 0;
                    let entries = std::mem::take(&mut entries);
                    self.tell(&FilesReply::Entries { entries }).await?;
                }
            }
            self.tell(&FilesReply::Entries { entries }).await?;
        }
    }
}

pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}
