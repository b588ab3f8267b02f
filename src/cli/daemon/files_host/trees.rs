//! Work on trees: remove, copy, move.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::asked::{Asked, bytes, path_of};
use super::failure::{Broken, of_one, refused};
use crate::cli::exit::Failure;
use crate::cli::files::wire::{FilesReply, Frame};
use crate::files::{Attributes, Error, Found, Place, TreeStep, VfsError};

/// How often the client is told the progress of a tree operation.
const SO_FAR: Duration = Duration::from_millis(500);
/// How many failures are named; further ones are only counted.
const PROBLEMS: usize = 1000;

impl<R: AsyncRead + Unpin + Send> Asked<'_, R> {
    pub(super) async fn remove(&self, path: &Path, recursive: bool) -> Result<u64, Broken> {
        let place = self.place(path).await?;
        let mut heard = Heard::new(self.told.clone());
        let removed = {
            let mut on = |step: TreeStep<'_>| heard.step(&step);
            self.files.remove(&place, recursive, &mut on).await
        };
        self.tell_problems(heard.problems).await?;
        removed.map_err(|error| self.broken(error))
    }

    pub(super) async fn copy(
        &self,
        from: &Path,
        to: &Path,
        recursive: bool,
    ) -> Result<u64, Broken> {
        // Like cp: without -r a symlink is followed, with it the symlink itself is copied.
        let found = self.find(from, !recursive).await?;
        let named = if recursive { found.name.clone() } else { bytes_of_name(from, &found) };
        if named.is_empty() {
            return Err(self.broken(Error::IntoItself));
        }
        let place = self.target(&named, to, found.is_directory()).await?;
        let mut heard = Heard::new(self.told.clone());
        let copied = {
            let mut on = |step: TreeStep<'_>| heard.step(&step);
            self.files.copy(&found, &place, recursive, &mut on).await
        };
        self.tell_problems(heard.problems).await?;
        copied.map_err(|error| self.broken(error))
    }

    pub(super) async fn rename(&self, from: &Path, to: &Path) -> Result<u64, Broken> {
        let source = self.place(from).await?;
        let place = self.target(&source_of(&source, from)?, to, source.is_directory()).await?;
        let same = |there: Attributes| place.there.is_some_and(|at| at.ino == there.ino);
        match source.there {
            None => return Err(self.broken(VfsError::NotFound.into())),
            Some(there) if same(there) => return Err(self.broken(Error::SameFile)),
            Some(_) => {}
        }
        let moved = self.files.rename(&source, &place).await;
        moved.map(|()| 1).map_err(|error| self.broken(error))
    }

    /// The place for something of this name: inside `to` if that is a directory, otherwise `to` itself.
    async fn target(&self, name: &[u8], to: &Path, is_directory: bool) -> Result<Place, Broken> {
        match self.find(to, true).await {
            Ok(found) if found.is_directory() => {
                let inside = [bytes(to), b"/", name].concat();
                self.place(&path_of(&inside)).await
            }
            _ => {
                let place = self.place(to).await?;
                if place.there.is_none() && bytes(to).ends_with(b"/") && !is_directory {
                    return Err(self.broken(VfsError::NotDirectory.into()));
                }
                Ok(place)
            }
        }
    }

    async fn tell_problems(&self, problems: Vec<(PathBuf, Failure)>) -> io::Result<()> {
        for (path, failure) in problems {
            self.tell(&FilesReply::Problem { path, failure }).await?;
        }
        Ok(())
    }
}

/// Collects the progress of a tree operation and reports it to the client.
struct Heard {
    told: mpsc::Sender<Frame>,
    problems: Vec<(PathBuf, Failure)>,
    things: u64,
    bytes: u64,
    last: Instant,
}

impl Heard {
    fn new(told: mpsc::Sender<Frame>) -> Self {
        Self { told, problems: Vec::new(), things: 0, bytes: 0, last: Instant::now() }
    }

    fn step(&mut self, step: &TreeStep<'_>) -> ControlFlow<()> {
        match step {
            TreeStep::Bytes(bytes) => self.bytes += bytes,
            TreeStep::Done => self.things += 1,
            TreeStep::Failed(path, error) if self.problems.len() < PROBLEMS => {
                self.problems.push((path_of(path), of_one(error)));
            }
            TreeStep::Failed(..) => {}
        }
        if self.told.is_closed() {
            return ControlFlow::Break(());
        }
        if self.last.elapsed() >= SO_FAR {
            self.last = Instant::now();
            let reply = FilesReply::SoFar { things: self.things, bytes: self.bytes };
            // A client that is too slow misses this report.
            if let Ok(frame) = Frame::message(&reply) {
                drop(self.told.try_send(frame));
            }
        }
        ControlFlow::Continue(())
    }
}

/// The name of what is moved; the root has none.
fn source_of(source: &Place, from: &Path) -> Result<Vec<u8>, Broken> {
    match source.names() {
        Ok((_, name)) => Ok(name.to_vec()),
        Err(_) => {
            Err(refused(format!("{} is the root of the vault, which stays", from.display())).into())
        }
    }
}

/// The last component of a path as it was given; if it has none, the name that was found.
fn bytes_of_name(path: &Path, found: &Found) -> Vec<u8> {
    path.file_name().map_or_else(|| found.name.clone(), |name| name.as_bytes().to_vec())
}
