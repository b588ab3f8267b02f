//! Lists the manifests, and finds the newest one that verifies (rules O1, K4).

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::manifest::{MANIFEST_MAX, MANIFESTS, Manifest, manifest_name};
use super::{Error, Result};
use crate::crypto::{HEADER, Keys, Place};
use crate::log::{self, open_object};
use crate::store::{self, Bucket};
use crate::types::CommitNo;

/// How many requests run at once when many objects are checked for being manifests.
const PARALLEL: usize = 16;
/// No limit on the commit: the current state of the vault is opened.
const NOW: CommitNo = CommitNo(u64::MAX);
/// How often a manifest's header is fetched: a bit may have changed on the way.
const ASKS: u32 = 2;

/// A manifest, as the bucket's listing shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedManifest {
    /// Its commit.
    pub number: CommitNo,
    /// Length of the object, in bytes.
    pub length: u64,
    /// When it was put, by the store's clock.
    pub modified: SystemTime,
    /// Whether it was put no earlier than one of a higher number. If that one verifies, the writer of this one had been
    /// asleep, and its pages may be gone. Then nobody may use it as a base (K4), except for a pin of it, which keeps its
    /// pages.
    pub overtaken: bool,
}

impl ListedManifest {
    /// Fetches and opens it.
    ///
    /// # Errors
    /// If it does not verify, or is gone; if the store does not answer.
    pub async fn open(&self, bucket: &Bucket, keys: &Keys) -> Result<Manifest> {
        let name = manifest_name(self.number);
        if self.length > MANIFEST_MAX {
            return Err(Error::malformed(name, "longer than a manifest can be"));
        }
        open_object(bucket, &name, None, |sealed| Manifest::open(keys, self.number, sealed)).await
    }

    /// As [`ListedManifest::open`], for the current state: of those that an older key epoch sealed, only the one at which
    /// that epoch ended is accepted (K7).
    async fn begin(&self, bucket: &Bucket, keys: &Keys) -> Result<Manifest> {
        let name = manifest_name(self.number);
        if self.length > MANIFEST_MAX {
            return Err(Error::malformed(name, "longer than a manifest can be"));
        }
        let open = |sealed: &Bytes| {
            let manifest = Manifest::open(keys, self.number, sealed)?;
            match keys.may_begin_at(self.number, sealed) {
                true => Ok(manifest),
                false => Err(Error::malformed(
                    name.clone(),
                    "it is of a key that was rotated, and not the one that was the newest then",
                )),
            }
        };
        open_object(bucket, &name, None, open).await
    }

    /// Whether the object's first 56 bytes show that it was sealed with the vault's key for this very place. Nobody without
    /// the key can make such a header. The rest may still be damaged. If the object is gone or damaged in the store, this
    /// returns true, and opening it reports that.
    async fn is_sealed(&self, bucket: &Bucket, keys: &Keys) -> Result<bool> {
        let name = manifest_name(self.number);
        for _ in 0..ASKS {
            match bucket.get(&name, Some(0..HEADER)).await {
                Ok(header) if keys.sealed(Place::Manifest(self.number), &header) => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if is_about_the_object(&error) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

/// All manifests in the bucket, in ascending order, and the store's time.
///
/// # Errors
/// If the store does not answer.
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

/// The manifests that the bucket has.
#[derive(Debug, Default)]
pub struct Newest {
    /// The newest one that verifies.
    pub manifest: Option<Manifest>,
    /// Newer ones that do not verify, newest first, and why. The commits since `manifest` replace them, if they are all
    /// there.
    pub refused: Vec<(CommitNo, Error)>,
}

/// Lists the manifests and opens them from the newest on until one verifies.
///
/// # Errors
/// If the store does not answer. A bad manifest is no error; it is listed in `refused`.
pub async fn newest(bucket: &Bucket, keys: &Keys) -> Result<Newest> {
    let (listed, _) = manifests(bucket).await?;
    newest_of(&listed, NOW, bucket, keys).await
}

/// As [`newest()`], among `listed`, and not above commit `last`.
///
/// # Errors
/// As [`newest()`].
pub async fn newest_of(
    listed: &[ListedManifest],
    last: CommitNo,
    bucket: &Bucket,
    keys: &Keys,
) -> Result<Newest> {
    let mut found = Newest::default();
    // Usually the highest verifies, and no other is needed.
    let listed = match listed.split_last() {
        Some((highest, lower)) if highest.number <= last => {
            if found.tried(highest, last, bucket, keys).await? {
                return Ok(found);
            }
            lower
        }
        _ => listed,
    };
    let listed = found.sealed_of(listed, last, bucket, keys).await?;
    for (at, candidate) in listed.iter().enumerate().rev().filter(|(_, m)| m.number <= last) {
        if candidate.overtaken && is_overtaken(candidate, &listed[at + 1..], bucket, keys).await? {
            continue;
        }
        if found.tried(candidate, last, bucket, keys).await? {
            break;
        }
    }
    Ok(found)
}

impl Newest {
    /// Opens a manifest; returns whether it verifies.
    async fn tried(
        &mut self,
        candidate: &ListedManifest,
        last: CommitNo,
        bucket: &Bucket,
        keys: &Keys,
    ) -> Result<bool> {
        let opened = match last {
            NOW => candidate.begin(bucket, keys).await,
            _ => candidate.open(bucket, keys).await,
        };
        match opened {
            Ok(manifest) => {
                self.manifest = Some(manifest);
                return Ok(true);
            }
            Err(Error::Log(log::Error::Store(error))) if !is_about_the_object(&error) => {
                return Err(error.into());
            }
            Err(error) => {
                let object = manifest_name(candidate.number);
                tracing::warn!(object, %error, "a manifest is not used");
                self.refused.push((candidate.number, error));
            }
        }
        Ok(false)
    }

    /// Those of `listed` that were sealed with the vault's key. Anybody with write access to the bucket can put a thousand
    /// other objects there; none of them is fetched whole.
    async fn sealed_of(
        &mut self,
        listed: &[ListedManifest],
        last: CommitNo,
        bucket: &Bucket,
        keys: &Keys,
    ) -> Result<Vec<ListedManifest>> {
        let told = |manifest: ListedManifest| async move {
            Ok::<_, Error>((manifest, manifest.is_sealed(bucket, keys).await?))
        };
        let asked = stream::iter(listed.iter().copied()).map(told).buffered(PARALLEL);
        let told: Vec<_> = asked.try_collect().await?;
        let (sealed, others): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, sealed)| *sealed);
        if let Some((first, _)) = others.first() {
            let (object, count) = (manifest_name(first.number), others.len());
            tracing::warn!(
                object,
                count,
                "objects that no holder of the key put there are ignored"
            );
        }
        let refusal = |(manifest, _): (ListedManifest, bool)| {
            let name = manifest_name(manifest.number);
            (manifest.number, Error::malformed(name, "it was not sealed with this vault's key"))
        };
        let of_these = others.into_iter().rev().filter(|(manifest, _)| manifest.number <= last);
        self.refused.extend(of_these.map(refusal));
        Ok(sealed.into_iter().map(|(manifest, _)| manifest).collect())
    }
}

/// Whether a manifest in `higher` verifies and was put no later than `candidate`. One that does not verify proves nothing:
/// anybody with write access to the bucket can put it there.
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

/// Whether the store answered, and only this object is bad or gone.
fn is_about_the_object(error: &store::Error) -> bool {
    matches!(error, store::Error::NotFound { .. } | store::Error::Corrupt { .. })
}
