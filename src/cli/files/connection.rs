//! A command's connection to the daemon.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::wire::{FileEntry, FilesReply, FilesRequest, Finish, Frame, FrameKind, HEAD};
use crate::cli::control::{Client, ControlReply, ControlRequest, SILENCE};
use crate::cli::exit::{CliResult, Exit, Failure};

/// How long the daemon may take nothing: over a slow link to the bucket a writer waits, and sending a pack may take
/// minutes.
const TAKES: Duration = Duration::from_mins(15);

/// A connection that carries one request at a time.
pub(crate) struct FilesConnection {
    /// Set before a request that has an effect.
    begun: Arc<AtomicBool>,
    read: BufReader<UnixStream>,
    write: BufWriter<UnixStream>,
}

/// What the daemon may send.
pub(crate) enum FromDaemon {
    /// A reply.
    Reply(FilesReply),
    /// Content: [`Frame::as_data`].
    Data(Frame),
    /// An extended attribute: [`Frame::as_attribute`].
    Attribute(Frame),
}

impl FilesConnection {
    /// Connects to the daemon whose socket is in `dir`. `begun` becomes true before any request that has an effect.
    pub(crate) fn open(
        dir: &Path,
        umask: u32,
        begun: &Arc<AtomicBool>,
    ) -> io::Result<CliResult<Self>> {
        let mut client = Client::ask(dir, &ControlRequest::Files { umask }, SILENCE)?;
        match client.next()? {
            ControlReply::Go => {}
            ControlReply::Failed(failure) => return Ok(Err(failure)),
            _ => return Err(io::Error::other("a reply to something else")),
        }
        let stream = client.into_stream();
        stream.set_write_timeout(Some(TAKES))?;
        let write = BufWriter::with_capacity(64 << 10, stream.try_clone()?);
        let read = BufReader::with_capacity(64 << 10, stream);
        Ok(Ok(Self { begun: begun.clone(), read, write }))
    }

    /// Sends a request. Further frames may belong to it.
    pub(crate) fn ask(&mut self, request: &FilesRequest) -> io::Result<()> {
        self.begun.fetch_or(request.has_effect(), Relaxed);
        self.send(&Frame::message(request)?)
    }

    /// Sends a frame that belongs to a request.
    pub(crate) fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.write.write_all(&frame.head())?;
        self.write.write_all(&frame.payload)
    }

    /// Tells the daemon that this side is alive.
    pub(crate) fn still(&mut self) -> io::Result<()> {
        self.send(&Frame { kind: FrameKind::Still, payload: Vec::new() })?;
        self.write.flush()
    }

    /// Ends the frames that belong to a request.
    pub(crate) fn finish(&mut self, finish: &Finish) -> io::Result<()> {
        self.send(&Frame::message(finish)?)
    }

    /// Receives the next frame.
    pub(crate) fn next(&mut self) -> io::Result<FromDaemon> {
        // If writing failed, the daemon may have said why, so its reply is read first.
        let flushed = self.write.flush();
        loop {
            let mut head = [0; HEAD];
            match self.read.read_exact(&mut head) {
                Err(_) if flushed.is_err() => {
                    flushed?;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                read => read?,
            }
            let (kind, length) = Frame::parse(head)?;
            let mut payload = vec![0; length];
            self.read.read_exact(&mut payload)?;
            let frame = Frame { kind, payload };
            match kind {
                FrameKind::Still => {}
                FrameKind::Message => {
                    return Ok(FromDaemon::Reply(serde_json::from_slice(&frame.payload)?));
                }
                FrameKind::Data => return Ok(FromDaemon::Data(frame)),
                FrameKind::Attribute => return Ok(FromDaemon::Attribute(frame)),
            }
        }
    }

    /// The last reply to a request without an answer of its own.
    pub(crate) fn outcome(&mut self) -> io::Result<CliResult<u64>> {
        match self.next()? {
            FromDaemon::Reply(FilesReply::Done { things }) => Ok(Ok(things)),
            FromDaemon::Reply(FilesReply::Failed { failure }) => Ok(Err(failure)),
            _ => Err(io::Error::other("a reply to something else")),
        }
    }

    /// Sends a request without an answer of its own, and waits for its outcome.
    pub(crate) fn done(&mut self, request: &FilesRequest) -> io::Result<CliResult<u64>> {
        self.ask(request)?;
        self.outcome()
    }

    /// Sends a request whose answer is a list of entries.
    pub(crate) fn entries(
        &mut self,
        request: &FilesRequest,
    ) -> io::Result<CliResult<Vec<FileEntry>>> {
        self.ask(request)?;
        let mut all = Vec::new();
        loop {
            match self.next()? {
                FromDaemon::Reply(FilesReply::Entries { entries }) => all.extend(entries),
                FromDaemon::Reply(FilesReply::Done { .. }) => return Ok(Ok(all)),
                FromDaemon::Reply(FilesReply::Failed { failure }) => return Ok(Err(failure)),
                _ => return Err(io::Error::other("a reply to something else")),
            }
        }
    }

    /// The entry of a path.
    pub(crate) fn stat(&mut self, path: &Path, follows: bool) -> io::Result<CliResult<FileEntry>> {
        let entries = self.entries(&FilesRequest::Stat { path: path.to_owned(), follows })?;
        Ok(entries.and_then(|mut entries| {
            entries.pop().ok_or_else(|| Failure::new(Exit::Other, "the daemon told nothing of it"))
        }))
    }

    /// The entries of a directory, sorted by name.
    pub(crate) fn list(&mut self, path: &Path) -> io::Result<CliResult<Vec<FileEntry>>> {
        let entries = self.entries(&FilesRequest::List { path: path.to_owned() })?;
        Ok(entries.map(|mut entries| {
            entries.sort_by(|a, b| a.name.as_os_str().cmp(b.name.as_os_str()));
            entries
        }))
    }

    /// The extended attributes of a path.
    pub(crate) fn attributes(
        &mut self,
        path: &Path,
    ) -> io::Result<CliResult<Vec<(Vec<u8>, Vec<u8>)>>> {
        self.ask(&FilesRequest::Attributes { path: path.to_owned() })?;
        let mut all = Vec::new();
        loop {
            match self.next()? {
                FromDaemon::Attribute(frame) => {
                    let (name, value) = frame.as_attribute()?;
                    all.push((name.to_vec(), value.to_vec()));
                }
                FromDaemon::Reply(FilesReply::Done { .. }) => return Ok(Ok(all)),
                FromDaemon::Reply(FilesReply::Failed { failure }) => return Ok(Err(failure)),
                _ => return Err(io::Error::other("a reply to something else")),
            }
        }
    }
}
