//! Reads a pack's footer from the bucket.

use std::cell::Cell;

use crate::content::{Footer, open_footer};
use crate::crypto::Keys;
use crate::store::{self, Bucket};
use crate::types::{KIB, PackId};
use crate::upload::pack_object;

/// How much of a pack's end is fetched first: nearly every footer whole, in one request.
const TAIL: u64 = 16 * KIB;

/// Fetches and opens a footer. The inner error is a sentence that says what is wrong with it.
pub(super) async fn read_footer(
    bucket: &Bucket,
    keys: &Keys,
    id: PackId,
    length: u64,
) -> store::Result<Result<Footer, String>> {
    let name = pack_object(id);
    let mut from = length.saturating_sub(TAIL);
    loop {
        let tail = bucket.get(&name, Some(from..length)).await?;
        let needed = Cell::new(from);
        let found = open_footer(keys, id, length, |range| {
            needed.set(needed.get().min(range.start));
            let cut = |at: u64| usize::try_from(at.checked_sub(from)?).ok();
            let range = cut(range.start).zip(cut(range.end));
            range
                .filter(|range| range.1 <= tail.len())
                .map(|range| tail.slice(range.0..range.1))
                .ok_or("it is not there")
        });
        if needed.get() >= from {
            return Ok(found);
        }
        from = needed.get();
    }
}
