//! A files connection: carries out its requests on the vault, one after the other.

mod asked;
mod content;
mod failure;
mod trees;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::asked::{Asked, IDLE};
use self::failure::Broken;
pub(super) use self::failure::Fail;
use crate::cli::files::wire::{FilesReply, FilesRequest, Frame, FrameKind};
use crate::files::Files;

/// How often a client is told that we are alive if there is nothing else to say.
const STILL: Duration = Duration::from_secs(5);
/// Frames that may be queued for a client.
const FRAMES: usize = 2;

/// Serves a client until it disconnects.
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
        // If such a request fails, its frames may not have been read to the end, so the connection ends.
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

/// Sends frames as they come, and signs of life in between.
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
            // More frames may be queued, so flush only after the last.
            if frames.is_empty() { to.flush().await } else { Ok(()) }
        };
        timeout(IDLE, send).await??;
    }
}
