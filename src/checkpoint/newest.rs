//! Finds the newest manifest that verifies (rule O1).

use super::manifest::{MANIFEST_MAX, MANIFESTS, Manifest, manifest_name};
use super::{Error, Result};
use crate::crypto::Keys;
use crate::log::{self, open_object};
use crate::store::{self, Bucket};
use crate::types::CommitNo;

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
    let (listed, _) = bucket.list_all(MANIFESTS).await?;
    let number = |name: &str| name.strip_prefix(MANIFESTS)?.parse::<CommitNo>().ok();
    let mut numbers: Vec<_> =
        listed.iter().filter_map(|o| Some((number(&o.name)?, o.length))).collect();
    numbers.sort_unstable();
    let mut refused = Vec::new();
    for (number, length) in numbers.into_iter().rev() {
        match open(bucket, keys, number, length).await {
            Ok(manifest) => return Ok(Newest { manifest: Some(manifest), refused }),
            Err(Error::Log(log::Error::Store(error))) if !is_about_the_object(&error) => {
                return Err(error.into());
            }
            Err(error) => {
                tracing::warn!(object = manifest_name(number), %error, "a manifest is not used");
                refused.push((number, error));
            }
        }
    }
    Ok(Newest { manifest: None, refused })
}

async fn open(bucket: &Bucket, keys: &Keys, number: CommitNo, length: u64) -> Result<Manifest> {
    let name = manifest_name(number);
    if length > MANIFEST_MAX {
        return Err(Error::malformed(name, "longer than a manifest can be"));
    }
    open_object(bucket, &name, None, |sealed| Manifest::open(keys, number, sealed)).await
}

/// Whether the store answered, and it is this object that is bad or gone.
fn is_about_the_object(error: &store::Error) -> bool {
    matches!(error, store::Error::NotFound { .. } | store::Error::Corrupt { .. })
}
