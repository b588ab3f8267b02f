//! Puts standard input.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::Duration;

use super::super::session::FilesSession;
use super::super::which::last_name;
use super::super::work::Work;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files::wire::{FilesRequest, Finish, Frame, PIECE};
use crate::os;

/// Pieces of standard input that may wait for the daemon.
const PIECES: usize = 4;
/// How often the daemon is told that we are alive while standard input brings nothing.
const STILL: Duration = Duration::from_secs(30);

/// Standard input becomes a file when it ends.
pub(super) fn stdin(session: &FilesSession, to: &Path) -> CliResult {
    if os::stdin_was_closed() {
        return Err(Failure::new(Exit::Usage, "standard input is closed; nothing was put"));
    }
    let mut connection = session.connect()?;
    let lost = |error: io::Error| session.lost(&error);
    let is_directory =
        connection.stat(to, true).map_err(lost)?.is_ok_and(|there| there.is_directory());
    if is_directory || last_name(to).is_none() || to.as_os_str().as_bytes().ends_with(b"/") {
        let text = format!(
            "{}: it is a directory; nothing was done; name the file that standard input becomes",
            to.display()
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    // What is read from standard input cannot be read again.
    session.begins();
    let work = Work::new(session, "put", true);
    let (send, receive) = mpsc::sync_channel::<io::Result<Vec<u8>>>(PIECES);
    // Not joined: it may wait for its pipe for ever.
    drop(std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut input).take(PIECE as u64).read_to_end(&mut piece);
            let is_end = matches!(read, Ok(0)) || read.is_err();
            if send.send(read.map(|_| piece)).is_err() || is_end {
                return;
            }
        }
    }));
    let sent: io::Result<io::Result<()>> = (|| {
        connection.ask(&FilesRequest::Put { path: to.to_owned(), parents: true })?;
        let mut size = 0;
        loop {
            match receive.recv_timeout(STILL) {
                Ok(Ok(piece)) if piece.is_empty() => break,
                Ok(Ok(piece)) => {
                    connection.send(&Frame::data(size, &piece))?;
                    size += piece.len() as u64;
                    work.tally.bytes.fetch_add(piece.len() as u64, Relaxed);
                    work.show();
                }
                Ok(Err(error)) => return Ok(Err(error)),
                Err(mpsc::RecvTimeoutError::Timeout) => connection.still()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Ok(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
        connection.finish(&Finish { size, ..Finish::default() })?;
        Ok(Ok(()))
    })();
    if let Ok(Err(error)) = sent {
        // Closing the connection makes the daemon discard what it has received.
        let text = format!("standard input cannot be read: {error}; nothing was put");
        return Err(Failure::new(Exit::Other, text));
    }
    // If the connection broke, the daemon's last reply says more than the error.
    if work.heard(&to.display().to_string(), connection.outcome()).is_some_and(|done| done.is_ok())
    {
        work.tally.done.fetch_add(1, Relaxed);
    }
    work.outcome("put", "")
}
