//! Panics that a test plants in the tasks of the program. With the feature `testing`, `S3VAULT_PANIC` names them as
//! `NAME,TIMES` or `NAME,TIMES,after`, separated by semicolons. A task of this name panics when it is polled (blocking work:
//! called) for the TIMES-th time; all tasks of one name are counted together. With `after`, blocking work panics when it is
//! done, before anybody is told. Without the feature none of this is in the program (`tests/program/panics.rs` uses it).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

const VARIABLE: &str = "S3VAULT_PANIC";

/// The point in a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PanicMoment {
    Before,
    After,
}

#[derive(Debug)]
struct PlantedPanic {
    name: String,
    times: u64,
    moment: PanicMoment,
    met: AtomicU64,
}

static PLANTED: LazyLock<Vec<PlantedPanic>> = LazyLock::new(|| {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    let planted = parse(&text);
    if planted.is_none() {
        tracing::error!(text, "{VARIABLE} names no tasks and counts");
    }
    planted.unwrap_or_default()
});

fn parse(text: &str) -> Option<Vec<PlantedPanic>> {
    let one = |text: &str| {
        let words: Vec<_> = text.split(',').collect();
        let (name, times, moment) = match words[..] {
            [name, times] => (name, times, PanicMoment::Before),
            [name, times, "after"] => (name, times, PanicMoment::After),
            _ => return None,
        };
        let (name, times) = (name.to_owned(), times.parse().ok()?);
        Some(PlantedPanic { name, times, moment, met: AtomicU64::new(0) })
    };
    text.split(';').filter(|text| !text.is_empty()).map(one).collect()
}

/// Called when a task of this name reaches this point: panics if that was planted.
pub(super) fn meet(name: &str, moment: PanicMoment) {
    let here = |planted: &&PlantedPanic| planted.name == name && planted.moment == moment;
    for planted in PLANTED.iter().filter(here) {
        let met = planted.met.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(met != planted.times, "planted in {name:?}");
    }
}

/// The task, with the panics that are planted in it.
pub(super) async fn within<T>(name: &str, task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    poll_fn(|context| {
        meet(name, PanicMoment::Before);
        task.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planted_is_named_as_its_task() {
        let planted = parse("sending packs,3;the barrier,1,after").unwrap();
        let told = |n: usize| (planted[n].name.as_str(), planted[n].times, planted[n].moment);
        assert_eq!(told(0), ("sending packs", 3, PanicMoment::Before));
        assert_eq!(told(1), ("the barrier", 1, PanicMoment::After));
        assert!(parse("").unwrap().is_empty());
        assert!(parse("the barrier").is_none() && parse("the barrier,often").is_none());
    }
}
