//! Rule W6: does the store keep its word about conditional puts?

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::deadlines::Deadlines;
use super::error::{Error, Result};
use super::object::{Body, Put, Store};

/// Puts of one key at once. More make a wrong store show itself more surely; some right ones take seconds
/// over a race.
const RACERS: u32 = 8;
/// Times that the probe is deleted before it is called one that stays.
const SWEEPS: u32 = 8;

/// What the test of conditional puts found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditional {
    /// Exactly one put won. That proves nothing for every moment, hence the name.
    NotDisproved,
    /// The store ignored the condition: two machines could overwrite each other's log.
    Ignored,
}

/// Puts one key [`RACERS`] times at once, then once more, and deletes it.
pub(super) async fn run(
    store: &Arc<dyn Store>,
    prefix: &str,
    limits: &Deadlines,
) -> Result<Conditional> {
    let name = format!("{prefix}probe/{:016x}{:016x}", random(), random());
    let result = tokio::time::timeout(limits.operation, race(store, &name)).await;
    let result = result
        .unwrap_or_else(|_| Err(Error::Deadline { object: name.clone(), after: limits.operation }));
    let swept = tokio::time::timeout(limits.operation, sweep(store, &name));
    match swept.await {
        Ok(Ok(())) => result,
        Ok(Err(error)) => result.and(Err(error)),
        Err(_) => result.and(Err(Error::Deadline { object: name, after: limits.operation })),
    }
}

async fn race(store: &Arc<dyn Store>, name: &str) -> Result<Conditional> {
    let puts = (0..RACERS).map(|racer| {
        let (store, name) = (store.clone(), name.to_owned());
        // Each its own bytes, so that a store cannot take two for one.
        let body = Body::from(format!("conditional put {racer} of {name}").into_bytes());
        tokio::spawn(async move { store.put(&name, &body, Put::IfAbsent).await })
    });
    let puts: Vec<_> = puts.collect();
    let (mut won, mut failed) = (0, None);
    for put in puts {
        match put.await {
            Ok(Ok(_)) => won += 1,
            Ok(Err(Error::Exists { .. })) => {}
            Ok(Err(error)) => failed = Some(error),
            Err(panic) => {
                let object = name.to_owned();
                failed = Some(Error::Other { object, cause: Arc::new(panic) });
            }
        }
    }
    if won > 1 {
        return Ok(Conditional::Ignored);
    }
    if let Some(error) = failed {
        return Err(error);
    }
    // What is there now must stay.
    match store.put(name, &Body::from("late"), Put::IfAbsent).await {
        Ok(_) => Ok(Conditional::Ignored),
        Err(Error::Exists { .. }) if won == 1 => Ok(Conditional::NotDisproved),
        Err(Error::Exists { object }) => Err(Error::Corrupt {
            object,
            reason: "every put of it was refused as one too many".to_owned(),
        }),
        Err(error) => Err(error),
    }
}

/// Deletes the probe until it is gone. A store that let several puts of one key win at once may bring one of them
/// back after the first delete (`rclone serve s3` does).
async fn sweep(store: &Arc<dyn Store>, name: &str) -> Result<()> {
    for sweep in 1..=SWEEPS {
        store.delete(&[name.to_owned()]).await?;
        match store.head(name).await {
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => tokio::time::sleep(Duration::from_millis(20) * sweep).await,
        }
    }
    let reason = format!("it is still there after {SWEEPS} deletes");
    Err(Error::Corrupt { object: name.to_owned(), reason })
}

/// A number that differs from call to call: a name, not a secret.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
