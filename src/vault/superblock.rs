//! The superblock: what a vault is, in the clear, under a MAC (K6, O1). Here: how it is stored in the bucket.

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

/// How often a superblock is fetched before it is believed to be damaged.
const ASKS: u32 = 3;

/// How far the one that counts may be below the highest one. Each one passed over is a failed change, which used up a number. If
/// somebody puts one far above, it is an error.
const PASSED_OVER: u64 = 16;

/// How many guesses at slots [`which_opens`] makes in all: secrets times slots.
const HINTS: usize = 6;

/// Reads the highest superblock in the bucket with `open`. If it does not open, it is fetched again until it opens, the same
/// bytes come twice (then the bucket holds them), or the third try fails: a flipped bit can look like a wrong passphrase. One
/// that ends early is passed over if there is one below it. It never counted, since older ones are deleted only after the next
/// was read back whole (K6).
pub(super) async fn read<T>(
    bucket: &Bucket,
    open: impl Fn(Generation, &Bytes) -> Result<T> + Send + Sync,
) -> Result<T> {
    Ok(read_past(bucket, open).await?.0)
}

/// As [`read`]; also returns the first free generation above those that were passed over, if any were.
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

/// The result of reading the highest superblock.
struct Highest<T> {
    generation: Generation,
    opened: Result<T>,
    ends_early: bool,
}

/// Reads the highest superblock below a generation; `None` if there is none.
async fn read_below<T>(
    bucket: &Bucket,
    below: Option<Generation>,
    open: impl Fn(Generation, &Bytes) -> Result<T> + Send + Sync,
) -> Result<Option<Highest<T>>> {
    let mut before: Option<(Bytes, Error)> = None;
    for asked in 1.. {
        let Some((generation, bytes)) = fetch(bucket, below).await? else { return Ok(None) };
        // The same bytes are not opened twice: with a passphrase that takes a second.
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
            // If it was deleted between listing and GET, it has a successor (K6).
            Err(error) if error.is_not_found() && asked < ASKS => {}
            got => return Ok(Some((highest, got?))),
        }
    }
    unreachable!("it returns at the last of its tries")
}

/// The generations in the bucket, unordered, each with the object's length.
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

/// For a hint: the index of the first secret that opens a slot of the vault. Each try takes about a second.
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

/// As [`newest`]; also the generation of its successor. Those between the two never counted, and are deleted with the older ones.
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

/// Unlocks the vault again with the known master key, by the superblock that counts now.
///
/// # Errors
/// [`Error::OldSuperblock`] if no newer one came; otherwise as [`newest`].
pub(super) async fn unlocked_anew(bucket: &Bucket, unlocked: &Unlocked) -> Result<Unlocked> {
    let open = |generation: Generation, bytes: &Bytes| {
        let (superblock, wire) = decode(generation, bytes)?;
        is_ours(&superblock, &wire, &unlocked.keys)?;
        verified(&superblock, &wire, bytes, unlocked.master.clone())
    };
    // A copy that the owner named, or that stands in for a lost superblock, does not get newer.
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

/// Writes a superblock of a new generation, and reads it back.
pub(super) async fn write(bucket: &Bucket, keys: &Keys, superblock: &Superblock) -> Result<()> {
    let (object, bytes) = sealed(keys, superblock);
    bucket.put_new(&object, bytes.clone()).await?;
    read_back(bucket, &object, &bytes).await
}

/// Writes the successor of a superblock (K6). Returns whether it counts now. If not, somebody else wrote one, and the caller
/// starts again from that.
pub(super) async fn succeed(bucket: &Bucket, keys: &Keys, next: &Superblock) -> Result<bool> {
    let (object, bytes) = sealed(keys, next);
    let put = bucket.put_new(&object, bytes.clone()).await;
    os::reached(PipelineStep::SuperblockPut);
    if let Err(error) = put {
        // The reply may have been lost. Its random parts make equal bytes ours, and nobody else's.
        match bucket.get(&object, None).await {
            Ok(there) if there == bytes => {}
            Ok(_) if matches!(error, StoreError::Exists { .. }) => return Ok(false),
            _ => return Err(error.into()),
        }
    }
    // A number that was used long ago is free again: a writer that slept meanwhile finds a higher one.
    if generations(bucket).await?.into_iter().any(|(other, _)| other > next.generation) {
        return Ok(false);
    }
    read_back(bucket, &object, &bytes).await?;
    Ok(true)
}

/// Deletes the superblocks below one that was read back: they would open with secrets that no longer count.
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
        // A second one of that generation is refused, and the first stays.
        superblock.required.push(1);
        let taken = write(&bucket, &keys, &superblock).await.unwrap_err();
        assert!(matches!(taken, Error::Store(StoreError::Exists { .. })), "{taken}");
        assert_eq!(memory.peek(&name(Generation(1))).unwrap(), first);
        // One that does not read back as written does not count. One flipped bit on the way is asked for again.
        for (flips, counts) in [(u32::MAX, false), (1, true)] {
            superblock.generation = superblock.generation.next();
            faulty.inject(On::next(Verb::Get, "superblock/").times(flips), Fault::FlipsBit);
            let written = write(&bucket, &keys, &superblock).await;
            assert_eq!(written.is_ok(), counts, "{flips}");
            faulty.heal();
        }
    }
}
