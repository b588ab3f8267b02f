//! The parsers of this module, for hostile bytes (`tests/fuzz`).

/// Whether `bytes` are accepted as a `kind`; `None` if this module has no such kind.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    match kind {
        "acl" => Some(super::acl::is_well_formed(bytes)),
        _ => None,
    }
}
