//! Commits: the journal's transactions in order, once the bucket has what they refer to (C1), one in flight (C2).

use std::sync::Arc;

use tokio::time::Instant;

use super::health::{Pace, Shared, Stop};
use super::send::chain;
use super::steps::Step;
use crate::log::{COMMIT_BYTES, CommitError, Committer, Journaled, Receipt};
use crate::records::TRANSACTION_MAX;
use crate::types::Seq;

/// Writes commits until stopped; gives the committer back, so that a release can follow.
pub(super) async fn run(shared: Arc<Shared>, mut committer: Committer) -> Option<Committer> {
    let mut pace = Pace::new(&shared.limits);
    let mut since = None;
    // One that was prepared before comes first: each attempt is of the same bytes (C2).
    while !shared.halted() {
        if !committer.is_pending() {
            let from = committer.upto();
            let Some(upto) = next_run(&shared, from, since.take()).await else { break };
            match read(&shared, from, upto).await {
                // Sealing megabytes takes milliseconds: not on a worker of the runtime.
                Ok(batch) => {
                    let prepared = tokio::task::spawn_blocking(move || {
                        committer.prepare(&batch);
                        committer
                    });
                    match prepared.await {
                        Ok(prepared) => committer = prepared,
                        Err(panic) => {
                            shared.stop_for(&format!("sealing a commit failed: {panic}"));
                            return None;
                        }
                    }
                }
                Err(error) => {
                    fail(&shared, &mut pace, error).await;
                    continue;
                }
            }
            shared.steps.done(Step::CommitPrepared);
        }
        // What comes while this one is in flight is the next one's; its linger counts from here.
        since = Some(Instant::now());
        let mut stop = shared.stop.subscribe();
        shared.wire.lock().commit_begins(committer.moving());
        let attempt = tokio::select! {
            attempt = committer.attempt() => attempt,
            _ = stop.wait_for(Option::is_some) => break,
        };
        shared.wire.lock().commit_ends(attempt.is_ok());
        match attempt {
            Ok(receipt) => {
                pace.succeeded();
                shared.commits_health.succeeded();
                shared.steps.done(Step::CommitConfirmed);
                if confirmed(&shared, &receipt).is_err() {
                    break; // the journal is poisoned
                }
            }
            Err(CommitError::Fenced { found }) => {
                tracing::error!(commit = %found, "another writer has taken over: nothing more is sent");
                // First: whoever waits for the end finds the vault read-only (W3).
                (shared.hooks.on_fenced)(found);
                shared.stop_with(Stop::Fenced(found));
            }
            Err(error) => fail(&shared, &mut pace, chain(&error)).await,
        }
    }
    Some(committer)
}

/// C5: the one place where unsent transactions become sent.
fn confirmed(shared: &Shared, receipt: &Receipt) -> super::error::Result<()> {
    shared.barrier.note(receipt)?;
    (shared.hooks.on_confirmed)(receipt);
    shared.confirmed.send_replace(receipt.upto());
    Ok(())
}

/// Waits until a commit should leave: at once when somebody waits for it, else `linger` after the first transaction
/// that it can hold. `None`: stopped.
async fn next_run(shared: &Shared, from: Seq, since: Option<Instant>) -> Option<Seq> {
    let mut appended = shared.journal.subscribe();
    let mut wanted = shared.wanted.subscribe();
    let mut stop = shared.stop.subscribe();
    let mut since = since;
    loop {
        let changed = shared.staging.shared.changed.notified();
        appended.mark_unchanged();
        if shared.halted() {
            return None;
        }
        let upto = shared.staging.shared.table.lock().sendable(shared.journal.appended());
        if upto <= from {
            since = None;
            tokio::select! {
                gone = appended.changed() => if gone.is_err() { return None },
                () = changed => (),
                _ = stop.changed() => (),
            }
            continue;
        }
        let leaves = *since.get_or_insert_with(Instant::now) + shared.limits.linger;
        if *wanted.borrow_and_update() > from || Instant::now() >= leaves {
            return Some(upto);
        }
        tokio::select! {
            () = tokio::time::sleep_until(leaves) => (),
            _ = wanted.changed() => (),
            _ = stop.changed() => (),
        }
    }
}

async fn read(shared: &Shared, from: Seq, upto: Seq) -> Result<Vec<Journaled>, String> {
    let journal = shared.journal.clone();
    // Not beyond: the next batch goes on where this one ends, else all of a segment would be opened
    // again. It may go beyond its limit of bytes by one transaction.
    let most = shared.limits.commit.min(COMMIT_BYTES) - TRANSACTION_MAX;
    let read = move || journal.read_between(from, upto, most);
    let read = tokio::task::spawn_blocking(read).await;
    let mut batch = read.map_err(|e| e.to_string())?.map_err(|e| chain(&e))?;
    let last = batch.last().map_or(from, |last| last.seq);
    let end = shared.staging.shared.table.lock().commit_end(from, last);
    batch.retain(|transaction| transaction.seq <= end);
    if end > last {
        // They hold together because of a pack that was dropped; `Spans` sees to it that this is not too much.
        let journal = shared.journal.clone();
        let read = move || journal.read_between(last, end, COMMIT_BYTES);
        let rest = tokio::task::spawn_blocking(read).await;
        batch.extend(rest.map_err(|e| e.to_string())?.map_err(|e| chain(&e))?);
    }
    let mut next = from;
    for transaction in &batch {
        next = next.next();
        if transaction.seq != next {
            return Err(format!("the journal gives {:?} where {next:?} follows", transaction.seq));
        }
    }
    if next < end {
        return Err(format!("the journal ends with {next:?}, where {end:?} belongs to the commit"));
    }
    if batch.is_empty() {
        return Err(format!("the journal gives nothing after {from:?}"));
    }
    Ok(batch)
}

async fn fail(shared: &Shared, pace: &mut Pace, error: String) {
    let pause = pace.failed();
    tracing::warn!(error, ?pause, "a commit is not confirmed; again later");
    shared.commits_health.failed(error);
    let mut stop = shared.stop.subscribe();
    let mut wanted = shared.wanted.subscribe();
    tokio::select! {
        () = tokio::time::sleep(pause) => (),
        _ = wanted.changed() => (), // somebody waits: there may be reason to hope
        _ = stop.changed() => (),
    }
}
