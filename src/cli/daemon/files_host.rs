//! A connection for files: what comes over it is done on the vault, one thing after the other.

use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cli::exit::{Exit, Failure};
use crate::cli::files::wire::{
    FileEntry, FilesReply, FilesRequest, Finish, Frame, FrameKind, PIECE,
};
use crate::files::{self, Attributes, Dress, Error, Files, Found, Place, TreeStep, VfsError};
use crate::types::Timestamp;
use crate::vault;

/// How long a client may send or take nothing: a person may have stopped it for a while (Ctrl-Z).
const IDLE: Duration = Duration::from_hours(1);
/// How often a client hears that we live, when there is nothing else to say.
const STILL: Duration = Duration::from_secs(5);
/// How often it hears how far a work on a tree is.
const SO_FAR: Duration = Duration::from_millis(500);
/// Frames on their way to a client.
const FRAMES: usize = 2;
/// Things that could not be done and are named; the others are counted.
const PROBLEMS: usize = 1000;
/// Extended attributes that come with one thing at most, in bytes: names and values as the kernel bounds them.
const ATTRIBUTES_MAX: usize = 4 << 20;

/// From an error of the vault to what its user is told.
pub(super) type Fail<'a> = &'a (dyn Fn(&vault::Error) -> Failure + Send + Sync);

/// Why a request has no reply of its own.
enum Broken {
    /// It failed, and its client is told.
    Failed(Failure),
    /// The content is a mix of two versions.
    Changed,
    /// The connection is of no use any more.
    Lost(io::Error),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// Serves a client until it goes away.
pub(super) async fn serve(files: &Files, stream: UnixStream, fail: Fail<'_>) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let (mut read, mut write) = (BufReader::new(read), BufWriter::new(write));
    while let Some(frame) = timeout(IDLE, Frame::read(&mut read)).await?? {
        if frame.kind != FrameKind::Message {
            continue;
        }
        let request = serde_json::from_slice(&frame.payload)?;
        let (told, replies) = mpsc::channel(FRAMES);
        let mut asked = Asked { files, fail, read: &mut read, told };
        // What was sent along is read to its end only by what goes well.
        let takes = matches!(
            request,
            FilesRequest::Put { .. } | FilesRequest::Make { .. } | FilesRequest::Dress { .. }
        );
        let work = async move {
            let (last, goes_on) = match asked.carry_out(request).await {
                Ok(things) => (FilesReply::Done { things }, true),
                Err(Broken::Failed(failure)) => (FilesReply::Failed { failure }, !takes),
                Err(Broken::Changed) => (FilesReply::Changed, true),
                Err(Broken::Lost(error)) => return Err(error),
            };
            asked.tell(&last).await?;
            Ok(goes_on)
        };
        let (goes_on, ()) = tokio::try_join!(work, send_all(&mut write, replies))?;
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// Sends frames as they come, and now and then that we live.
async fn send_all(
    to: &mut (impl AsyncWrite + Unpin),
    mut frames: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    loop {
        let frame = match timeout(STILL, frames.recv()).await {
            Ok(None) => return Ok(()),
            Ok(Some(frame)) => frame,
            Err(_) => Frame { kind: FrameKind::Still, payload: Vec::new() },
        };
        let send = async {
            frame.write(to).await?;
            // More may be there already.
            if frames.is_empty() { to.flush().await } else { Ok(()) }
        };
        timeout(IDLE, send).await??;
    }
}

/// One thing that was asked for.
struct Asked<'a, R> {
    files: &'a Files,
    fail: Fail<'a>,
    read: &'a mut R,
    told: mpsc::Sender<Frame>,
}

impl<R: AsyncRead + Unpin + Send> Asked<'_, R> {
    async fn carry_out(&mut self, request: FilesRequest) -> Result<u64, Broken> {
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
            FilesRequest::Move { from, to } => {
                let source = self.place(&from).await?;
                let place =
                    self.target(&source_of(&source, &from)?, &to, source.is_directory()).await?;
                let same = |there: Attributes| place.there.is_some_and(|at| at.ino == there.ino);
                match source.there {
                    None => return Err(self.broken(VfsError::NotFound.into())),
                    Some(there) if same(there) => return Err(self.broken(Error::SameFile)),
                    Some(_) => {}
                }
                let moved = self.files.rename(&source, &place).await;
                moved.map(|()| 1).map_err(|error| self.broken(error))
            }
            FilesRequest::Copy { from, to, recursive } => self.copy(&from, &to, recursive).await,
        }
    }

    async fn tell(&self, reply: &FilesReply) -> io::Result<()> {
        self.send(Frame::message(reply)?).await
    }

    async fn send(&self, frame: Frame) -> io::Result<()> {
        // Fails only when the connection did.
        self.told.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn broken(&self, error: Error) -> Broken {
        match error {
            Error::Changed => Broken::Changed,
            Error::GivenUp => Broken::Lost(io::ErrorKind::BrokenPipe.into()),
            error => Broken::Failed(told_as(error, self.fail)),
        }
    }

    async fn find(&self, path: &Path, follows: bool) -> Result<Found, Broken> {
        self.files.find(bytes(path), follows).await.map_err(|error| self.broken(error))
    }

    async fn place(&self, path: &Path) -> Result<Place, Broken> {
        self.files.place(bytes(path)).await.map_err(|error| self.broken(error))
    }

    async fn entry(&self, name: &[u8], seen: &Attributes) -> files::Result<FileEntry> {
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
                    // Removed just now. Whatever else it is, a list that lacks it must not pass for all.
                    Err(Error::Vfs(VfsError::Stale | VfsError::NotFound)) => continue,
                    Err(error) => return Err(self.broken(error)),
                };
                count += 1;
                // A byte that is no text takes four.
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

    async fn tell_attributes(&self, found: &Found) -> Result<u64, Broken> {
        let all = self.files.attributes_beyond(found.attributes.ino).await;
        let all = all.map_err(|error| self.broken(error))?;
        for (name, value) in &all {
            self.send(Frame::attribute(name, value)).await?;
        }
        Ok(all.len() as u64)
    }

    async fn get(&self, path: &Path) -> Result<u64, Broken> {
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

    async fn put(&mut self, path: &Path, parents: bool) -> Result<u64, Broken> {
        let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        match self.files.place(bytes(path)).await {
            // Before all of it has come.
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
            // What is written over keeps what it has.
            let there = place.there.filter(|there| there.kind() == libc::S_IFREG);
            dress.mode = there.map(|there| there.mode & 0o7777);
            dress.owner = there.map(|there| (there.uid, there.gid));
        }
        let kept = file.keep(self.files, &place, finish.size, &dress).await;
        kept.map(|_| 1).map_err(|error| self.broken(error))
    }

    /// The next frame of what belongs to the request.
    async fn next_frame(&mut self) -> Result<Frame, Broken> {
        let frame = timeout(IDLE, Frame::read(self.read)).await.map_err(io::Error::from)??;
        frame.ok_or_else(|| Broken::Lost(io::ErrorKind::UnexpectedEof.into()))
    }

    /// The attributes of what has no content.
    async fn no_content(&mut self) -> Result<(Finish, Dress), Broken> {
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

    async fn remove(&self, path: &Path, recursive: bool) -> Result<u64, Broken> {
        let place = self.place(path).await?;
        let mut heard = Heard::new(self.told.clone());
        let removed = {
            let mut on = |step: TreeStep<'_>| heard.step(&step);
            self.files.remove(&place, recursive, &mut on).await
        };
        self.tell_problems(heard.problems).await?;
        removed.map_err(|error| self.broken(error))
    }

    async fn copy(&self, from: &Path, to: &Path, recursive: bool) -> Result<u64, Broken> {
        // As cp: without -r what a symlink leads to, with it the symlink.
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

    /// Where something of this name goes: into a directory that is there, or to the path itself.
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

/// Hears of a work on a tree, for the client.
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
            // A client that is slow hears the next one.
            if let Ok(frame) = Frame::message(&reply) {
                drop(self.told.try_send(frame));
            }
        }
        ControlFlow::Continue(())
    }
}

/// The name that a moved thing has; the root has none.
fn source_of(source: &Place, from: &Path) -> Result<Vec<u8>, Broken> {
    match source.names() {
        Ok((_, name)) => Ok(name.to_vec()),
        Err(_) => {
            Err(refused(format!("{} is the root of the vault, which stays", from.display())).into())
        }
    }
}

/// The last name of a path as it was said, or, where that says none, as it is.
fn bytes_of_name(path: &Path, found: &Found) -> Vec<u8> {
    path.file_name().map_or_else(|| found.name.clone(), |name| name.as_bytes().to_vec())
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

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn path_of(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

fn refused(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Other, text)
}

/// What a client is told.
fn told_as(error: Error, fail: Fail<'_>) -> Failure {
    match plain(&error) {
        Some(text) => refused(text),
        None => match error {
            Error::Vfs(error) => fail(&vault::Error::from(error)),
            error => refused(error.to_string()),
        },
    }
}

/// The same of one of many.
fn of_one(error: &Error) -> Failure {
    refused(plain(error).map_or_else(|| error.to_string(), str::to_owned))
}

/// In the words of the command line.
fn plain(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Vfs(VfsError::NotFound | VfsError::Stale) => {
            "there is no such file or directory in the vault"
        }
        Error::Vfs(VfsError::Exists) => "it is there already, and was left as it is",
        Error::Vfs(VfsError::NotDirectory) => {
            "it is, or lies below, something that is no directory; nothing was changed"
        }
        Error::Vfs(VfsError::IsDirectory) => "it is a directory; nothing was changed",
        Error::Vfs(VfsError::NotEmpty) => "the directory is not empty, and was left as it is",
        Error::Vfs(VfsError::NameTooLong) => {
            "a name has more than 255 bytes, or the path more than 4,095; nothing was changed"
        }
        Error::Vfs(VfsError::Invalid) => {
            "the vault cannot have something of this name or kind; nothing was changed"
        }
        Error::Vfs(VfsError::TooBig) => {
            "the file would be too large for a vault; nothing was changed"
        }
        Error::Outside => "a symlink on the way leads out of the vault; name what it leads to",
        Error::Loop => "too many symlinks on the way; do some lead to themselves?",
        Error::Omitted => {
            "it is a directory; nothing was changed; with -r it goes with all that is in it"
        }
        Error::IntoItself => "a directory cannot be put into itself; nothing was changed",
        Error::SameFile => "both names are of the same file; nothing was changed",
        Error::Root => "it is the root of the vault, which stays; nothing was changed",
        Error::Vfs(_) | Error::Changed | Error::GivenUp => return None,
    })
}
