//! Where everything lies in a sealed message: all offset arithmetic of Cobblestone, pure.
//!
//! A message is a header (salt, commitment), then chunks of [`CHUNK`] plaintext bytes, each followed by
//! its tag. The last chunk is always shorter than `CHUNK`, and may be empty. Lengths saturate instead
//! of overflowing: no message is possible near the end of `u64`, so opening one fails.

use std::ops::Range;

/// Bytes before the first chunk: 24 of salt, 32 of commitment.
pub const HEADER: u64 = 56;
/// Plaintext bytes of each chunk except the last.
pub const CHUNK: u64 = 16384;
/// Bytes of a chunk's tag, after its ciphertext.
pub const TAG: u64 = 16;
/// The most chunks of one message (C2SP `chunked-encryption`: 4 PiB).
pub const CHUNKS_MAX: u64 = 1 << 38;

const SEALED_CHUNK: u64 = CHUNK + TAG;

/// Length of the message that holds `plain` bytes.
pub const fn sealed_length(plain: u64) -> u64 {
    plain.saturating_add(HEADER).saturating_add(chunk_count(plain).saturating_mul(TAG))
}

/// How many plaintext bytes a message of `sealed` bytes holds; `None` if no message has that length.
pub const fn plain_length(sealed: u64) -> Option<u64> {
    let Some(body) = sealed.checked_sub(HEADER) else { return None };
    let (whole, last) = (body / SEALED_CHUNK, body % SEALED_CHUNK);
    if last < TAG || whole >= CHUNKS_MAX { None } else { Some(whole * CHUNK + last - TAG) }
}

/// The number of chunks of a message of `plain` bytes, including the short last one; at least 1.
pub const fn chunk_count(plain: u64) -> u64 {
    plain / CHUNK + 1
}

/// Plaintext bytes of chunk `index` of a message of `plain` bytes; 0 beyond its end.
pub const fn chunk_length(index: u64, plain: u64) -> u64 {
    let rest = plain.saturating_sub(index.saturating_mul(CHUNK));
    if rest < CHUNK { rest } else { CHUNK }
}

/// The chunks that hold the plaintext bytes `range`; empty for an empty range.
pub const fn chunks_of(range: &Range<u64>) -> Range<u64> {
    let first = range.start / CHUNK;
    if range.start < range.end { first..(range.end - 1) / CHUNK + 1 } else { first..first }
}

/// The range of the sealed message, of `plain` plaintext bytes, that holds `chunks` and their tags.
/// Chunks beyond its end are left out.
pub const fn sealed_range(chunks: &Range<u64>, plain: u64) -> Range<u64> {
    let (end, count) = (sealed_length(plain), chunk_count(plain));
    let start = sealed_offset(chunks.start);
    let start = if start < end { start } else { end };
    let to = if chunks.end < count { sealed_offset(chunks.end) } else { end };
    if start < to { start..to } else { start..start }
}

/// The offset of chunk `index` in the sealed message.
const fn sealed_offset(index: u64) -> u64 {
    index.saturating_mul(SEALED_CHUNK).saturating_add(HEADER)
}

/// The length to which `length` is padded, so that it reveals little: at most 12 % more, and only O(log
/// log) bits are revealed (Padmé: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files",
/// PETS 2019).
pub const fn padme(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let kept = if exponent == 0 { 0 } else { exponent.ilog2() + 1 };
    let mask = (1u64 << (exponent - kept)) - 1;
    match length.checked_add(mask) {
        Some(sum) => sum & !mask,
        None => length, // no file has that length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_at_the_edges() {
        for (plain, sealed, chunks) in [
            (0, 72, 1),
            (1, 73, 1),
            (CHUNK - 1, 56 + 16 + 16383, 1),
            (CHUNK, 56 + 16400 + 16, 2),
            (CHUNK + 1, 56 + 16400 + 17, 2),
            (16 << 20, 56 + 1024 * 16400 + 16, 1025),
        ] {
            assert_eq!((sealed_length(plain), chunk_count(plain)), (sealed, chunks), "{plain}");
            assert_eq!(plain_length(sealed), Some(plain));
        }
        assert_eq!(plain_length(56 + 16400), None, "cut at a chunk's end");
        assert_eq!(plain_length(56 + 16400 + 15), None);
        assert_eq!(plain_length(0), None);
        assert_eq!(plain_length(71), None);
    }

    #[test]
    fn nothing_overflows() {
        for plain in [u64::MAX, u64::MAX - 56, 1 << 52, (1 << 52) - 1] {
            sealed_length(plain);
            chunk_length(u64::MAX, plain);
            sealed_range(&(0..u64::MAX), plain);
            sealed_range(&(u64::MAX - 1..u64::MAX), plain);
            chunks_of(&(0..plain));
            plain_length(plain);
            padme(plain);
        }
    }

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn a_sealed_length_tells_the_plain_one(plain in 0u64..1 << 50) {
            prop_assert_eq!(plain_length(sealed_length(plain)), Some(plain));
        }

        #[test]
        fn a_length_is_possible_only_if_sealing_makes_it(sealed in 0u64..1 << 50) {
            if let Some(plain) = plain_length(sealed) {
                prop_assert_eq!(sealed_length(plain), sealed);
            }
        }

        #[test]
        fn chunks_follow_each_other_and_fill_the_message(plain in 0u64..1 << 24) {
            let count = chunk_count(plain);
            let (mut offset, mut bytes) = (HEADER, 0);
            for index in 0..count {
                let range = sealed_range(&(index..index + 1), plain);
                prop_assert_eq!(range.start, offset);
                prop_assert_eq!(range.end - range.start, chunk_length(index, plain) + TAG);
                offset = range.end;
                bytes += chunk_length(index, plain);
            }
            prop_assert_eq!((offset, bytes), (sealed_length(plain), plain));
            prop_assert!(chunk_length(count - 1, plain) < CHUNK);
            prop_assert_eq!(sealed_range(&(0..count + 9), plain), HEADER..sealed_length(plain));
            prop_assert!(sealed_range(&(count..count + 9), plain).is_empty());
        }

        #[test]
        fn chunks_of_a_range_are_the_fewest_that_hold_it(start in 0u64..1 << 30, len in 0u64..1 << 22) {
            let range = start..start + len;
            let chunks = chunks_of(&range);
            if len == 0 {
                prop_assert!(chunks.is_empty());
            } else {
                prop_assert!(chunks.start * CHUNK <= start && start < (chunks.start + 1) * CHUNK);
                prop_assert!((chunks.end - 1) * CHUNK < range.end && range.end <= chunks.end * CHUNK);
            }
        }

        #[test]
        fn padding_grows_by_an_eighth_at_most(length in 0u64..1 << 50) {
            let padded = padme(length);
            prop_assert!(padded >= length);
            prop_assert!(padded - length <= length / 8);
            prop_assert_eq!(padme(padded), padded);
        }
    }

    #[test]
    fn padme_of_known_lengths() {
        // As the paper's reference implementation: floor(log2(log2 L)) + 1 bits are kept.
        for (length, padded) in
            [(0, 0), (1, 1), (8, 8), (9, 10), (100, 104), (1000, 1024), (65537, 67584)]
        {
            assert_eq!(padme(length), padded, "{length}");
        }
    }
}
