//! Points in time, as files store them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minicbor::{Decode, Encode};

#[cfg(test)]
thread_local! {
    static CLOCK: std::cell::Cell<Option<SystemTime>> = const { std::cell::Cell::new(None) };
}

/// Seconds and nanoseconds since 1970-01-01 UTC; seconds may be negative (struct timespec).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    #[n(0)]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[n(1)]
    pub nanos: u32,
}

impl Timestamp {
    /// The system's clock now.
    pub fn now() -> Self {
        #[cfg(test)]
        if let Some(time) = CLOCK.get() {
            return time.into();
        }
        SystemTime::now().into()
    }

    /// How long ago it was, by the system's clock; zero if it is in the future.
    pub fn age(self) -> Duration {
        SystemTime::from(Self::now()).duration_since(self.into()).unwrap_or_default()
    }

    /// Stops this thread's system clock at `time`, or lets it go on. For tests, because the length of a record depends
    /// on the times in it.
    #[cfg(test)]
    pub(crate) fn set_clock(time: Option<SystemTime>) {
        CLOCK.set(time);
    }

    /// The time of a store's clock; this machine's, if the store's answer gave none.
    pub fn of_store(said: SystemTime) -> Self {
        if said > UNIX_EPOCH { said.into() } else { Self::now() }
    }

    /// The time that is `by` later; it saturates at the end of time.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let nanos = self.nanos + by.subsec_nanos();
        let whole = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        let seconds =
            self.seconds.saturating_add(whole).saturating_add(i64::from(nanos / 1_000_000_000));
        Self { seconds, nanos: nanos % 1_000_000_000 }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Self { seconds: -whole, nanos: 0 },
                    part => Self { seconds: -whole - 1, nanos: 1_000_000_000 - part },
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let nanos = Duration::from_nanos(time.nanos.into());
        let whole = Duration::from_secs(time.seconds.unsigned_abs());
        let base = if time.seconds < 0 {
            UNIX_EPOCH.checked_sub(whole)
        } else {
            UNIX_EPOCH.checked_add(whole)
        };
        base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        for (seconds, nanos) in [(0, 0), (-1, 999_999_999), (-5, 1), (1_700_000_000, 123_456_789)] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
    }
}
