//! What is believed of a store's words about what it holds (C5).

use proptest::prelude::*;

use super::super::checked::Checked;
use super::odd::{OddStore, Says};
use super::*;

fn telling(says: Says) -> (Arc<OddStore>, Bucket) {
    OddStore { says: Some(says), ..OddStore::default() }.bucket()
}

fn md5(bytes: &[u8]) -> String {
    use md5::{Digest, Md5};
    data_encoding::HEXLOWER.encode(&Md5::digest(bytes))
}

#[tokio::test]
async fn c5_a_tag_that_is_the_md5_spares_the_reading_back_and_no_other_does() {
    let says: [(Says, u64); 7] = [
        (|bytes| (Some(crc32fast::hash(bytes)), None), 0),
        // The checksum says more than the tag.
        (|bytes| (Some(crc32fast::hash(bytes)), Some("W/xyz".to_owned())), 0),
        (|bytes| (None, Some(md5(bytes))), 0),
        (|bytes| (None, Some(md5(bytes).to_uppercase())), 0),
        (|bytes| (None, Some(format!("{}-2", md5(bytes)))), 1),
        (|_| (None, Some("0".repeat(32))), 1),
        (|_| (None, Some("é".repeat(16))), 1),
    ];
    for (number, (says, gets)) in says.into_iter().enumerate() {
        let (_, bucket) = telling(says);
        bucket.put_once("pack/1", body()).await.unwrap();
        assert_eq!(bucket.requests().gets, gets, "{number}");
    }
    // A wrong checksum is no proof of anything: the bytes themselves decide.
    let (store, bucket) = telling(|_| (Some(7), None));
    bucket.put_once("pack/1", body()).await.unwrap();
    *store.brings.lock() = Some((vec![1; 100_000].into(), 100_000));
    let once = bucket.put_once("pack/2", body()).await;
    assert!(matches!(once, Err(Error::Corrupt { .. })), "{once:?}");
}

proptest! {
    #![proptest_config(crate::types::cases(200))]

    /// Of whatever a store sends, exactly what was asked for passes.
    #[test]
    fn a_get_passes_only_as_long_as_it_must_be(
        came in 0usize..40,
        whole in 0u64..40,
        range in prop::option::of((0u64..40, 1u64..40)),
    ) {
        let range = range.map(|(start, length)| start..start + length);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let odd = OddStore::default();
        odd.memory.plant("pack/1", vec![0; 80]);
        *odd.brings.lock() = Some((vec![0; came].into(), whole));
        let store = Checked::over(Arc::new(odd));
        let got = runtime.block_on(store.get("pack/1", range.clone()));
        let fits = match range {
            None => came as u64 == whole,
            Some(range) => range.end <= whole && came as u64 == range.end - range.start,
        };
        match got {
            Ok(fetched) => prop_assert!(fits && fetched.bytes.len() == came),
            Err(error) => prop_assert!(!fits && matches!(error, Error::Corrupt { .. }), "{error:?}"),
        }
    }

    /// After a 200 that is disproved nothing goes but a shorter beginning of our own bytes: the one deletion there is.
    #[test]
    fn c5_only_a_shorter_beginning_of_our_own_bytes_is_removed(
        ours in prop::collection::vec(0u8..2, 1..12),
        there in prop::collection::vec(0u8..2, 0..12),
        cut in prop::option::of(0usize..12),
    ) {
        // Half of the time a beginning: it is seldom one by chance.
        let there = cut.map_or(there, |cut| ours[..cut.min(ours.len())].to_vec());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (memory, faulty, bucket) = faulty();
        memory.plant("some/vault/log/1", there.clone());
        faulty.inject(On::next(Verb::Put, ""), Fault::KeepsNothing);
        let once = runtime.block_on(bucket.put_once("log/1", ours.clone().into()));
        if there.len() == ours.len() {
            // The store says that it took our checksum, and has as many bytes: nothing disproves it.
            prop_assert!(once.is_ok());
        } else {
            prop_assert!(matches!(once, Err(Error::Corrupt { .. })), "{once:?}");
        }
        let goes = there.len() < ours.len() && ours.starts_with(&there);
        prop_assert_eq!(memory.peek("some/vault/log/1").is_none(), goes);
    }
}
