//! How long to wait for the store: every number is here, with its reason.

use std::time::Duration;

/// The limits on waiting for the store. All follow from one deadline ([`Deadlines::of`]).
///
/// A request that moves few bytes ends within `operation`, including repetitions. One that moves many bytes may
/// take as long as they keep moving: it ends when next to nothing has moved for `stall_put` or `stall_get`. A get
/// also ends when it is slower than its floor, because somebody waits for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deadlines {
    /// For one operation, including its repetitions. 30 s: the number in the documented promises.
    pub operation: Duration,
    /// For a TCP and TLS connection. 5 s: a lost SYN is repeated after 1 s, a second one after 3 s.
    pub connect: Duration,
    /// For the first byte of an answer, and between two pieces of it. A third of `operation`, so that after a
    /// dead connection there is time to try again.
    pub stall_get: Duration,
    /// How long the other end may neither take a put's bytes nor answer. All of `operation`: a store may take
    /// long to write 16 MiB.
    pub stall_put: Duration,
    /// Bytes a second below which a put does not count as moving. Very few: a put that is given up starts again
    /// from its first byte, which does not help on a slow link.
    pub floor_put: u64,
    /// Bytes a second below which a get is given up even though it moves. At 64 KiB/s, up to 1.9 MiB arrive
    /// within `operation`: somebody waits for them.
    pub floor_get: u64,
    /// The pause before the first repetition; it doubles each time, with jitter.
    pub pause: Duration,
    /// The longest pause between repetitions.
    pub pause_max: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self::of(Duration::from_secs(30))
    }
}

impl Deadlines {
    /// All limits in proportion to the deadline of one operation.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    pub fn of(operation: Duration) -> Self {
        let scale = operation.as_secs_f64().max(0.001) / 30.0;
        let floor = |rate: f64| (rate / scale).clamp(1.0, 1e15) as u64;
        Self {
            operation,
            connect: (operation / 6).min(Duration::from_secs(5)),
            stall_get: operation / 3,
            stall_put: operation,
            floor_put: floor(128.0),
            floor_get: floor(65536.0),
            pause: (operation / 300).min(Duration::from_millis(100)),
            pause_max: (operation / 6).min(Duration::from_secs(5)),
        }
    }

    /// Bytes that must move within `stall_put` for a put to go on.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    pub fn least_put(&self) -> u64 {
        ((self.floor_put as f64 * self.stall_put.as_secs_f64()) as u64).max(1)
    }

    /// How long a get of `bytes` may take in all.
    pub fn get(&self, bytes: u64) -> Duration {
        self.operation.max(Duration::from_secs_f64(bytes as f64 / self.floor_get as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_requests_end_with_the_operation_and_large_ones_get_time() {
        let limits = Deadlines::default();
        assert_eq!(limits.operation, Duration::from_secs(30));
        assert_eq!(limits.get(65536), limits.operation);
        assert_eq!(limits.least_put(), 3840);
        assert_eq!(limits.get(16 << 20), Duration::from_secs(256));
        let short = Deadlines::of(Duration::from_secs(3));
        assert_eq!(short.least_put(), 3840);
        assert!(short.stall_get <= Duration::from_secs(1));
    }
}
