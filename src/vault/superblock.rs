//! The superblock: what a vault is, in the clear, under a MAC (K6, O1). Here: how it lies in the bucket.

mod record;

use bytes::Bytes;

use self::record::{Envelope, ends_early};
pub(super) use self::record::{
    KEY_EPOCHS, LENGTH_MAX, OlderEpoch, Renewal, decode, name, open_slot, sealed, verified,
};
pub use self::record::{OpenedBySecret, Superblock, Unlocked};
use super::{Error, Result};
use crate::crypto::{Keys, Passphrase};
use crate::os::{self, PipelineStep};
use crate::store::{Bucket, Error as StoreError, Listed, Lister};
use crate::types::{Generation, VaultId};

/// How often it is asked for before it is believed to be damaged.
const ASKS: u32 = 3;

/// So far beyond the one that counts may those be that are passed over: each is of a change that failed, and took the next number.
/// What somebody puts far above is refused.
const PASSED_OVER: u64 = 16;

/// How many slots are tried for a hint, all forms of a passphrase together.
const HINTS: usize = 6;

/// The highest superblock in the bucket, as `open` has it. What does not open is asked for again, until it opens, the
/// same bytes come twice (then that is what the bucket holds), or it was asked for three times. A changed bit can look
/// like a wrong passphrase, too. One that ends early is passed over where there is one before it: it never counted, as what
/// was before goes only when the next one was read back whole (K6).
pub(super) async fn read<T>(
    bucket: &Bucket,
    open: impl Fn(Generation, &Bytes) -> Result<T> + Send + Sync,
) -> Result<T> {
    Ok(read_past(bucket, open).await?.0)
}

/// As [`read`]; and the first generation that is free beyond what was passed over, if anything was.
async fn read_past<T>(
    bucket: &Bucket,
    open: impl Fn(Generation, &Bytes) -> Result<T> + Send + Sync,
) -> Result<(T, Option<Generation>)> {
    let (mut highest, mut below): (Option<(Generation, Error)>, _) = (None, None);
    loop {
        let found = read_below(bucket, below, &open).await?;
        let is_near = |found: &Highest<T>| {
            let top = highest.as_ref().map_or(found.generation, |(top, _)| *top);
            top.0 - found.generation.0 <= PASSED_OVER
        };
        let Some(found) = found.filter(is_near) else {
            return Err(match highest {
                Some((_, error)) => error,
                None if has_the_rest(bucket).await? => Error::SuperblockLost,
                None => Error::NoVault,
            });
        };
        match found.opened {
            Err(error) if found.ends_early => {
                let object = name(found.generation);
                tracing::warn!(object, "it ends early, and is passed over");
                below = Some(found.generation);
                highest.get_or_insert((found.generation, error));
            }
            opened => return Ok((opened?, highest.map(|(top, _)| top.next()))),
        }
    }
}

/// What became of the highest superblock.
struct Highest<T> {
    generation: Generation,
    opened: Result<T>,
    ends_early: bool,
}

/// The highest one below a generation, if there is any.
async fn read_below<T>(
    bucket: &Bucket,
    below: Option<Generation>,
    open: impl Fn(Generation, &Bytes) -> Result<T> + Send + Sync,
) -> Result<Option<Highest<T>>> {
    let mut before: Option<(Bytes, Error)> = None;
    for asked in 1.. {
        let Some((generation, bytes)) = fetch(bucket, below).await? else { return Ok(None) };
        // Not opened twice: for a passphrase that takes a second.
        if let Some((_, error)) = before.take().filter(|(same, _)| *same == bytes) {
            let ends_early = ends_early(&bytes);
            return Ok(Some(Highest { generation, opened: Err(error), ends_early }));
        }
        match open(generation, &bytes) {
            Err(error) if asked < ASKS => {
                tracing::debug!(object = name(generation), %error, "asking for it again");
                before = Some((bytes, error));
            }
            opened => return Ok(Some(Highest { generation, opened, ends_early: false })),
        }
    }
    unreachable!("it returns at the last of its tries")
}

async fn fetch(bucket: &Bucket, below: Option<Generation>) -> Result<Option<(Generation, Bytes)>> {
    for asked in 1.. {
        let all = generations(bucket).await?.into_iter();
        let all = all.filter(|(generation, _)| below.is_none_or(|below| *generation < below));
        let Some((highest, length)) = all.max() else { return Ok(None) };
        if length > LENGTH_MAX as u64 {
            let why = "it is longer than a superblock can be".to_owned();
            return Err(Error::Superblock { object: name(highest), why });
        }
        match bucket.get(&name(highest), None).await {
            // One that goes between listing and asking has a successor (K6).
            Err(error) if error.is_not_found() && asked < ASKS => {}
            got => return Ok(Some((highest, got?))),
        }
    }
    unreachable!("it returns at the last of its tries")
}

/// Those in the bucket, in no order, and how long each is.
async fn generations(bucket: &Bucket) -> Result<Vec<(Generation, u64)>> {
    let (listed, _) = bucket.list_all("superblock/").await?;
    let generation = |object: &str| object.strip_prefix("superblock/")?.parse::<Generation>().ok();
    let of = |object: &Listed| Some((generation(&object.name)?, object.length));
    Ok(listed.iter().filter_map(of).collect())
}

/// Whether a bucket without a superblock holds other parts of a vault.
pub(super) async fn has_the_rest(bucket: &Bucket) -> Result<bool> {
    for (prefix, digits) in [("log/", 16), ("checkpoint/", 16), ("pack/", 32)] {
        let is_ours = |name: &str| {
            let last = name.rsplit('/').next().unwrap_or_default();
            last.len() == digits && last.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let page = Lister::of(bucket, prefix).next().await?;
        if page.is_some_and(|(listed, _)| listed.iter().any(|object| is_ours(&object.name))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first of these secrets that opens a slot of the vault, for a hint. Each takes about a second.
pub async fn which_opens(bucket: &Bucket, secrets: Vec<Passphrase>) -> Result<Option<usize>> {
    let (superblock, _) = read(bucket, decode).await?;
    // A hint is worth a few seconds, however many slots there are.
    let slots = superblock.slots.iter().filter(|slot| !slot.is_recovery()).count();
    let tried = secrets.iter().take((HINTS / slots.max(1)).max(1));
    Ok(tried.into_iter().position(|secret| open_slot(&superblock, secret).is_ok()))
}

/// The superblock that counts, verified.
///
/// # Errors
/// [`Error::Superblock`] for one that is not sealed by the vault's keys.
pub(super) async fn newest(bucket: &Bucket, unlocked: &Unlocked) -> Result<Superblock> {
    Ok(newest_and_next(bucket, unlocked).await?.0)
}

/// The same; and the generation of its successor: what lies between the two never counted, and goes with what was before.
///
/// # Errors
/// As [`newest`].
pub(super) async fn newest_and_next(
    bucket: &Bucket,
    unlocked: &Unlocked,
) -> Result<(Superblock, Generation)> {
    let open = |generation: Generation, bytes: &Bytes| {
        let (superblock, wire) = decode(generation, bytes)?;
        is_ours(&superblock, &wire, &unlocked.keys)?;
        Ok(superblock)
    };
    let (superblock, free) = read_past(bucket, open).await?;
    let next = free.unwrap_or_else(|| superblock.generation.next());
    Ok((superblock, next))
}

fn is_ours(superblock: &Superblock, wire: &Envelope, keys: &Keys) -> Result<()> {
    match wire.is_by(keys) {
        true => Ok(()),
        false if superblock.epoch > keys.epoch() => Err(Error::Keys(
            "another machine has rotated the vault's key since this one opened it; unmount, and mount again".to_owned(),
        )),
        false => {
            let why = "its MAC is wrong: it was changed by someone without the key".to_owned();
            Err(Error::Superblock { object: name(superblock.generation), why })
        }
    }
}

/// Unlocks the vault once more, by the superblock that counts now, with the key that is known.
///
/// # Errors
/// [`Error::OldSuperblock`] if none came since; as [`newest`].
pub(super) async fn unlocked_anew(bucket: &Bucket, unlocked: &Unlocked) -> Result<Unlocked> {
    let open = |generation: Generation, bytes: &Bytes| {
        let (superblock, wire) = decode(generation, bytes)?;
        is_ours(&superblock, &wire, &unlocked.keys)?;
        verified(&superblock, &wire, bytes, unlocked.master.clone())
    };
    // A copy that the owner named, or that stood in, is as old as it is.
    if unlocked.copied.is_some() {
        return Err(Error::OldSuperblock);
    }
    match read(bucket, open).await {
        Ok(anew) if anew.generation > unlocked.generation => Ok(anew),
        Ok(_) | Err(Error::SuperblockLost | Error::NoVault) => Err(Error::OldSuperblock),
        Err(error) => Err(error),
    }
}

/// The id of the vault in a bucket, without its key; not verified.
pub async fn vault_id(bucket: &Bucket) -> Result<VaultId> {
    read(bucket, |generation, bytes| Ok(decode(generation, bytes)?.0.vault)).await
}

/// Writes a superblock of a generation that is not there yet, and reads it back.
pub(super) async fn write(bucket: &Bucket, keys: &Keys, superblock: &Superblock) -> Result<()> {
    let (object, bytes) = sealed(keys, superblock);
    bucket.put_new(&object, bytes.clone()).await?;
    read_back(bucket, &object, &bytes).await
}

/// Writes the successor of a superblock (K6). Whether it is the one that counts now: if it is not, somebody else wrote
/// one, and whoever wants a change begins again with that.
pub(super) async fn succeed(bucket: &Bucket, keys: &Keys, next: &Superblock) -> Result<bool> {
    let (object, bytes) = sealed(keys, next);
    let put = bucket.put_new(&object, bytes.clone()).await;
    os::reached(PipelineStep::SuperblockPut);
    if let Err(error) = put {
        // The reply may have been lost. What is random in it makes it ours, and nobody else's.
        match bucket.get(&object, None).await {
            Ok(there) if there == bytes => {}
            Ok(_) if matches!(error, StoreError::Exists { .. }) => return Ok(false),
            _ => return Err(error.into()),
        }
    }
    // A number that was given long ago is free again: whoever slept over that finds a higher one.
    if generations(bucket).await?.into_iter().any(|(other, _)| other > next.generation) {
        return Ok(false);
    }
    read_back(bucket, &object, &bytes).await?;
    Ok(true)
}

/// Deletes the superblocks before one that was read back: they would open with secrets that count no more.
pub(super) async fn delete_before(bucket: &Bucket, generation: Generation) -> Result<()> {
    let old = generations(bucket).await?.into_iter().map(|(old, _)| old);
    let old: Vec<String> = old.filter(|old| *old < generation).map(name).collect();
    if !old.is_empty() {
        bucket.delete(&old).await?;
    }
    os::reached(PipelineStep::OldSuperblocksGone);
    Ok(())
}

async fn read_back(bucket: &Bucket, object: &str, bytes: &Bytes) -> Result<()> {
    for _ in 0..ASKS {
        if bucket.get(object, None).await? == *bytes {
            return Ok(());
        }
    }
    let why = "the store does not return what was just written to it".into();
    Err(Error::Superblock { object: object.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::crypto::{FIRST_EPOCH, MasterKey, random};
    use crate::store::{Deadlines, Fault, Faulty, MemoryStore, On, Verb};

    #[tokio::test]
    async fn k6_a_generation_is_written_once_and_read_back() {
        let memory = Arc::new(MemoryStore::new());
        let faulty = Faulty::over(memory.clone());
        let bucket = Bucket::over(faulty.clone(), "", Deadlines::default());
        let vault = VaultId(random());
        let keys = Keys::derive(&MasterKey::from_bytes([1; 32]), vault, FIRST_EPOCH);
        let mut superblock = Superblock::first(vault, Vec::new());
        write(&bucket, &keys, &superblock).await.unwrap();
        let first = memory.peek(&name(Generation(1))).unwrap();
        // Another one of that generation: what is there stays.
        superblock.required.push(1);
        let taken = write(&bucket, &keys, &superblock).await.unwrap_err();
        assert!(matches!(taken, Error::Store(StoreError::Exists { .. })), "{taken}");
        assert_eq!(memory.peek(&name(Generation(1))).unwrap(), first);
        // One that does not come back as it was written does not count; a bit on the way is asked for again.
        for (flips, counts) in [(u32::MAX, false), (1, true)] {
            superblock.generation = superblock.generation.next();
            faulty.inject(On::next(Verb::Get, "superblock/").times(flips), Fault::FlipsBit);
            let written = write(&bucket, &keys, &superblock).await;
            assert_eq!(written.is_ok(), counts, "{flips}");
            faulty.heal();
        }
    }
}
