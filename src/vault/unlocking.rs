//! Opens the superblock that counts: that of the bucket, or a copy that stands in for it (O1).

use bytes::Bytes;

use super::Result;
use super::superblock::{OpenedBySecret, Superblock, Unlocked, decode, open_slot, read, verified};
use super::superblock_copy::SuperblockCopy;
use crate::crypto::{MasterKey, Passphrase};
use crate::store::Bucket;
use crate::types::Generation;

/// Opens the highest superblock in the bucket with the key that `key` finds; else the copy, where it may stand in.
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

/// Finds the vault in `bucket` that this is the master key of. `copy`: what stands in for a superblock that is lost.
///
/// # Errors
/// Of [`super::Error`]: `NoVault`, `SuperblockLost`, `WrongSecret`, `Superblock` for one that does not verify (an older one is
/// not tried: O1), `SuperblockFile`, `Format`.
pub async fn unlock(
    bucket: &Bucket,
    copy: Option<&SuperblockCopy>,
    master: &MasterKey,
) -> Result<Unlocked> {
    let opened = open(bucket, copy, |_| Ok((master.clone(), 0))).await?;
    Ok(opened.unlocked)
}

/// As [`unlock`]; also says which slot the secret opened.
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
