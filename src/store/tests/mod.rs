//! The decorators, on a store that fails by script.

mod directory;
mod listings;
mod odd;
mod retries;
mod urls;
mod verification;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use self::odd::OddStore;
use super::*;

fn faulty() -> (Arc<MemoryStore>, Arc<Faulty>, Bucket) {
    let memory = Arc::new(MemoryStore::new());
    let faulty = Faulty::over(memory.clone());
    let limits = Deadlines::of(Duration::from_millis(600));
    let bucket = Bucket::over(faulty.clone(), "some/vault/", limits);
    (memory, faulty, bucket)
}

fn body() -> Bytes {
    crate::types::noise(1, 100_000).into()
}

#[tokio::test]
async fn names_are_below_the_prefix_and_come_back_without_it() {
    let (memory, _, bucket) = faulty();
    for name in ["log/2", "log/1", "pack/x"] {
        bucket.put_new(name, body()).await.unwrap();
    }
    assert_eq!(memory.names()[0], "some/vault/log/1");
    let names = |listed: Vec<Listed>| listed.into_iter().map(|o| o.name).collect::<Vec<_>>();
    assert_eq!(names(bucket.list_all("log/").await.unwrap().0), ["log/1", "log/2"]);
    assert_eq!(names(bucket.list_after("log/", "log/1").await.unwrap().0), ["log/2"]);
    assert_eq!(names(bucket.list_after("log/", "log/2").await.unwrap().0), [""; 0]);
    bucket.delete(&["log/1".to_owned(), "pack/x".to_owned()]).await.unwrap();
    assert_eq!(memory.names(), ["some/vault/log/2"]);
}

#[tokio::test]
async fn a_put_is_repeated_until_it_is_there() {
    let (memory, faulty, bucket) = faulty();
    faulty.inject(On::next(Verb::Put, "").times(2), Fault::Breaks);
    bucket.put_new("log/1", body()).await.unwrap();
    assert_eq!(memory.peek("some/vault/log/1").unwrap(), body());
    assert_eq!(bucket.requests().puts, 3);
}

#[tokio::test]
async fn c5_a_lost_reply_is_made_up_for_by_looking() {
    let (_, faulty, bucket) = faulty();
    faulty.inject(On::next(Verb::Put, ""), Fault::LosesReply);
    bucket.put_new("log/1", body()).await.unwrap();
    // Somebody else's bytes under the name are not ours, however the reply was lost.
    faulty.inject(On::next(Verb::Put, ""), Fault::LosesReply);
    let other = bucket.put_new("log/1", Bytes::from_static(b"other")).await;
    assert!(matches!(other, Err(Error::Exists { .. })), "{other:?}");
}

#[tokio::test]
async fn c5_a_200_is_not_believed_when_half_or_nothing_is_kept() {
    for fault in [Fault::KeepsHalf, Fault::KeepsNothing, Fault::KeepsOther] {
        // A fault that happens once: the put is repeated, and in the end the very bytes are there. Only if other bytes
        // are there, this module cannot tell whose they are.
        let (memory, faulty, bucket) = faulty();
        faulty.inject(On::next(Verb::Put, ""), fault.clone());
        let put = bucket.put_new("pack/1", body()).await;
        if matches!(fault, Fault::KeepsOther) {
            assert!(matches!(put, Err(Error::Corrupt { .. })), "{put:?}");
            assert_eq!(memory.peek("some/vault/pack/1").unwrap().len(), body().len());
        } else {
            put.unwrap();
            assert_eq!(memory.peek("some/vault/pack/1").unwrap(), body(), "{fault:?}");
        }
        // A single attempt reports it, and leaves no half in the way of the next.
        faulty.inject(On::next(Verb::Put, ""), fault.clone());
        let once = bucket.put_once("log/2", body()).await;
        assert!(matches!(once, Err(Error::Corrupt { .. })), "{fault:?}: {once:?}");
        if !matches!(fault, Fault::KeepsOther) {
            bucket.put_once("log/2", body()).await.unwrap();
        }
        // A lasting fault: an error, and never a proof.
        faulty.inject(On::next(Verb::Put, "").always(), fault.clone());
        let never = bucket.put_new("pack/3", body()).await;
        assert!(never.as_ref().is_err_and(Error::is_transient), "{fault:?}: {never:?}");
    }
}

#[tokio::test]
async fn a_strangers_object_is_not_cleared_away() {
    let (memory, faulty, bucket) = faulty();
    // Acknowledged, but not kept; then another writer took the name.
    memory.plant("some/vault/log/1", "another's");
    faulty.inject(On::next(Verb::Put, ""), Fault::KeepsNothing);
    let once = bucket.put_once("log/1", body()).await;
    assert!(matches!(once, Err(Error::Corrupt { .. })), "{once:?}");
    assert_eq!(memory.peek("some/vault/log/1").unwrap(), "another's");
}

#[tokio::test]
async fn c5_without_a_checksum_it_is_read_back() {
    let (_, faulty, bucket) = faulty();
    for verb in [Verb::Put, Verb::Head] {
        faulty.inject(On::next(verb, "").always(), Fault::TellsNothing);
    }
    bucket.put_once("pack/1", body()).await.unwrap();
    assert_eq!(bucket.requests().gets, 1);
    faulty.inject(On::next(Verb::Get, ""), Fault::FlipsBit);
    let once = bucket.put_once("pack/2", body()).await;
    assert!(matches!(once, Err(Error::Corrupt { .. })), "{once:?}");
}

#[tokio::test]
async fn what_is_there_already_is_never_replaced() {
    let (memory, _, bucket) = faulty();
    memory.plant("some/vault/log/1", "a stranger's");
    let put = bucket.put_new("log/1", body()).await;
    assert!(matches!(put, Err(Error::Exists { .. })), "{put:?}");
    let put = bucket.put_once("log/1", body()).await;
    assert!(matches!(put, Err(Error::Exists { .. })), "{put:?}");
    assert_eq!(memory.peek("some/vault/log/1").unwrap(), "a stranger's");
    // To a repeated put, the same bytes are its own.
    bucket.put_new("log/1", Bytes::from_static(b"a stranger's")).await.unwrap();
}

#[tokio::test]
async fn one_attempt_is_one_attempt() {
    let (_, faulty, bucket) = faulty();
    faulty.inject(On::next(Verb::Put, ""), Fault::Breaks);
    let put = bucket.put_once("log/1", body()).await;
    assert!(matches!(put, Err(Error::Unreachable { .. })), "{put:?}");
    assert_eq!(bucket.requests().puts, 1);
}

#[tokio::test]
async fn a_get_that_breaks_off_is_repeated_and_a_short_object_is_an_error() {
    let (memory, faulty, bucket) = faulty();
    bucket.put_new("pack/1", body()).await.unwrap();
    faulty.inject(On::next(Verb::Get, "").times(2), Fault::CutsOff);
    assert_eq!(bucket.get("pack/1", None).await.unwrap(), body());
    faulty.inject(On::next(Verb::Get, ""), Fault::CutsOff);
    assert_eq!(bucket.get("pack/1", Some(10..20)).await.unwrap(), body()[10..20]);
    memory.plant("some/vault/pack/1", body().slice(..50));
    let short = bucket.get("pack/1", Some(40..60)).await;
    assert!(matches!(short, Err(Error::Corrupt { .. })), "{short:?}");
    let before = bucket.requests().gets;
    assert!(before < 12, "it is not asked for for ever: {before}");
    assert!(bucket.get("pack/1", Some(5..5)).await.unwrap().is_empty());
    assert_eq!(bucket.requests().gets, before, "nothing is asked for by HEAD");
}

#[tokio::test]
async fn what_is_refused_is_not_asked_again() {
    let (_, faulty, bucket) = faulty();
    assert!(bucket.get("log/9", None).await.unwrap_err().is_not_found());
    let cause: Cause = Arc::from(Box::from("403"));
    let denied = Error::Denied { object: "log/1".to_owned(), cause };
    faulty.inject(On::next(Verb::Get, "").always(), Fault::Fails(denied));
    let got = bucket.get("log/1", None).await;
    assert!(matches!(got, Err(Error::Denied { .. })), "{got:?}");
    assert_eq!(bucket.requests().gets, 2);
}

#[tokio::test(start_paused = true)]
async fn every_request_is_answered_within_its_deadline() {
    let (_, faulty, bucket) = faulty();
    bucket.put_new("log/1", body()).await.unwrap();
    for verb in [Verb::Put, Verb::Get, Verb::Head, Verb::List, Verb::Delete] {
        for fault in [Fault::Stalls, Fault::Breaks] {
            faulty.inject(On::next(verb, "").always(), fault.clone());
            let start = tokio::time::Instant::now();
            let error = match verb {
                Verb::Put => bucket.put_new("log/2", body()).await.map(drop),
                Verb::Get => bucket.get("log/1", Some(0..10)).await.map(drop),
                Verb::Head => bucket.head("log/1").await.map(drop),
                Verb::List => bucket.list_all("").await.map(drop),
                Verb::Delete => bucket.delete(&["log/1".to_owned()]).await,
            };
            let error = error.unwrap_err();
            assert!(error.is_transient(), "{verb:?} {fault:?}: {error:?}");
            assert!(start.elapsed() < Duration::from_millis(1500), "{verb:?} {fault:?}");
            faulty.heal();
        }
    }
    // A dead connection leaves time to try another.
    faulty.inject(On::next(Verb::Get, ""), Fault::Stalls);
    assert_eq!(bucket.get("log/1", Some(0..10)).await.unwrap(), body()[..10]);
}

#[tokio::test]
async fn the_stores_time_is_told() {
    let (memory, faulty, bucket) = faulty();
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    memory.set_time(noon);
    assert_eq!(bucket.put_once("log/1", body()).await.unwrap().time(), noon);
    memory.advance(Duration::from_secs(60));
    assert_eq!(bucket.list_all("").await.unwrap().1, noon + Duration::from_secs(60));
    faulty.inject(On::next(Verb::Put, ""), Fault::Older(Duration::from_secs(3600)));
    let old = bucket.put_once("log/2", body()).await.unwrap().time();
    assert_eq!(old, noon - Duration::from_secs(3540));
}

/// A store that does not know conditions.
fn careless() -> OddStore {
    OddStore { is_careless: true, ..OddStore::default() }
}

#[tokio::test]
async fn w6_conditional_puts_are_tested_and_nothing_is_left_behind() {
    let (memory, faulty, bucket) = faulty();
    assert_eq!(bucket.probe_conditional().await.unwrap(), Conditional::NotDisproved);
    assert!(memory.names().is_empty());
    let careless = Arc::new(careless());
    let ignoring = Bucket::over(careless.clone(), "", bucket.deadlines());
    assert_eq!(ignoring.probe_conditional().await.unwrap(), Conditional::Ignored);
    assert!(careless.memory.names().is_empty());
    // A momentary failure is repeated, even if the request was carried out; a store that keeps failing has shown
    // nothing.
    faulty.inject(On::next(Verb::Put, "").times(3), Fault::Breaks);
    faulty.inject(On::next(Verb::Put, "").times(3), Fault::LosesReply);
    faulty.inject(On::next(Verb::Delete, ""), Fault::Breaks);
    faulty.inject(On::next(Verb::Head, ""), Fault::Breaks);
    assert_eq!(bucket.probe_conditional().await.unwrap(), Conditional::NotDisproved);
    assert!(memory.names().is_empty());
    faulty.inject(On::next(Verb::Put, "").always(), Fault::Breaks);
    assert!(bucket.probe_conditional().await.is_err());
    faulty.heal();
    faulty.inject(On::next(Verb::Put, "").always(), Fault::Stalls);
    assert!(matches!(bucket.probe_conditional().await, Err(Error::Deadline { .. })));
    assert!(memory.names().is_empty());
}

#[tokio::test]
async fn the_suite_finds_what_is_wrong_with_a_store() {
    let report = conformance::run(&careless(), "").await;
    assert!(report.passed("put, get, head") && report.passed("pages of a listing"));
    assert!(!report.passed("conditional put") && !report.passed("one winner of a race"));
}

#[tokio::test]
async fn a_directory_is_opened_by_its_url() {
    let directory = tempfile::tempdir().unwrap();
    let url: StoreUrl = format!("file://{}/new/vault", directory.path().display()).parse().unwrap();
    let bucket = Bucket::open(&url, &S3Options::default(), Deadlines::default()).await.unwrap();
    bucket.put_new("log/1", body()).await.unwrap();
    assert_eq!(bucket.describe(), url.to_string());
    assert_eq!(std::fs::read(directory.path().join("new/vault/log/1")).unwrap(), body());
}
