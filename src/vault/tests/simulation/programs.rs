//! What programs do in the mount, and what they must find afterwards.

use super::model::{Model, ModelFile, ModelNode, Tree, change_file};
use super::step::{Step, directory, path};
use crate::types::{InodeNo, noise};
use crate::vault::Vault;
use crate::vault::tests::{USER, read_handle};
use crate::vfs::{HandleId, OpenFlags, RenameMode, Result, SetAttributes, Vfs, WriteAt};

/// As much as the kernel sends at a time.
const PIECE: usize = 128 << 10;

/// A program at work.
pub(super) struct Program<'a> {
    pub(super) vfs: Vfs,
    pub(super) vault: &'a Vault,
    pub(super) model: &'a mut Model,
    /// Whether the process has just ended: then an error means nothing.
    pub(super) has_ended: &'a dyn Fn() -> bool,
    /// Whether changes were already refused before this one.
    pub(super) was_read_only: bool,
}

impl Program<'_> {
    /// Runs a step. Errors are for programs to see: the model notes what they mean.
    pub(super) async fn run(&mut self, step: &Step) -> Result<()> {
        if self.was_read_only {
            // A failed pack ends changes without content a moment later (J6).
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let refused = self.vfs.mkdir(&USER, InodeNo::ROOT, b"never", 0o755).await;
            assert!(refused.is_err(), "a change of a vault that takes none");
            return refused.map(drop);
        }
        match *step {
            Step::Write { path: at, seed, length, fsync } => {
                self.write(&path(at), noise(seed, length), fsync).await
            }
            Step::Patch { path: at, seed, at: offset, length } => {
                self.patch(&path(at), offset, noise(seed, length)).await
            }
            Step::Truncate { path: at, size } => {
                let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
                let change = |file: &mut ModelFile| resize(file, size);
                self.set(&path(at), &set, change).await
            }
            Step::Chmod { path: at, mode } => {
                let set = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
                self.set(&path(at), &set, |file| file.mode = mode).await
            }
            Step::Rename { from, to } => self.rename(&path(from), &path(to)).await,
            Step::Link { from, to } => self.link(&path(from), &path(to)).await,
            Step::Unlink { path: at, while_open } => self.unlink(&path(at), while_open).await,
            Step::CopyRange { from, to, length } => {
                self.copy_range(&path(from), &path(to), length).await
            }
            Step::MakeDir(number) => {
                let name = directory(number);
                let made = self.vfs.mkdir(&USER, InodeNo::ROOT, name.as_bytes(), 0o755).await;
                if self.model.now().contains_key(&name) {
                    return made.map(drop);
                }
                self.done(made, |tree| _ = tree.insert(name, ModelNode::Directory)).map(drop)
            }
            Step::RemoveDir(number) => {
                let name = directory(number);
                let removed = self.vfs.rmdir(InodeNo::ROOT, name.as_bytes()).await;
                self.done(removed, |tree| _ = tree.remove(&name))
            }
            _ => unreachable!("not a program's"),
        }
    }

    /// Notes the outcome of a change that happens wholly or not at all.
    fn done<T>(&mut self, done: Result<T>, change: impl FnOnce(&mut Tree)) -> Result<T> {
        match &done {
            Ok(_) => self.model.answered(change),
            Err(_) if self.may_have_happened() => self.model.under_way(change),
            Err(_) => {}
        }
        done
    }

    /// Whether a failed change may have happened anyway: the process or its disk failed during it.
    fn may_have_happened(&self) -> bool {
        (self.has_ended)() || self.vault.status().read_only.is_some()
    }

    fn file(&self, path: &str) -> Option<ModelFile> {
        match self.model.now().get(path) {
            Some(ModelNode::File(file)) => Some(file.clone()),
            _ => None,
        }
    }

    /// The directory of a path, if the model has it, and the name in it.
    async fn place<'p>(&self, path: &'p str) -> Result<(InodeNo, &'p str)> {
        match path.split_once('/') {
            None => Ok((InodeNo::ROOT, path)),
            Some((directory, name)) => {
                Ok((self.vfs.lookup(InodeNo::ROOT, directory.as_bytes()).await?.ino, name))
            }
        }
    }

    async fn ino(&self, path: &str) -> Result<InodeNo> {
        let (directory, name) = self.place(path).await?;
        Ok(self.vfs.lookup(directory, name.as_bytes()).await?.ino)
    }

    async fn write(&mut self, path: &str, content: Vec<u8>, fsync: bool) -> Result<()> {
        let (directory, name) = self.place(path).await?;
        let flags = OpenFlags { read: true, write: true, truncate: true, ..OpenFlags::default() };
        let was = self.file(path);
        let created = self.vfs.create(&USER, directory, name.as_bytes(), 0o644, flags).await;
        let ino = created.as_ref().map_or(0, |(known, _)| known.ino.0);
        let made = self.done(created, |tree| match was.is_some() {
            true => change_file(tree, path, |file| {
                (file.content, file.or) = (std::sync::Arc::default(), Vec::new());
            }),
            false => {
                let file = ModelFile::new(ino, 0o644, Vec::new());
                tree.insert(path.into(), ModelNode::File(file));
            }
        });
        let handle = made?.1;
        let mut written = Ok(());
        for (n, piece) in content.chunks(PIECE).enumerate() {
            let at = WriteAt::Offset((n * PIECE) as u64);
            written = self.vfs.write(handle, at, piece).await.map(drop);
            if written.is_err() {
                break;
            }
        }
        let published = match (&written, fsync) {
            (Ok(()), true) => self.vfs.fsync(handle).await,
            (Ok(()), false) => self.vfs.flush(handle).await,
            (Err(_), _) => written,
        };
        self.published(path, handle, &published, fsync, content).await;
        drop(self.vfs.release(handle).await);
        published
    }

    /// Notes the outcome of a publication: what is unpublished is shown, and may be published later.
    async fn published(
        &mut self,
        path: &str,
        handle: HandleId,
        published: &Result<()>,
        fsync: bool,
        content: Vec<u8>,
    ) {
        let content = std::sync::Arc::new(content);
        match published {
            Ok(()) => {
                self.model.answered(|tree| {
                    change_file(tree, path, |file| {
                        (file.content, file.or) = (content.clone(), Vec::new());
                    });
                });
                if fsync {
                    self.model.is_durable();
                }
            }
            Err(_) if self.may_have_happened() => self.model.under_way(|tree| {
                change_file(tree, path, |file| {
                    file.or.extend([file.content.clone(), content.clone()]);
                });
            }),
            Err(_) => {
                let shown = read_handle(&self.vfs, handle).await.ok();
                self.model.answered(|tree| {
                    change_file(tree, path, |file| {
                        file.or.extend([file.content.clone(), content.clone()]);
                        file.content = shown.clone().map_or(content.clone(), std::sync::Arc::new);
                    });
                });
            }
        }
    }

    async fn patch(&mut self, path: &str, at: u64, bytes: Vec<u8>) -> Result<()> {
        let Some(was) = self.file(path) else { return Ok(()) };
        let flags = OpenFlags { read: true, write: true, ..OpenFlags::default() };
        let handle = self.vfs.open(self.ino(path).await?, flags).await?;
        let mut content = was.content.to_vec();
        lay(&mut content, at as usize, &bytes);
        let written = match self.vfs.write(handle, WriteAt::Offset(at), &bytes).await {
            Ok(_) => self.vfs.flush(handle).await,
            Err(error) => Err(error),
        };
        self.published(path, handle, &written, false, content).await;
        drop(self.vfs.release(handle).await);
        written
    }

    async fn set(
        &mut self,
        path: &str,
        set: &SetAttributes,
        change: impl Fn(&mut ModelFile),
    ) -> Result<()> {
        if self.file(path).is_none() {
            return Ok(());
        }
        let done = self.vfs.set_attributes(self.ino(path).await?, set).await;
        let settles = |file: &mut ModelFile| {
            file.or.clear();
            change(file);
        };
        self.done(done, |tree| change_file(tree, path, settles)).map(drop)
    }

    async fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let Some(moved) = self.file(from) else { return Ok(()) };
        let places = (self.place(from).await?, self.place(to).await?);
        let ((from_in, from_name), (to_in, to_name)) = places;
        let places = ((from_in, from_name.as_bytes()), (to_in, to_name.as_bytes()));
        let done = self.vfs.rename(places.0, places.1, RenameMode::Replace).await;
        // Two names of one file: rename(2) leaves both.
        if self.file(to).is_some_and(|there| there.ino == moved.ino) {
            return done;
        }
        self.done(done, |tree| {
            tree.remove(from);
            tree.insert(to.into(), ModelNode::File(moved));
            change_file(tree, to, |file| file.or.clear());
        })
    }

    async fn link(&mut self, from: &str, to: &str) -> Result<()> {
        let Some(linked) = self.file(from) else { return Ok(()) };
        let (directory, name) = self.place(to).await?;
        let done = self.vfs.link(self.ino(from).await?, directory, name.as_bytes()).await;
        if self.model.now().contains_key(to) {
            return done.map(drop);
        }
        let done = self.done(done, |tree| {
            tree.insert(to.into(), ModelNode::File(linked));
            change_file(tree, to, |file| file.or.clear());
        });
        done.map(drop)
    }

    async fn unlink(&mut self, path: &str, while_open: bool) -> Result<()> {
        let Some(was) = self.file(path) else { return Ok(()) };
        let (directory, name) = self.place(path).await?;
        let mut open = None;
        if while_open {
            let flags = OpenFlags { read: true, ..OpenFlags::default() };
            open = Some(self.vfs.open(self.ino(path).await?, flags).await?);
        }
        let done = self.vfs.unlink(directory, name.as_bytes()).await;
        let done = self.done(done, |tree| _ = tree.remove(path));
        if let Some(handle) = open {
            if let Ok(content) = read_handle(&self.vfs, handle).await {
                assert!(was.content.as_slice() == content, "{path}: another content while open");
            }
            drop(self.vfs.release(handle).await);
        }
        done
    }

    async fn copy_range(&mut self, from: &str, to: &str, length: u64) -> Result<()> {
        let (Some(source), Some(target)) = (self.file(from), self.file(to)) else { return Ok(()) };
        if source.ino == target.ino {
            return Ok(());
        }
        let flags = OpenFlags { read: true, write: true, ..OpenFlags::default() };
        let source_handle = self.vfs.open(self.ino(from).await?, flags).await?;
        let handle = self.vfs.open(self.ino(to).await?, flags).await?;
        let copied = self.vfs.copy_range((source_handle, 0), (handle, 0), length).await;
        let mut content = target.content.to_vec();
        let count = *copied.as_ref().unwrap_or(&length.min(source.content.len() as u64)) as usize;
        lay(&mut content, 0, &source.content[..count]);
        let done = match copied {
            Ok(_) => self.vfs.flush(handle).await,
            Err(error) => Err(error),
        };
        self.published(to, handle, &done, false, content).await;
        drop(self.vfs.release(handle).await);
        drop(self.vfs.release(source_handle).await);
        done
    }
}

fn lay(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    content.resize(content.len().max(at + bytes.len()), 0);
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn resize(file: &mut ModelFile, size: u64) {
    let mut content = file.content.to_vec();
    content.resize(size as usize, 0);
    file.content = std::sync::Arc::new(content);
}
