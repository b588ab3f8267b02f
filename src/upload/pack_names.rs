//! Names of a pack: its object in the bucket, and its file in staging while open and once closed.

use crate::types::PackId;

/// The name of a pack's object in the bucket.
#[must_use]
pub fn pack_object(pack: PackId) -> String {
    let id = pack.to_string();
    format!("pack/{}/{id}", &id[..2])
}

/// The file of a pack in staging.
pub(super) fn file_name(pack: PackId, is_closed: bool) -> String {
    if is_closed { closed_name(pack) } else { open_name(pack) }
}

pub(super) fn open_name(pack: PackId) -> String {
    format!("{pack}.open")
}

pub(super) fn closed_name(pack: PackId) -> String {
    format!("{pack}.pack")
}

/// The pack that a file holds, and whether it was closed.
pub(super) fn parse_name(name: &str) -> Option<(PackId, bool)> {
    let (id, kind) = name.split_once('.')?;
    let closed = match kind {
        "open" => false,
        "pack" => true,
        _ => return None,
    };
    Some((id.parse().ok()?, closed))
}
