//! Sends packs: several at once, verified, repeated until the bucket has them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::job::{InBucket, PackJob};
use super::pack_names::pack_object;
use super::pipeline::Pipeline;
use crate::os::{self, PipelineStep};
use crate::store::{self, Moved};
use crate::types::with_causes;

/// Why a pack is not in the bucket yet.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("pack {0} cannot be read from staging: {1}")]
    Read(crate::types::PackId, String),
    #[error("the store said that it took {0}, but holds something else")]
    Broken(String),
    #[error("the bucket holds something else as {0}")]
    Stranger(String),
    #[error(transparent)]
    Panicked(#[from] os::Panicked),
}

/// Sends packs until stopped. While the store fails, it takes only one pack after each pause.
pub(super) async fn run(pipeline: Arc<Pipeline>) {
    let mut stop = pipeline.stop.subscribe();
    let mut wanted = pipeline.wanted.subscribe();
    let mut flying: JoinSet<(PackJob, Result<InBucket, Error>)> = JoinSet::new();
    let mut backoff = pipeline.backoff();
    loop {
        let changed = pipeline.area.changed.notified();
        if pipeline.halted() {
            flying.shutdown().await;
            return;
        }
        let most = if backoff.is_failing() { 1 } else { pipeline.limits.parallel };
        pipeline.in_flight.lock().look(false);
        while flying.len() < most && backoff.is_due() {
            let (room, room_full) = pipeline.in_flight.lock().room(pipeline.limits.bytes);
            let taken = pipeline.area.table.lock().take(room, room_full);
            let Some(job) = taken else { break };
            pipeline.note_sending(1);
            let (sender, moved) = (pipeline.clone(), pipeline.bucket.moving());
            pipeline.in_flight.lock().begin(job, moved.clone());
            flying.spawn(async move {
                // A pack whose task panics goes back into the queue, like one that fails.
                let sent = os::watched("sending a pack", send(&sender, job, &moved)).await;
                (job, sent.unwrap_or_else(|panicked| Err(panicked.into())))
            });
        }
        let queued = pipeline.area.table.lock().has_queue();
        let idle = flying.is_empty() && !queued;
        // Packs may be waiting until the link's rate is better known.
        let looks = queued && !flying.is_empty() && flying.len() < most;
        if flying.is_empty() {
            pipeline.buffers.clear();
        }
        if idle {
            pipeline.packs_health.succeeded(); // nothing is left to send: what failed is not needed any more
            backoff.succeeded();
        }
        // A pause is waited out only if there is something to send after it.
        let pause = backoff.until().filter(|_| !idle && flying.is_empty());
        tokio::select! {
            biased;
            Some(done) = flying.join_next() => {
                pipeline.note_sending(-1);
                // A panic of the task is among the results, and no other error is possible.
                let Ok((job, result)) = done else { continue };
                pipeline.in_flight.lock().end(job, result.is_ok());
                settle(&pipeline, &mut backoff, job, result);
            }
            () = changed => (),
            () = tokio::time::sleep(LOOK), if looks => (),
            () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => (),
            // Somebody waits: try again now.
            _ = wanted.changed() => backoff.end_pause(),
            _ = stop.changed() => (),
        }
    }
}

/// How often to look at the link's rate while a pack waits for the link.
const LOOK: Duration = Duration::from_millis(250);

fn settle(
    pipeline: &Pipeline,
    backoff: &mut Backoff,
    job: PackJob,
    result: Result<InBucket, Error>,
) {
    let mut table = pipeline.area.table.lock();
    match result {
        Ok(proof) => {
            table.in_bucket(&proof);
            drop(table);
            backoff.succeeded();
            pipeline.packs_health.succeeded();
            os::ProcessTally::PacksSent.add(1);
            pipeline.steps.done(PipelineStep::PackConfirmed);
        }
        Err(error) => {
            table.not_sent(job);
            drop(table);
            pipeline.area.discard_unwanted(job.pack, false);
            let pause = backoff.failed();
            let text = with_causes(&error);
            tracing::warn!(pack = %job.pack, error = %text, ?pause, "a pack was not sent; again later");
            pipeline.packs_health.failed(text);
        }
    }
    pipeline.area.changed.notify_waiters();
}

async fn send(pipeline: &Pipeline, job: PackJob, moved: &Moved) -> Result<InBucket, Error> {
    let (area, buffers) = (pipeline.area.clone(), pipeline.buffers.clone());
    let read = os::blocking(move || {
        let mut body = buffers.take(usize::try_from(job.length).unwrap_or(0));
        let read = area.read_into(job.pack, 0..job.length, body.as_mut());
        read.map(|here| here.then(|| body.into_bytes()))
    });
    let body = match read.await {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => return Err(Error::Read(job.pack, "it is not there".into())),
        Ok(Err(error)) => return Err(Error::Read(job.pack, with_causes(&error))),
        Err(panic) => return Err(Error::Read(job.pack, panic.to_string())),
    };
    pipeline.steps.done(PipelineStep::PackRead);
    let name = pack_object(job.pack);
    let put = pipeline.bucket.put_new_counted(&name, body.clone(), moved).await;
    os::reached(PipelineStep::PackPut);
    let result = match put {
        Ok(uploaded) => InBucket::put(job, &uploaded).ok_or(Error::Stranger(name)),
        Err(store::Error::Exists { .. }) => compare(pipeline, job, &name, &body).await,
        Err(error) => {
            // The store replied 200, so the object is ours, and broken.
            if matches!(error, store::Error::Corrupt { .. }) {
                pipeline.broken.lock().insert(job.pack);
            }
            Err(error.into())
        }
    };
    if result.is_ok() {
        pipeline.broken.lock().remove(&job.pack);
    }
    result
}

/// The name is taken by a put from before a crash (W1, J7). That is fine if it holds our extents.
///
/// A put of ours that the store broke is deleted, so that it can be repeated. It is ours if the store replied 200 to it
/// in this process, or if it is a beginning of our bytes: without a footer, nobody can have taken it for a pack.
async fn compare(
    pipeline: &Pipeline,
    job: PackJob,
    name: &str,
    ours: &Bytes,
) -> Result<InBucket, Error> {
    let theirs = pipeline.bucket.get(name, None).await?;
    let parts = pipeline.area.table.lock().parts(job.pack);
    if let Some(proof) = InBucket::compared(job, parts.as_deref(), ours, &theirs) {
        return Ok(proof);
    }
    if ours.starts_with(&theirs) || pipeline.broken.lock().contains(&job.pack) {
        pipeline.bucket.delete(&[name.to_owned()]).await?;
        return Err(Error::Broken(name.to_owned()));
    }
    Err(Error::Stranger(name.to_owned()))
}
