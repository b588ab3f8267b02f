//! When a request is repeated, how long that goes on, and what a put concludes from it.

use proptest::prelude::*;
use tokio::time::Instant as Clock;

use super::super::retry::RetryPlan;
use super::*;

fn cause(words: &str) -> Cause {
    Arc::from(Box::from(words.to_owned()))
}

fn error(kind: u8) -> Error {
    let object = || "log/1".to_owned();
    match kind {
        0 => Error::Unreachable { object: object(), cause: cause("reset") },
        1 => Error::Busy { object: object(), cause: cause("503") },
        2 => Error::Deadline { object: object(), after: Duration::from_secs(1) },
        3 => Error::Clock { object: object(), cause: cause("skewed") },
        4 => Error::Corrupt { object: object(), reason: "short".to_owned() },
        5 => Error::NotFound { object: object() },
        6 => Error::Exists { object: object() },
        7 => Error::Denied { object: object(), cause: cause("403") },
        _ => Error::Full { object: object(), cause: cause("507") },
    }
}

proptest! {
    #![proptest_config(crate::types::cases(256))]
    /// With a controlled clock: no repetition that cannot help, at most two for broken bytes, none after the deadline,
    /// and no pause longer than the longest.
    #[test]
    fn a_plan_repeats_what_may_help_within_its_time(
        // Errors that end a plan at once are rare; otherwise hardly any plan would go on for long.
        kinds in prop::collection::vec(prop_oneof![20 => 0u8..5, 1 => 5u8..9], 1..60),
        operation in 1u64..60_000,
        attempt in 0u64..2_000,
    ) {
        let limits = Deadlines::of(Duration::from_millis(operation));
        let begun = Clock::now();
        let mut plan = RetryPlan::beginning(begun, &limits, limits.operation);
        let (mut now, mut corrupt) = (begun, 0);
        for kind in kinds {
            now += Duration::from_millis(attempt);
            let error = error(kind);
            corrupt += u32::from(matches!(error, Error::Corrupt { .. }));
            let Some(pause) = plan.pause_after(&error, now) else {
                // If there is time for the longest pause, only the error is a reason to end.
                let late = now + limits.pause_max * 2 >= begun + limits.operation;
                prop_assert!(!error.is_transient() || corrupt > 2 || late, "{error:?}");
                break;
            };
            prop_assert!(error.is_transient() && corrupt <= 2, "{error:?}");
            prop_assert!(pause <= limits.pause_max * 2, "{pause:?}");
            now += pause;
            prop_assert!(now < begun + limits.operation);
        }
    }

    /// One deadline gives limits that fit into it and into each other.
    #[test]
    fn limits_fit_into_each_other(
        millis in prop_oneof![0u64..10_000, 0u64..10_000_000],
        bytes: u32,
        more: u32,
    ) {
        let limits = Deadlines::of(Duration::from_millis(millis));
        for part in [limits.connect, limits.stall_get, limits.stall_put, limits.pause_max] {
            prop_assert!(part <= limits.operation);
        }
        prop_assert!(limits.pause <= limits.pause_max && limits.least_put() >= 1);
        let (less, more) = (u64::from(bytes), u64::from(bytes) + u64::from(more));
        prop_assert!(limits.operation <= limits.get(less) && limits.get(less) <= limits.get(more));
    }
}

#[tokio::test]
async fn every_repetition_is_counted_with_its_bytes() {
    let (_, faulty, bucket) = faulty();
    faulty.inject(On::next(Verb::Put, "").times(2), Fault::Breaks);
    bucket.put_new("log/1", body()).await.unwrap();
    let counts = bucket.requests();
    assert_eq!((counts.puts, counts.bytes_put), (3, 300_000));
}

#[tokio::test]
async fn c5_a_put_that_was_carried_out_counts_however_often_its_answer_was_lost() {
    let (memory, faulty, bucket) = faulty();
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    memory.set_time(noon);
    // The answer is lost; later attempts find the name taken, and so does a HEAD.
    faulty.inject(On::next(Verb::Put, ""), Fault::LosesReply);
    faulty.inject(On::next(Verb::Head, "").times(2), Fault::Breaks);
    let put = bucket.put_new("log/1", body()).await.unwrap();
    assert_eq!((put.name(), put.length(), put.time()), ("log/1", 100_000, noon));
    assert_eq!(put.crc32(), crc32fast::hash(&body()));
    assert_eq!(memory.peek("some/vault/log/1").unwrap(), body());
}

#[tokio::test]
async fn c2_one_attempt_that_cannot_be_verified_is_an_error_and_touches_nothing() {
    let (memory, faulty, bucket) = faulty();
    // Carried out and acknowledged; only the look at it fails. Nothing is known, so nothing is deleted.
    faulty.inject(On::next(Verb::Head, ""), Fault::Breaks);
    let put = bucket.put_once("log/1", body()).await;
    assert!(matches!(put, Err(Error::Unreachable { .. })), "{put:?}");
    assert_eq!(memory.peek("some/vault/log/1").unwrap(), body());
    assert_eq!(bucket.requests().deletes, 0);
    // A repeated put finds its own bytes there.
    bucket.put_new("log/1", body()).await.unwrap();
    faulty.inject(On::next(Verb::Head, ""), Fault::Breaks);
    bucket.put_new("log/2", body()).await.unwrap();
}

#[tokio::test]
async fn a_race_that_was_lost_against_nothing_is_entered_again() {
    let (memory, faulty, bucket) = faulty();
    // 409: another put of the name was under way, and failed.
    let exists = Error::Exists { object: "some/vault/log/1".to_owned() };
    faulty.inject(On::next(Verb::Put, "").times(2), Fault::Fails(exists.clone()));
    bucket.put_new("log/1", body()).await.unwrap();
    assert_eq!(memory.peek("some/vault/log/1").unwrap(), body());
    assert_eq!(bucket.requests().puts, 3);
    // It ends with an error that another attempt may clear.
    faulty.inject(On::next(Verb::Put, "").always(), Fault::Fails(exists));
    let put = bucket.put_new("log/2", body()).await;
    assert!(matches!(put, Err(Error::Busy { .. })), "{put:?}");
}

#[tokio::test(start_paused = true)]
async fn a_put_is_given_up_when_nothing_moves_and_not_before() {
    let (_, faulty, bucket) = faulty();
    let stall = bucket.deadlines().stall_put;
    // Longer than that in all, in pieces that each come in time.
    faulty.inject(On::next(Verb::Put, ""), Fault::Trickles(5, stall * 2 / 5));
    let begun = tokio::time::Instant::now();
    bucket.put_once("pack/1", body()).await.unwrap();
    assert!(begun.elapsed() > stall * 3 / 2, "{:?}", begun.elapsed());
    assert_eq!(bucket.requests().puts, 1);
    assert!(bucket.moved() >= 100_000);
    faulty.inject(On::next(Verb::Put, ""), Fault::Stalls);
    let begun = tokio::time::Instant::now();
    let put = bucket.put_once("pack/2", body()).await;
    assert!(matches!(put, Err(Error::Deadline { .. })), "{put:?}");
    assert!((stall..stall * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_made_again_and_again_is_said_before_it_is_given_up() {
    let faulty = Faulty::over(Arc::new(MemoryStore::new()));
    let bucket = Bucket::over(faulty.clone(), "", Deadlines::default());
    faulty.inject(On::next(Verb::Put, "").always(), Fault::Breaks);
    let put = tokio::spawn({
        let bucket = bucket.clone();
        async move { bucket.put_new("pack/1", body()).await }
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(bucket.puts_fail(), None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let said = bucket.puts_fail().unwrap();
    assert!(said.contains("cannot be reached") && said.ends_with("(for 6 s)"), "{said}");
    let before = bucket.answers();
    faulty.heal();
    put.await.unwrap().unwrap();
    assert!(bucket.puts_fail().is_none() && bucket.answers() > before);
}

#[tokio::test]
async fn only_the_lack_of_an_answer_counts_as_failing() {
    let (_, faulty, bucket) = faulty();
    assert!(!bucket.is_failing());
    faulty.inject(On::next(Verb::Get, "").always(), Fault::Breaks);
    bucket.get("log/1", Some(0..1)).await.unwrap_err();
    assert!(bucket.is_failing());
    faulty.heal();
    // That there is no such object is an answer, too.
    assert!(bucket.get("log/1", None).await.unwrap_err().is_not_found());
    assert!(!bucket.is_failing());
}
