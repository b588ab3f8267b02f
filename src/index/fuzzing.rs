//! This module's parsers, for hostile bytes (`tests/fuzz`).

use super::Point;
use super::sled_delta::parse_row;
use crate::records::decode_value;

/// Whether `bytes` parse as a `kind`; `None`: there is no such kind here.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    Some(match kind {
        "row" => parse_row(bytes).is_some(),
        "point" => decode_value::<Point>("the index", bytes).is_ok(),
        _ => return None,
    })
}
