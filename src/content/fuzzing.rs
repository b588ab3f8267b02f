//! The parsers of this module, for hostile bytes (`tests/fuzz`).

use bytes::Bytes;

use super::open_footer;
use crate::crypto::{Place, fuzz_keys};
use crate::types::PackId;

const PACK: PackId = PackId([9; 16]);

/// Whether `bytes` are accepted as a `kind`; `None` if this module has no such kind.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    Some(match kind {
        "pack" => opens(bytes),
        // The footer's claimed beginning, its true beginning, and its plaintext.
        "footer-plain" => match bytes.split_first_chunk::<2>() {
            Some(([said, begins], plain)) => {
                let mut pack = vec![0; usize::from(*begins)];
                fuzz_keys().seal_into(Place::Footer(PACK), plain, &mut pack);
                let said = u64::from(*said).to_be_bytes();
                fuzz_keys().seal_into(Place::Trailer(PACK), &said, &mut pack);
                opens(&pack)
            }
            None => false,
        },
        _ => return None,
    })
}

fn opens(pack: &[u8]) -> bool {
    let read = |range: std::ops::Range<u64>| {
        let cut = |at: u64| usize::try_from(at).map_err(|_| "too far");
        let part = pack.get(cut(range.start)?..cut(range.end)?).ok_or("beyond its end")?;
        Ok::<_, &str>(Bytes::copy_from_slice(part))
    };
    open_footer(fuzz_keys(), PACK, pack.len() as u64, read).is_ok()
}
