//! Rule W6: tests whether the store keeps its word about conditional puts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::deadlines::Deadlines;
use super::error::{Error, Result};
use super::object::{Body, Put, Store};
use super::retry::RetryPlan;

/// Concurrent puts of one key. More would expose a faulty store more surely, but some correct ones take seconds
/// over a race.
const RACERS: u32 = 8;
/// How often the probe's object is deleted before it counts as undeletable.
const SWEEPS: u32 = 8;

/// The result of the test of conditional puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditional {
    /// Exactly one put won. That does not prove that it always will, hence the name.
    NotDisproved,
    /// The store ignored the condition: two machines could overwrite each other's log.
    Ignored,
    /// The store refuses every put with a condition, but accepts one without: two machines that put that way
    /// could overwrite each other's log.
    Refused,
}

/// Puts one key [`RACERS`] times at once, then once more, and deletes it. Until the deadline, a request that
/// fails for a moment is repeated, and a test without a result is made again with another key.
pub(super) async fn run(
    store: &Arc<dyn Store>,
    prefix: &str,
    limits: &Deadlines,
) -> Result<Conditional> {
    let mut plan = RetryPlan::new(limits, limits.operation);
    loop {
        let error = match once(store, prefix, limits).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        plan.after(error).await?;
    }
}

/// A name that nobody uses.
pub(super) fn name() -> String {
    format!("probe/{:016x}{:016x}", random(), random())
}

async fn once(store: &Arc<dyn Store>, prefix: &str, limits: &Deadlines) -> Result<Conditional> {
    let name = format!("{prefix}{}", name());
    let result = tokio::time::timeout(limits.operation, race(store, &name, limits)).await;
    let result = result
        .unwrap_or_else(|_| Err(Error::Deadline { object: name.clone(), after: limits.operation }));
    let swept = tokio::time::timeout(limits.operation, sweep(store, &name, limits));
    match swept.await {
        Ok(Ok(())) => result,
        Ok(Err(error)) => result.and(Err(error)),
        Err(_) => result.and(Err(Error::Deadline { object: name, after: limits.operation })),
    }
}

/// Repeats a put as long as that may help. Also returns whether any attempt left it open whether it was carried
/// out.
async fn put(
    store: &Arc<dyn Store>,
    name: &str,
    body: &Body,
    limits: &Deadlines,
) -> (Result<()>, bool) {
    let mut plan = RetryPlan::new(limits, limits.operation);
    let mut open = false;
    loop {
        let Err(error) = store.put(name, body, Put::IfAbsent).await else {
            return (Ok(()), open);
        };
        open |= error.is_transient();
        if let Err(error) = plan.after(error).await {
            return (Err(error), open);
        }
    }
}

async fn race(store: &Arc<dyn Store>, name: &str, limits: &Deadlines) -> Result<Conditional> {
    let puts = (0..RACERS).map(|racer| {
        let (store, name, limits) = (store.clone(), name.to_owned(), *limits);
        // Each has its own bytes, so that a store cannot take two for one.
        let body = Body::from(format!("conditional put {racer} of {name}").into_bytes());
        tokio::spawn(async move { put(&store, &name, &body, &limits).await })
    });
    let puts: Vec<_> = puts.collect();
    let (mut won, mut failed, mut open) = (0, None, false);
    for put in puts {
        match put.await {
            Ok((result, left_open)) => {
                open |= left_open;
                match result {
                    Ok(()) => won += 1,
                    Err(Error::Exists { .. }) => {}
                    Err(error) => failed = Some(error),
                }
            }
            Err(panic) => {
                let object = name.to_owned();
                failed = Some(Error::Other { object, cause: Arc::new(panic) });
            }
        }
    }
    if won > 1 {
        return Ok(Conditional::Ignored);
    }
    match failed {
        None => {}
        Some(error) if won == 0 && may_be_the_condition(&error) => {
            // Tests whether it is the condition that is refused. Nobody else knows this name.
            let body = Body::from("without a condition");
            let taken = store.put(name, &body, Put::Always).await.is_ok();
            return if taken { Ok(Conditional::Refused) } else { Err(error) };
        }
        Some(error) => return Err(error),
    }
    // What is there now must stay.
    match put(store, name, &Body::from("late"), limits).await.0 {
        Ok(()) if won == 0 && open => Err(unclear(name)),
        Ok(()) => Ok(Conditional::Ignored),
        Err(Error::Exists { .. }) if won == 1 => Ok(Conditional::NotDisproved),
        // The winner's answer was lost, so this shows nothing.
        Err(Error::Exists { .. }) if open => Err(unclear(name)),
        Err(Error::Exists { object }) => Err(Error::Corrupt {
            object,
            reason: "every put of it was refused as one too many".to_owned(),
        }),
        Err(error) => Err(error),
    }
}

fn unclear(name: &str) -> Error {
    let cause = Arc::from(Box::from("its answers were lost"));
    Error::Busy { object: name.to_owned(), cause }
}

fn may_be_the_condition(error: &Error) -> bool {
    matches!(error, Error::NoConditions { .. } | Error::Unsupported { .. } | Error::Other { .. })
}

/// Deletes the probe until it is gone. A store that let several puts of one key win at once may bring one of them
/// back after the first delete (`rclone serve s3` does).
async fn sweep(store: &Arc<dyn Store>, name: &str, limits: &Deadlines) -> Result<()> {
    let mut plan = RetryPlan::new(limits, limits.operation);
    for sweep in 1..=SWEEPS {
        while let Err(error) = store.delete(&[name.to_owned()]).await {
            plan.after(error).await?;
        }
        match store.head(name).await {
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => plan.after(error).await?,
            Ok(_) => tokio::time::sleep(Duration::from_millis(20) * sweep).await,
        }
    }
    let reason = format!("it is still there after {SWEEPS} deletes");
    Err(Error::Corrupt { object: name.to_owned(), reason })
}

/// A number that differs from call to call; for names, not for secrets.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
