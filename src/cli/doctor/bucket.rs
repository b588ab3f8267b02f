//! Checks what the store lets this machine do, and how fast.

use std::time::Duration;

use bytesize::ByteSize;

use super::remark::Remark;
use crate::cli::exit::Exit;
use crate::cli::messages;
use crate::cli::target::Target;
use crate::vault::{self, Conditional, Deadlines, Rights, StoreError};

/// Bytes that are uploaded and downloaded to measure speed.
const SPEED: usize = 4 << 20;
/// The time limit of each request.
const LIMIT: Duration = Duration::from_secs(20);
/// The clock difference, in seconds, that yields a warning or a failure; stores refuse signatures that are 15 minutes
/// off.
const CLOCK_WARN: u64 = 30;
const CLOCK_FAIL: u64 = 600;
/// A round trip that makes each metadata operation noticeably slow.
const SLOW: Duration = Duration::from_millis(400);

/// Examines a target's bucket.
pub(crate) async fn look_at_bucket(target: &Target) -> Vec<Remark> {
    let place = target.describe();
    let bucket = match target.unasked(None, Deadlines::of(LIMIT)).await {
        Ok(bucket) => bucket,
        Err(failure) => {
            return vec![Remark::fail(
                "bucket",
                failure.message,
                "see above; s3vault config show says what was used",
            )];
        }
    };
    if let Some(known) = target.known_vault()
        && let Err(vault::Error::NoVault) = vault::vault_id(&bucket).await
    {
        let text = messages::vanished(&place, &known.id).message;
        return vec![Remark::fail("bucket", text, "mount its disk, and look again")];
    }
    let rights = bucket.try_rights(SPEED, LIMIT).await;
    describe(&place, &rights)
}

fn describe(place: &str, rights: &Rights) -> Vec<Remark> {
    let mut remarks = vec![Remark::ok("bucket", place)];
    remarks.extend(rights.list.as_ref().map(|list| right(place, "list", "s3:ListBucket", list)));
    remarks.extend(rights.round_trip.map(round_trip));
    remarks.extend(rights.clock.map(clock));
    remarks.extend(rights.put.as_ref().map(|put| right(place, "put", "s3:PutObject", put)));
    if matches!(rights.put, Some(Ok(()))) {
        remarks.push(conditional(rights.conditional));
    }
    remarks.extend(rights.get.as_ref().map(|get| right(place, "get", "s3:GetObject", get)));
    if let Some(Ok(())) = rights.put {
        remarks.push(speed("upload", rights.up));
        if rights.up.is_some() {
            remarks.push(speed("download", rights.down));
        }
    }
    remarks.extend(rights.delete.as_ref().map(|delete| deletes(delete, &rights.left)));
    remarks
}

fn right(place: &str, what: &'static str, policy: &str, tried: &Result<(), StoreError>) -> Remark {
    let error = match tried {
        Ok(()) => return Remark::ok(what, "allowed"),
        Err(error) => error,
    };
    let failure = messages::of_store(error, place);
    let mend = match failure.exit {
        Exit::Denied => {
            format!("give these credentials the right to {what} ({policy}), or use others")
        }
        _ => "see above; s3vault config show says what was used".to_owned(),
    };
    Remark::fail(what, failure.message, mend)
}

fn deletes(tried: &Result<(), StoreError>, left: &[String]) -> Remark {
    const WHAT: &str = "delete";
    let left = match left {
        [] => String::new(),
        some => format!("; what the probe put is still there: {}", some.join(", ")),
    };
    match tried {
        Ok(()) if left.is_empty() => Remark::ok(WHAT, "allowed"),
        Ok(()) => Remark::warn(
            WHAT,
            format!("is answered, and deletes nothing{left}"),
            "nothing, if the bucket has Object Lock; space then comes back when that ends",
        ),
        Err(StoreError::Denied { .. }) => Remark::warn(
            WHAT,
            format!(
                "refused{left}: a vault works, but what is overwritten or removed keeps its room for ever"
            ),
            "nothing, if that is meant (then run s3vault gc with other credentials); else allow s3:DeleteObject",
        ),
        Err(error) => Remark::fail(WHAT, format!("{error}{left}"), "try again; nothing is lost"),
    }
}

fn conditional(found: Option<Conditional>) -> Remark {
    const WHAT: &str = "conditional put";
    const MEND: &str = "use another store, or --single-machine, and never two machines at once";
    match found {
        Some(Conditional::NotDisproved) => {
            Remark::ok(WHAT, "the first one wins, the second is refused")
        }
        Some(Conditional::Ignored) => Remark::fail(
            WHAT,
            "the condition is ignored: two machines could overwrite each other's changes",
            MEND,
        ),
        Some(Conditional::Refused) => {
            Remark::fail(WHAT, "the store refuses puts with a condition", MEND)
        }
        None => Remark::warn(WHAT, "not known: the second put was not answered", "try again"),
    }
}

fn round_trip(least: Duration) -> Remark {
    const WHAT: &str = "round trip";
    let text = format!("{:.1} ms, the fastest of three", least.as_secs_f64() * 1000.0);
    match least >= SLOW {
        true => Remark::warn(WHAT, text, "use a region that is nearer, if there is one"),
        false => Remark::ok(WHAT, text),
    }
}

fn clock(ahead: i64) -> Remark {
    const WHAT: &str = "clock";
    let (off, way) = (ahead.unsigned_abs(), if ahead > 0 { "behind" } else { "before" });
    let text = match off {
        0..=2 => "as the store's".to_owned(),
        _ => format!("{off} s {way} the store's"),
    };
    let mend = "set it: timedatectl set-ntp true";
    match off {
        ..CLOCK_WARN => Remark::ok(WHAT, text),
        CLOCK_WARN..CLOCK_FAIL => Remark::warn(WHAT, text, mend),
        _ => Remark::fail(WHAT, text + ": it refuses what is signed so, or soon will", mend),
    }
}

fn speed(what: &'static str, took: Option<Duration>) -> Remark {
    let Some(took) = took else {
        let text =
            format!("{} did not pass within {} s", ByteSize::b(SPEED as u64), LIMIT.as_secs());
        return Remark::warn(
            what,
            text,
            "a vault works over a slow link, slowly; look at the network and the proxy",
        );
    };
    let rate = SPEED as f64 / took.as_secs_f64().max(1e-6) / 1e6;
    Remark::ok(what, format!("{rate:.1} MB/s (one object of {})", ByteSize::b(SPEED as u64)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::remark::Gravity;
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "as the fields have it")]
    fn denied() -> Option<Result<(), StoreError>> {
        let cause = Arc::from(Box::from("AccessDenied"));
        Some(Err(StoreError::Denied { object: "o".into(), cause }))
    }

    fn all() -> Rights {
        Rights {
            list: Some(Ok(())),
            clock: Some(1),
            round_trip: Some(Duration::from_millis(3)),
            put: Some(Ok(())),
            conditional: Some(Conditional::NotDisproved),
            get: Some(Ok(())),
            up: Some(Duration::from_secs(1)),
            down: Some(Duration::from_secs(1)),
            delete: Some(Ok(())),
            left: Vec::new(),
        }
    }

    fn levels(rights: &Rights) -> Vec<(&'static str, Gravity)> {
        let remarks = describe("s3://b", rights);
        remarks.iter().filter(|r| r.gravity != Gravity::Ok).map(|r| (r.what, r.gravity)).collect()
    }

    #[test]
    fn each_right_is_judged_by_what_a_vault_needs() {
        assert_eq!(levels(&all()), []);
        let left = vec!["probe/1".to_owned()];
        assert_eq!(
            levels(&Rights { delete: denied(), left, ..all() }),
            [("delete", Gravity::Warn)]
        );
        assert_eq!(levels(&Rights { get: denied(), ..all() }), [("get", Gravity::Fail)]);
        let rights =
            Rights { put: denied(), conditional: None, get: None, up: None, delete: None, ..all() };
        assert_eq!(levels(&rights), [("put", Gravity::Fail)]);
        let rights = Rights { conditional: Some(Conditional::Ignored), clock: Some(-60), ..all() };
        assert_eq!(levels(&rights), [("clock", Gravity::Warn), ("conditional put", Gravity::Fail)]);
        assert_eq!(levels(&Rights { clock: Some(1000), ..all() }), [("clock", Gravity::Fail)]);
        assert_eq!(levels(&Rights { down: None, ..all() }), [("download", Gravity::Warn)]);
    }
}
