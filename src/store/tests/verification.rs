//! How far a store is believed about what it holds (C5).

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
        // The checksum counts more than the tag.
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
    // A wrong checksum proves nothing: the bytes themselves decide.
    let (store, bucket) = telling(|_| (Some(7), None));
    bucket.put_once("pack/1", body()).await.unwrap();
    *store.brings.lock() = Some((vec![1; 100_000].into(), 100_000));
    let once = bucket.put_once("pack/2", body()).await;
    assert!(matches!(once, Err(Error::Corrupt { .. })), "{once:?}");
}

#[tokio::test]
async fn c5_an_echo_that_was_borne_out_once_spares_the_question() {
    let (_, _, bucket) = faulty();
    let of = |length: usize| body().slice(..length);
    // Sixteen times the length that a HEAD confirmed, and no more.
    for (number, (length, heads)) in
        [(100, 1), (1600, 1), (1, 1), (1601, 2), (25_616, 2), (100_000, 3)].into_iter().enumerate()
    {
        bucket.put_once(&format!("pack/{number}"), of(length)).await.unwrap();
        bucket.put_new(&format!("log/{number}"), of(length)).await.unwrap();
        assert_eq!(bucket.requests().heads, heads, "{length}");
    }
    assert_eq!((bucket.requests().puts, bucket.requests().gets), (12, 0));
    // An ETag says as much about the bytes, but nothing confirms that they were kept, so a HEAD is still made.
    let (_, bucket) = telling(|bytes| (None, Some(md5(bytes))));
    for number in 1..4 {
        bucket.put_once(&format!("pack/{number}"), body()).await.unwrap();
        assert_eq!(bucket.requests().heads, number, "{number}");
    }
}

#[tokio::test]
async fn c5_what_is_not_proved_is_found_out_whatever_was_seen_before() {
    for fault in [Fault::KeepsHalf, Fault::KeepsNothing, Fault::KeepsOther] {
        let (memory, faulty, bucket) = faulty();
        bucket.put_once("log/1", body()).await.unwrap();
        bucket.put_once("log/2", body()).await.unwrap();
        assert_eq!(bucket.requests().heads, 1, "the echo is believed");
        faulty.inject(On::next(Verb::Put, ""), fault.clone());
        let once = bucket.put_once("log/3", body()).await;
        assert!(matches!(once, Err(Error::Corrupt { .. })), "{fault:?}: {once:?}");
        let other = matches!(fault, Fault::KeepsOther);
        assert_eq!(memory.peek("some/vault/log/3").is_some(), other, "{fault:?}");
        // From then on every put is checked.
        assert!(bucket.quirks()[0].contains("less than it should"), "{:?}", bucket.quirks());
        let before = bucket.requests().heads;
        bucket.put_once("log/4", body()).await.unwrap();
        assert_eq!(bucket.requests().heads, before + 1);
    }
}

#[tokio::test]
async fn c5_a_store_that_lies_is_believed_until_anything_contradicts_it_and_never_again() {
    let (memory, faulty, bucket) = faulty();
    faulty.inject(On::next(Verb::Put, "").times(2), Fault::LiesAboutHalf);
    // The first answer of a store is not believed.
    let first = bucket.put_once("log/1", body()).await;
    assert!(matches!(first, Err(Error::Corrupt { .. })), "{first:?}");
    assert!(memory.names().is_empty(), "the half is not in the way");
    let second = bucket.put_once("log/1", body()).await;
    assert!(matches!(second, Err(Error::Corrupt { .. })), "{second:?}");

    let (faulty, bucket) = (Faulty::over(memory), bucket.deadlines());
    let bucket = Bucket::over(faulty.clone(), "", bucket);
    bucket.put_once("log/1", body()).await.unwrap();
    faulty.inject(On::next(Verb::Put, "").times(3), Fault::LiesAboutHalf);
    bucket.put_once("pack/1", body()).await.unwrap(); // undetectable
    let read = bucket.get("pack/1", Some(99_990..100_000)).await;
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    let found = bucket.put_once("pack/2", body()).await;
    assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
    // Nor in the next process.
    let later = Bucket::over(faulty, "", bucket.deadlines());
    later.recall(&bucket.learned());
    let found = later.put_once("pack/2", body()).await;
    assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
    later.put_once("pack/2", body()).await.unwrap();
    later.put_once("pack/3", body()).await.unwrap();
    assert_eq!(later.requests().heads, 3);
}

proptest! {
    #![proptest_config(crate::types::cases(200))]

    /// Whatever a store sends, only exactly what was requested passes.
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
        let store = Checked::over(Arc::new(odd), Arc::default());
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

    /// After a 200 that is disproved, only a shorter beginning of our own bytes is deleted, nothing else.
    #[test]
    fn c5_only_a_shorter_beginning_of_our_own_bytes_is_removed(
        ours in prop::collection::vec(0u8..2, 1..12),
        there in prop::collection::vec(0u8..2, 0..12),
        cut in prop::option::of(0usize..12),
    ) {
        // Half of the time a beginning: by chance it seldom is.
        let there = cut.map_or(there, |cut| ours[..cut.min(ours.len())].to_vec());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (memory, faulty, bucket) = faulty();
        memory.plant("some/vault/log/1", there.clone());
        faulty.inject(On::next(Verb::Put, ""), Fault::KeepsNothing);
        let once = runtime.block_on(bucket.put_once("log/1", ours.clone().into()));
        if there == ours {
            prop_assert!(once.is_ok()); // whoever put them
        } else {
            prop_assert!(matches!(once, Err(Error::Corrupt { .. })), "{once:?}");
        }
        let goes = there.len() < ours.len() && ours.starts_with(&there);
        prop_assert_eq!(memory.peek("some/vault/log/1").is_none(), goes);
    }
}
