//! Trims the journal while the vault is used (J5).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::index::{self, Index};
use crate::log::{self, Journal};
use crate::os;
use crate::types::Seq;

/// How long to wait before retrying a trim that a full disk prevented.
const TRIM_AGAIN: Duration = Duration::from_secs(5);

/// J5: after each barrier, removes the journal segments that the bucket has and the index has flushed past. Ends with
/// the barrier.
pub(super) async fn trim(journal: Arc<Journal>, index: Index, mut durable: watch::Receiver<Seq>) {
    let mut is_owed = false;
    loop {
        // Nothing tells when a disk has room again, and while the journal is full no change comes that would wake us.
        let told = match is_owed {
            true => timeout(TRIM_AGAIN, durable.changed()).await.unwrap_or(Ok(())),
            false => durable.changed().await,
        };
        if told.is_err() {
            return;
        }
        is_owed = false;
        if !journal.is_trimmable() {
            continue;
        }
        let (journal, index) = (journal.clone(), index.clone());
        let trim = move || {
            let flushed = index.flush()?;
            Ok::<_, index::Error>(journal.trim(flushed)?)
        };
        let done = os::blocking(move || os::watched_here("trimming the journal", trim));
        match done.await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(index::Error::Log(log::Error::Full)))) => is_owed = true,
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the journal is not trimmed"),
            // The panic is logged; the next barrier brings the next try.
            Ok(Err(_panicked)) => {}
            Err(_) => return, // the runtime is shutting down
        }
    }
}
