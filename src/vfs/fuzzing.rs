//! The parsers of this room, for hostile bytes (`tests/fuzz`).

/// Whether `bytes` are taken for a `kind`; `None`: this room knows no such kind.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    match kind {
        "acl" => Some(super::acl::is_well_formed(bytes)),
        _ => None,
    }
}
