//! What every step of a build has in common.

use super::page::Sizes;
use crate::cache::Cache;
use crate::crypto::Keys;
use crate::store::Bucket;
use crate::types::{Generation, KeyEpoch, Timestamp};

/// What a build works with.
#[derive(Clone, Debug)]
pub struct BuildContext<'a> {
    /// The vault's keys.
    pub keys: &'a Keys,
    /// Where pages and manifest go.
    pub bucket: &'a Bucket,
    /// Keeps the new pages at hand.
    pub cache: &'a Cache,
    /// The superblock's generation.
    pub generation: Generation,
    /// The clock of this machine.
    pub time: Timestamp,
    /// Pages that an older key epoch sealed are not shared, but written anew (K8).
    pub oldest: KeyEpoch,
    /// How large the parts become.
    pub sizes: Sizes,
}
