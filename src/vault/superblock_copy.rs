//! A superblock outside of the bucket: a backup that its owner made, or the copy that this machine keeps of the last one it
//! believed. Without a superblock no key helps, so either may stand in for a lost one (O1).

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::superblock::{self, LENGTH_MAX, OpenedBySecret, Superblock, Unlocked};
use super::{Error, Result};
use crate::checkpoint::newest;
use crate::crypto::{HEADER, Keys, Place};
use crate::log::{self, Seen};
use crate::os;
use crate::store::{Bucket, Error as StoreError, Lister};
use crate::types::{CommitNo, Generation, VaultId};

/// How many commits are checked for the vault's keys if there is no manifest.
const COMMITS: usize = 16;

/// A file with the bytes of a superblock object. It is verified just like one in the bucket.
#[derive(Clone, Debug)]
pub struct SuperblockCopy {
    path: PathBuf,
    bytes: Bytes,
    generation: Generation,
    vault: VaultId,
    /// Whether the owner named this file; if not, it is the copy that this machine keeps.
    named: bool,
}

impl SuperblockCopy {
    /// Reads the file that is named, or else the copy that this machine keeps of the vault with this id.
    ///
    /// # Errors
    /// [`Error::SuperblockFile`] if the named file holds no superblock.
    pub fn find(
        named: Option<&Path>,
        data_dir: &Path,
        vault: Option<&str>,
    ) -> Result<Option<Self>> {
        if let Some(path) = named {
            return Self::read(path, true).map(Some);
        }
        let Some(vault) = vault else { return Ok(None) };
        let path = kept_at(data_dir, vault);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        // It only helps if there is nothing else; a bad one counts as none.
        let kept = Self::read(&path, false).ok();
        Ok(kept.filter(|kept| kept.vault.to_string() == vault))
    }

    fn read(path: &Path, named: bool) -> Result<Self> {
        let bad = |why: String| Error::SuperblockFile { path: path.to_path_buf(), why };
        let bytes = os::read_small(path, LENGTH_MAX as u64)
            .and_then(|found| found.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
            .map_err(|error| bad(error.to_string()))?;
        let bytes = Bytes::from(bytes);
        let (superblock, _) = superblock::decode(None, &bytes).map_err(|error| match error {
            Error::Superblock { why, .. } => bad(why),
            other => other,
        })?;
        let Superblock { generation, vault, .. } = superblock;
        Ok(Self { path: path.to_path_buf(), bytes, generation, vault, named })
    }

    /// Chooses what opens the vault: what was `found` in the bucket, or this copy. A kept copy counts if the bucket has no
    /// superblock. A named one also counts if that of the bucket does not open or is older. If the bucket's does not open, and
    /// differs from a kept copy of the same generation, it was changed, and the secret may well be right.
    pub(super) async fn or(
        &self,
        found: Result<OpenedBySecret>,
        bucket: &Bucket,
        open: impl Fn(Generation, &Bytes) -> Result<OpenedBySecret>,
    ) -> Result<OpenedBySecret> {
        let bad = |why: &str| {
            let (path, why) = (self.path.clone(), why.to_owned());
            Err(Error::SuperblockFile { path, why })
        };
        match &found {
            Ok(opened) if self.named && opened.unlocked.vault != self.vault => {
                return bad("it is of another vault than the one in the bucket");
            }
            Ok(opened) if self.named && opened.unlocked.generation < self.generation => {}
            Err(Error::SuperblockLost) => {}
            Err(
                Error::Superblock { .. }
                | Error::WrongSecret
                | Error::Crypto(_)
                | Error::Format { .. },
            ) if self.named => {}
            Err(Error::WrongSecret | Error::Format { .. }) if self.was_changed_in(bucket).await => {
                let why = format!(
                    "it is not what this machine read there before, of which {} is a copy",
                    self.path.display()
                );
                return Err(Error::Superblock { object: superblock::name(self.generation), why });
            }
            _ => return found,
        }
        let mut opened = open(self.generation, &self.bytes)?;
        // Otherwise everything in the bucket would look damaged.
        if found.is_err() && !is_of(bucket, &opened.unlocked.keys).await? {
            return bad("nothing in the bucket is of its vault");
        }
        opened.unlocked.copied = Some(self.path.clone());
        Ok(opened)
    }

    /// Whether the bucket holds other bytes under this copy's generation, whose object is never written twice (K6).
    async fn was_changed_in(&self, bucket: &Bucket) -> bool {
        let there = bucket.get(&superblock::name(self.generation), None).await;
        there.is_ok_and(|there| there != self.bytes)
    }
}

/// Whether a bucket without a usable superblock holds something that was sealed with these keys.
async fn is_of(bucket: &Bucket, keys: &Keys) -> Result<bool> {
    if newest(bucket, keys).await?.manifest.is_some() {
        return Ok(true);
    }
    let mut commits = Lister::of(bucket, "log/");
    let Some((listed, _)) = commits.next().await? else { return Ok(false) };
    let number = |name: &str| name.strip_prefix("log/")?.parse::<CommitNo>().ok();
    for object in listed.iter().take(COMMITS) {
        let Some(number) = number(&object.name) else { continue };
        match bucket.get(&object.name, Some(0..HEADER)).await {
            Ok(header) if keys.sealed(Place::Commit(number), &header) => return Ok(true),
            Ok(_) | Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn kept_at(data_dir: &Path, vault: &str) -> PathBuf {
    data_dir.join(format!("{vault}.superblock"))
}

/// Keeps a copy on this machine of a superblock that was verified and that the log does not contradict. A failure is only
/// logged.
pub(super) fn keep(data_dir: &Path, vault: VaultId, sealed: &Bytes) {
    let path = kept_at(data_dir, &vault.to_string());
    let known = os::read_small(&path, LENGTH_MAX as u64).ok().flatten();
    if known.as_deref() != Some(&sealed[..])
        && let Err(error) = os::replace(&path, sealed)
    {
        tracing::warn!(%error, "this machine keeps no copy of the newest superblock");
    }
}

/// Puts back the bytes of a superblock that the bucket lacks; returns what to tell the owner. The caller holds the claim.
pub(super) async fn put_back(bucket: &Bucket, unlocked: &Unlocked) -> Option<String> {
    let path = unlocked.copied.as_ref()?.display();
    let object = superblock::name(unlocked.generation);
    if let Err(error) = bucket.put_new(&object, unlocked.sealed.clone()).await {
        tracing::warn!(object, %error, "the superblock was not put back");
    }
    // The bucket says whether it counts now, whatever the reply was.
    let now = superblock::newest(bucket, unlocked).await;
    Some(match now {
        Ok(now) if now.generation >= unlocked.generation => {
            format!(
                "the superblock was lost from the bucket; that of {path} was put back as {object}"
            )
        }
        Ok(_) => format!(
            "the superblock of {path} is used, as that of the bucket is older, and it cannot be put back as {object}"
        ),
        Err(error) => format!(
            "the superblock of {path} is used, as that of the bucket cannot be ({error}): until the object is deleted, \
             each machine needs --superblock"
        ),
    })
}

/// Writes the superblock that a vault was opened with to `path`, if one is given; returns its bytes.
///
/// # Errors
/// [`Error::OldSuperblock`] if this machine saw a newer one; [`Error::SuperblockFile`] if the file holds something else.
pub fn back_up(unlocked: &Unlocked, data_dir: &Path, path: Option<&Path>) -> Result<Bytes> {
    let seen = Seen::load(data_dir, &unlocked.keys).or_else(|error| match error {
        log::Error::Seal { .. } | log::Error::Records(_) => Ok(None),
        error => Err(error),
    })?;
    if seen.is_some_and(|seen| seen.generation > unlocked.generation) {
        return Err(Error::OldSuperblock);
    }
    let Some(path) = path else { return Ok(unlocked.sealed.clone()) };
    let bad =
        |why: &str| Err(Error::SuperblockFile { path: path.to_path_buf(), why: why.to_owned() });
    if path.symlink_metadata().is_ok() {
        let same = |there: &SuperblockCopy| {
            let decoded = superblock::decode(None, &there.bytes).ok();
            decoded.is_some_and(|(superblock, wire)| {
                superblock::verified(&superblock, &wire, &there.bytes, unlocked.master.clone())
                    .is_ok_and(|there| there.vault == unlocked.vault)
            })
        };
        match SuperblockCopy::read(path, true) {
            Ok(there) if same(&there) && there.generation > unlocked.generation => {
                return bad("it is a newer superblock of this vault than the bucket's");
            }
            Ok(there) if same(&there) => {}
            _ => return bad("it is there already, and is no backup of this vault's superblock"),
        }
    }
    os::replace(path, &unlocked.sealed)
        .map_err(Error::io(format!("{} cannot be written", path.display())))?;
    Ok(unlocked.sealed.clone())
}
