//! This module's parsers, for hostile bytes (`tests/fuzz`).

use super::{
    Entry, Error, Horizon, Inode, Key, Orphan, Pin, Tag, Transaction, WriterClaim, Xattr,
    decode_value, extent_of,
};
use crate::types::Extent;

/// Whether `bytes` parse as a `kind`; `None`: there is no such kind here.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    Some(match kind {
        "record" => record(bytes).is_some(),
        "transaction" => {
            let visited = Transaction::visit(bytes, |_, _| Ok::<_, Error>(())).is_ok();
            let packs = Transaction::decode(bytes).is_ok_and(|found| found.packs().is_ok());
            visited && packs
        }
        _ => return None,
    })
}

/// Parses the length of a key, the key, and a value.
fn record(bytes: &[u8]) -> Option<()> {
    let (length, rest) = bytes.split_first()?;
    let (key, value) = rest.split_at_checked(usize::from(*length))?;
    let decoded = Key::decode(key).ok()?;
    if decoded.encode() != key {
        unreachable!("a key is read as another: {key:?}");
    }
    let is_read = match Tag::of(key)? {
        Tag::Meta => decode_value::<WriterClaim>("meta", value).is_ok(),
        Tag::Inode => decode_value::<Inode>("inode", value).is_ok(),
        Tag::Entry => decode_value::<Entry>("entry", value).is_ok(),
        Tag::Extent => decode_value::<Extent>("extent", value).is_ok(),
        Tag::Xattr => decode_value::<Xattr>("xattr", value).is_ok(),
        Tag::Orphan => decode_value::<Orphan>("orphan", value).is_ok(),
        Tag::Pin => {
            let pin = decode_value::<Pin>("pin", value).is_ok();
            decode_value::<Horizon>("pin", value).is_ok() | pin
        }
        Tag::Pack | Tag::History => {
            decode_value::<minicbor::bytes::ByteVec>("history", value).is_ok()
        }
    };
    let extent = extent_of(key, value);
    (is_read && extent.is_ok()).then_some(())
}
