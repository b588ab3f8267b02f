//! Opens the superblock that counts: the bucket's, or a copy that stands in for it (O1).

use bytes::Bytes;

use super::Result;
use super::superblock::{OpenedBySecret, Superblock, Unlocked, decode, open_slot, read, verified};
use super::superblock_copy::SuperblockCopy;
use crate::crypto::{MasterKey, Passphrase};
use crate::store::Bucket;
use crate::types::Generation;

/// Opens the highest superblock in the bucket with the master key that `key` finds in it, or else `copy`, if it may stand in.
async fn open(
    bucket: &Bucket,
    copy: Option<&SuperblockCopy>,
    key: impl Fn(&Superblock) -> Result<(MasterKey, usize)> + Send + Sync,
) -> Result<OpenedBySecret> {
    let open = |generation: Generation, bytes: &Bytes| {
        let (superblock, wire) = decode(generation, bytes)?;
        let (master, slot) = key(&superblock)?;
        let unlocked = verified(&superblock, &wire, bytes, master)?;
        Ok(OpenedBySecret { unlocked, superblock, slot })
    };
    let found = read(bucket, &open).await;
    match copy {
        None => found,
        Some(copy) => copy.or(found, bucket, open).await,
    }
}

/// Unlocks the vault in `bucket` with its master key. `copy` stands in for a lost superblock.
///
/// # Errors
/// From [`super::Error`]: `NoVault`, `SuperblockLost`, `WrongSecret`, `Superblock` if it does not verify (an older one is not
/// tried: O1), `SuperblockFile`, `Format`.
pub async fn unlock(
    bucket: &Bucket,
    copy: Option<&SuperblockCopy>,
    master: &MasterKey,
) -> Result<Unlocked> {
    let opened = open(bucket, copy, |_| Ok((master.clone(), 0))).await?;
    Ok(opened.unlocked)
}

/// As [`unlock`], with a passphrase or recovery key; also returns the slot that it opened.
///
/// # Errors
/// As [`unlock`].
pub async fn open_by(
    bucket: &Bucket,
    copy: Option<&SuperblockCopy>,
    secret: &Passphrase,
) -> Result<OpenedBySecret> {
    open(bucket, copy, |superblock| open_slot(superblock, secret)).await
}
