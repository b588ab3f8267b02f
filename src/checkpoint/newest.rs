//! Lists the manifests, and finds the newest one that verifies (rules O1, K4).

use std::time::SystemTime;

use super::manifest::{MANIFEST_MAX, MANIFESTS, Manifest, manifest_name};
use super::{Error, Result};
use crate::crypto::Keys;
use crate::log::{self, open_object};
use crate::store::{self, Bucket};
use crate::types::CommitNo;

/// A manifest, as the bucket lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedManifest {
    /// Its commit.
    pub number: CommitNo,
    /// Length of the object, in bytes.
    pub length: u64,
    /// When it was put, by the store's clock.
    pub modified: SystemTime,
    /// It was put no earlier than one of a higher number: if that one verifies, its writer had slept, and its pages may be
    /// gone. Then it is no base for anybody (K4), but for a pin of it, which holds its pages.
    pub overtaken: bool,
}

impl ListedManifest {
    /// Fetches and opens it.
    ///
    /// # Errors
    /// When it does not verify, or is gone; when the store does not answer.
    pub async fn open(&self, bucket: &Bucket, keys: &Keys) -> Result<Manifest> {
        let name = manifest_name(self.number);
        if self.length > MANIFEST_MAX {
            return Err(Error::malformed(name, "longer than a manifest can be"));
        }
        open_object(bucket, &name, None, |sealed| Manifest::open(keys, self.number, sealed)).await
    }
}

/// All manifests in the bucket, ascending, and the store's time.
///
/// # Errors
/// When the store does not answer.
pub async fn manifests(bucket: &Bucket) -> Result<(Vec<ListedManifest>, SystemTime)> {
    let (listed, time) = bucket.list_all(MANIFESTS).await?;
    let number = |name: &str| name.strip_prefix(MANIFESTS)?.parse::<CommitNo>().ok();
    let mut found: Vec<_> = listed
        .iter()
        .filter_map(|object| {
            let (number, length, modified) =
                (number(&object.name)?, object.length, object.modified);
            Some(ListedManifest { number, length, modified, overtaken: false })
        })
        .collect();
    found.sort_unstable_by_key(|manifest| manifest.number);
    let mut earliest = None;
    for manifest in found.iter_mut().rev() {
        // Without a date nothing is known.
        let is_dated = manifest.modified > SystemTime::UNIX_EPOCH;
        manifest.overtaken =
            is_dated && earliest.is_some_and(|earliest| manifest.modified >= earliest);
        earliest =
            Some(earliest.map_or(manifest.modified, |e: SystemTime| e.min(manifest.modified)));
    }
    Ok((found, time))
}

/// What the bucket has in manifests.
#[derive(Debug)]
pub struct Newest {
    /// The newest one that verifies.
    pub manifest: Option<Manifest>,
    /// Newer ones that do not, newest first, and why. The commits since `manifest` make up for
    /// them, if they are all there.
    pub refused: Vec<(CommitNo, Error)>,
}

/// Lists the manifests and opens them from the newest on until one verifies.
///
/// # Errors
/// When the store does not answer. A manifest that is bad is no error, but in `refused`.
pub async fn newest(bucket: &Bucket, keys: &Keys) -> Result<Newest> {
    let (listed, _) = manifests(bucket).await?;
    newest_of(&listed, CommitNo(u64::MAX), bucket, keys).await
}

/// As [`newest()`], among these, and of none above `last`.
///
/// # Errors
/// As there.
pub async fn newest_of(
    listed: &[ListedManifest],
    last: CommitNo,
    bucket: &Bucket,
    keys: &Keys,
) -> Result<Newest> {
    let mut refused = Vec::new();
    for (at, candidate) in listed.iter().enumerate().rev().filter(|(_, m)| m.number <= last) {
        if candidate.overtaken && is_overtaken(candidate, &listed[at + 1..], bucket, keys).await? {
            continue;
        }
        match candidate.open(bucket, keys).await {
            Ok(manifest) => return Ok(Newest { manifest: Some(manifest), refused }),
            Err(Error::Log(log::Error::Store(error))) if !is_about_the_object(&error) => {
                return Err(error.into());
            }
            Err(error) => {
                let object = manifest_name(candidate.number);
                tracing::warn!(object, %error, "a manifest is not used");
                refused.push((candidate.number, error));
            }
        }
    }
    Ok(Newest { manifest: None, refused })
}

/// Whether one of these, of higher numbers, verifies and was put no later. What lies there without verifying says nothing:
/// anybody who may write to the bucket can put it.
async fn is_overtaken(
    candidate: &ListedManifest,
    higher: &[ListedManifest],
    bucket: &Bucket,
    keys: &Keys,
) -> Result<bool> {
    for other in higher.iter().rev().filter(|other| other.modified <= candidate.modified) {
        match other.open(bucket, keys).await {
            Ok(_) => return Ok(true),
            Err(Error::Log(log::Error::Store(error))) if !is_about_the_object(&error) => {
                return Err(error.into());
            }
            Err(_) => {}
        }
    }
    Ok(false)
}

/// Whether the store answered, and it is this object that is bad or gone.
fn is_about_the_object(error: &store::Error) -> bool {
    matches!(error, store::Error::NotFound { .. } | store::Error::Corrupt { .. })
}
