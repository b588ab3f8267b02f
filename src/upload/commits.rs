//! Commits: the journal's transactions in order, once the bucket has what they refer to (C1), one in flight (C2).

use std::sync::Arc;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::pipeline::{Pipeline, StopReason};
use crate::log::{COMMIT_BYTES, CommitError, Committer, Journaled, Receipt};
use crate::os::{self, PipelineStep};
use crate::records::TRANSACTION_MAX;
use crate::types::{Seq, with_causes};

/// Writes commits until stopped. Returns the committer, so that a release can follow.
pub(super) async fn run(pipeline: Arc<Pipeline>, mut committer: Committer) -> Option<Committer> {
    let mut backoff = pipeline.backoff();
    let mut since = None;
    // A commit that is already prepared comes first: all its attempts are of the same bytes (C2).
    while !pipeline.halted() {
        if !committer.is_pending() {
            let from = committer.upto();
            let Some(upto) = next_run(&pipeline, from, since.take()).await else { break };
            match read(&pipeline, from, upto).await {
                // Sealing megabytes takes milliseconds, so it does not run on a worker of the runtime.
                Ok(batch) => {
                    let prepare = move || {
                        committer.prepare(&batch);
                        committer
                    };
                    let prepare = move || os::watched_here("sealing a commit", prepare);
                    match os::blocking(prepare).await {
                        Ok(Ok(prepared)) => committer = prepared,
                        Ok(Err(panicked)) => {
                            pipeline.give_up(panicked);
                            return None;
                        }
                        Err(_) => return None, // the runtime is shutting down
                    }
                }
                Err(error) => {
                    fail(&pipeline, &mut backoff, error).await;
                    continue;
                }
            }
            pipeline.steps.done(PipelineStep::CommitPrepared);
        }
        // What is appended while this commit is in flight goes into the next one, whose linger counts from here.
        since = Some(Instant::now());
        let mut stop = pipeline.stop.subscribe();
        pipeline.in_flight.lock().begin_commit(committer.moving());
        let attempt = tokio::select! {
            biased;
            attempt = committer.attempt() => attempt,
            _ = stop.wait_for(Option::is_some) => break,
        };
        pipeline.in_flight.lock().end_commit(attempt.is_ok());
        match attempt {
            Ok(receipt) => {
                backoff.succeeded();
                pipeline.commits_health.succeeded();
                crate::os::ProcessTally::CommitsSent.add(1);
                pipeline.steps.done(PipelineStep::CommitConfirmed);
                if confirmed(&pipeline, &receipt).is_err() {
                    break; // the journal is poisoned
                }
            }
            Err(CommitError::Fenced { found }) => {
                tracing::error!(commit = %found, "another writer has taken over: nothing more is sent");
                // Before anyone is told of the stop, so that they find the vault read-only (W3).
                (pipeline.hooks.on_fenced)(found);
                pipeline.stop_with(StopReason::Fenced(found));
            }
            Err(error) => fail(&pipeline, &mut backoff, with_causes(&error)).await,
        }
    }
    Some(committer)
}

/// C5: the one place where unsent transactions of an open vault become sent.
fn confirmed(pipeline: &Pipeline, receipt: &Receipt) -> super::error::Result<()> {
    pipeline.barrier.note(receipt)?;
    (pipeline.hooks.on_confirmed)(receipt);
    pipeline.confirmed.send_replace(receipt.upto());
    Ok(())
}

/// Waits until a commit should leave: at once if somebody waits for it, otherwise `linger` after the first
/// transaction that it can hold. `None`: stopped.
async fn next_run(pipeline: &Pipeline, from: Seq, since: Option<Instant>) -> Option<Seq> {
    let mut appended = pipeline.journal.subscribe();
    let mut wanted = pipeline.wanted.subscribe();
    let mut stop = pipeline.stop.subscribe();
    let mut since = since;
    loop {
        let changed = pipeline.area.changed.notified();
        appended.mark_unchanged();
        if pipeline.halted() {
            return None;
        }
        let all = pipeline.journal.appended();
        let upto = pipeline.area.table.lock().sendable(all);
        if upto <= from {
            since = None;
            // If it waits for a pack, more appends do not help, so they do not wake it.
            let has_nothing = all <= from;
            tokio::select! {
                biased;
                gone = appended.changed(), if has_nothing => if gone.is_err() { return None },
                () = changed => (),
                _ = stop.changed() => (),
            }
            continue;
        }
        let leaves = *since.get_or_insert_with(Instant::now) + pipeline.limits.linger;
        if *wanted.borrow_and_update() > from || Instant::now() >= leaves {
            return Some(upto);
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(leaves) => (),
            _ = wanted.changed() => (),
            _ = stop.changed() => (),
        }
    }
}

async fn read(pipeline: &Pipeline, from: Seq, upto: Seq) -> Result<Vec<Journaled>, String> {
    let journal = pipeline.journal.clone();
    // Read up to `upto` and not beyond: then the next batch goes on where this one ends, instead of reading a whole
    // segment again. A batch may exceed its limit by one transaction.
    let most = pipeline.limits.commit.min(COMMIT_BYTES) - TRANSACTION_MAX;
    let read = move || journal.read_between(from, upto, most);
    let read = os::blocking(read).await;
    let mut batch = read.map_err(|e| e.to_string())?.map_err(|e| with_causes(&e))?;
    let last = batch.last().map_or(from, |last| last.seq);
    let end = pipeline.area.table.lock().commit_end(from, last);
    batch.retain(|transaction| transaction.seq <= end);
    if end > last {
        // They must share a commit because of a dropped pack; `CommitSpans` bounds how much that is.
        let journal = pipeline.journal.clone();
        let read = move || journal.read_between(last, end, COMMIT_BYTES);
        let rest = os::blocking(read).await;
        batch.extend(rest.map_err(|e| e.to_string())?.map_err(|e| with_causes(&e))?);
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

async fn fail(pipeline: &Pipeline, backoff: &mut Backoff, error: String) {
    let pause = backoff.failed();
    tracing::warn!(error, ?pause, "a commit is not confirmed; again later");
    pipeline.commits_health.failed(error);
    let mut stop = pipeline.stop.subscribe();
    let mut wanted = pipeline.wanted.subscribe();
    tokio::select! {
        biased;
        () = tokio::time::sleep(pause) => (),
        _ = wanted.changed() => (), // somebody waits: try again now
        _ = stop.changed() => (),
    }
}
