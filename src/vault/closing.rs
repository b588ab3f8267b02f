//! Closing a vault: everything goes to the bucket, then the claim is released (W1), then the journal notes the
//! clean end.

use std::time::Duration;

use super::following::Following;
use super::open_vault::{Ending, Vault, Writer};
use super::{Error, Result};
use crate::log::{CommitError, Committer, Head};
use crate::os::{self, PipelineStep};
use crate::{index, log, upload};

/// How often a release is tried before the vault stays claimed by this machine.
const RELEASE_TRIES: usize = 4;

impl Vault {
    /// Sends what is unsent, releases the claim and ends all tasks. The mount must be gone: later writes are
    /// refused.
    ///
    /// # Errors
    /// [`crate::upload::Error::Unfinished`] and what the store says. The vault then stays open, and everything
    /// unsent stays on this machine, for another try or the next mount. Another try goes on where this one ended.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        let Some(writer) = &self.writer else {
            self.following.iter().for_each(Following::end);
            self.cache().end().await;
            return Ok(());
        };
        let mut ending = writer.ending.lock().await;
        if matches!(*ending, Ending::Open) {
            *ending = Ending::Sent(self.stop_sending(writer, deadline).await?.map(Box::new));
        }
        let released = match &mut *ending {
            Ending::Sent(Some(committer)) => self.release(writer, committer).await,
            Ending::Open | Ending::Sent(None) => Err(Error::Local("the uploader ended".into())),
            Ending::Released => Ok(()),
            Ending::Closed => return Ok(()),
        };
        if released.is_ok() {
            *ending = Ending::Released;
        }
        self.mark_clean(writer).await?;
        released?;
        self.cache().end().await;
        *ending = Ending::Closed;
        Ok(())
    }

    /// Waits until everything is in the bucket, stops the uploader, and returns its committer.
    async fn stop_sending(&self, writer: &Writer, deadline: Duration) -> Result<Option<Committer>> {
        self.sync(deadline).await?;
        writer.periodic.lock().take();
        let last = writer.journal.close_to_appends();
        // Meanwhile background work may have changed something, with a pack that is still open to more extents.
        let sent = match self.content.close_packs() {
            Ok(()) => writer.uploader.sync(last, deadline).await.map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            writer.journal.reopen_to_appends();
            return Err(error);
        }
        Ok(writer.uploader.stop().await)
    }

    /// Makes everything local durable, and notes in the journal that nothing was cut off.
    async fn mark_clean(&self, writer: &Writer) -> Result<()> {
        let finished = writer.barrier.finish().await.map_err(Error::from);
        let (journal, index) = (writer.journal.clone(), self.index.clone());
        let marked = os::blocking(move || {
            index.flush()?;
            Ok::<_, Error>(journal.mark_clean()?)
        });
        let marked = marked.await.map_err(|panic| Error::Local(panic.to_string()))?;
        match finished.and(marked) {
            // Everything is in the bucket. Only the clean end is not noted, so the next mount checks more.
            Err(
                Error::Upload(upload::Error::Full)
                | Error::Log(log::Error::Full)
                | Error::Index(index::Error::Log(log::Error::Full)),
            ) => {
                tracing::warn!("the disk is full: the clean end is not noted");
                Ok(())
            }
            other => {
                os::reached(PipelineStep::CleanNoted);
                other
            }
        }
    }

    async fn release(&self, writer: &Writer, committer: &mut Committer) -> Result<()> {
        for attempt in 1.. {
            match committer.release().await {
                Ok(receipt) => {
                    os::reached(PipelineStep::Released);
                    self.index.confirmed(&receipt);
                    writer.recorder.remember(receipt.number(), receipt.hash());
                    let (number, hash) = (receipt.number(), receipt.hash());
                    *self.head.lock() = Head { number, hash, seen: receipt.time() };
                    writer.journal.note_confirmed(&receipt)?;
                    os::reached(PipelineStep::ReleaseNoted);
                    return Ok(());
                }
                Err(CommitError::Again { .. }) if attempt < RELEASE_TRIES => {}
                Err(CommitError::Again { cause, .. }) => {
                    return Err(cause.map_or(Error::Contended, Error::Store));
                }
                Err(CommitError::Fenced { .. }) => return Err(Error::Contended),
                Err(CommitError::Log(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
