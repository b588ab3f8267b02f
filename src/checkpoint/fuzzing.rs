//! This module's parsers, for hostile bytes (`tests/fuzz`).

use bytes::Bytes;

use super::page::{PageRecords, Records};
use super::{Manifest, PackInfo, Result};
use crate::crypto::{Place, fuzz_keys, layout};
use crate::records::decode_value;
use crate::types::CommitNo;

/// Whether `bytes` parse as a `kind`; `None`: there is no such kind here.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    let keys = fuzz_keys();
    Some(match kind {
        "manifest" => Manifest::open(keys, CommitNo(1), bytes).is_ok(),
        "manifest-plain" => {
            let opens = |number: u64| {
                let number = CommitNo(number);
                Manifest::open(keys, number, &keys.seal(Place::Manifest(number), bytes)).is_ok()
            };
            opens(1) || opens(3) || opens(300)
        }
        // The first byte is where its index begins, in chunks; the rest is its plaintext.
        "page-plain" => match bytes.split_first() {
            Some((chunks, plain)) => page(u64::from(*chunks), plain).is_ok(),
            None => false,
        },
        "block" => block(&Bytes::copy_from_slice(bytes)).is_ok(),
        "pack-row" => decode_value::<PackInfo>("pack", bytes).is_ok(),
        _ => return None,
    })
}

fn page(chunks: u64, plain: &[u8]) -> Result<()> {
    let mut records = PageRecords::of(&plain.to_vec().into(), chunks * layout::CHUNK)?;
    while records.next()?.is_some() {}
    Ok(())
}

fn block(bytes: &Bytes) -> Result<()> {
    let mut all = Records::of(bytes.clone());
    while let Some((key, _)) = all.next()? {
        if Records::of(bytes.clone()).find(&key)?.is_none() {
            break; // the records are not in order
        }
        Records::of(bytes.clone()).seek(&key, true)?;
        if bytes.len() > 4096 {
            break;
        }
    }
    Records::of(bytes.clone()).find(b"\xff").map(drop)
}
