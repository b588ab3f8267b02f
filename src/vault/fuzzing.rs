//! The parsers of this room, for hostile bytes (`tests/fuzz`).

use super::superblock::decode;
use crate::types::Generation;

/// Whether `bytes` parse as a `kind`; `None` if this room has no such kind.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    match kind {
        "superblock" => Some(decode(Generation(1), &bytes.to_vec().into()).is_ok()),
        _ => None,
    }
}
