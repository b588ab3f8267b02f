//! Limits repeated log lines: each place in the program may write a limited number of lines per minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

/// Lines that one place may write in one [`WINDOW`].
const LINES: u32 = 100;
const WINDOW: Duration = Duration::from_mins(1);

/// The decision about a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    /// It is written.
    Write,
    /// It is written, after a note that this many before it were not.
    WriteAfter(u64),
    /// It is dropped.
    LeaveOut,
}

/// How much each place has logged.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<HashMap<Identifier, PlaceSaid>>);

#[derive(Debug)]
struct PlaceSaid {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Quotas {
    /// Lines that are only logged on request (`-v`) are not limited.
    pub(crate) fn of(&self, metadata: &Metadata<'_>) -> Quota {
        if *metadata.level() > Level::INFO {
            return Quota::Write;
        }
        self.at(metadata.callsite(), Instant::now())
    }

    fn at(&self, place: Identifier, now: Instant) -> Quota {
        let mut all = self.0.lock();
        let said = all.entry(place).or_insert(PlaceSaid { since: now, lines: 0, left_out: 0 });
        let mut before = 0;
        if now.duration_since(said.since) >= WINDOW {
            before = said.left_out;
            *said = PlaceSaid { since: now, lines: 0, left_out: 0 };
        }
        if said.lines >= LINES {
            said.left_out += 1;
            return Quota::LeaveOut;
        }
        said.lines += 1;
        if before > 0 { Quota::WriteAfter(before) } else { Quota::Write }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Callsite;

    use super::*;

    #[test]
    fn what_is_said_again_and_again_is_counted() {
        struct Here;
        impl Callsite for Here {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                unreachable!("a quota asks for the place alone")
            }
        }
        static ONE: Here = Here;
        let (quotas, begun) = (Quotas::default(), Instant::now());
        // One identifier for all. Identifiers compare the callsite's vtable too, which another value might not share.
        let place = Identifier(&ONE);
        let ask = |seconds| quotas.at(place.clone(), begun + Duration::from_secs(seconds));
        let all: Vec<Quota> = (0..1000).map(|number| ask(number / 100)).collect();
        assert_eq!(all.iter().filter(|quota| **quota == Quota::Write).count(), 100);
        assert!(all[100..].iter().all(|quota| *quota == Quota::LeaveOut));
        assert_eq!(ask(60), Quota::WriteAfter(900));
        assert_eq!(ask(61), Quota::Write);
    }
}
