//! What all steps of a build share.

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
    /// Keeps the new pages on this machine.
    pub cache: &'a Cache,
    /// The superblock's generation.
    pub generation: Generation,
    /// The clock of this machine.
    pub time: Timestamp,
    /// The oldest key epoch whose pages are shared. Pages of older epochs are written anew (K8).
    pub oldest: KeyEpoch,
    /// How large the parts of the checkpoint become.
    pub sizes: Sizes,
}
