//! The parsers of this room, for hostile bytes (`tests/fuzz`).

use super::Point;
use super::sled_delta::parse_row;
use crate::records::decode_value;

/// Whether `bytes` are taken for a `kind`; `None`: this room knows no such kind.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    Some(match kind {
        "row" => parse_row(bytes).is_some(),
        "point" => decode_value::<Point>("the index", bytes).is_ok(),
        _ => return None,
    })
}
