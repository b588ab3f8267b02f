//! How much is sent side by side: as much as the link carries in a minute. On a fast link that is more than the other
//! limits allow. On a slow link a pack goes alone, so that each arrives soon after it was begun, and little is lost when
//! the link breaks.

use std::time::Duration;

use tokio::time::Instant;

/// Everything on the wire should be sent within this time.
const HORIZON: Duration = Duration::from_secs(60);
/// How long the link is watched before the first estimate, unless a pack completes sooner.
const FIRST: Duration = Duration::from_millis(500);
/// The time constant of the moving average.
const MEMORY: Duration = Duration::from_secs(5);
/// Looks closer together than this count as one.
const APART: Duration = Duration::from_millis(50);

/// How much the link carries, measured while there is something to carry.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    /// Bytes per second.
    rate: Option<f64>,
    /// When the rate was last computed, and what had been carried by then.
    since: Option<(Instant, u64)>,
}

impl Bandwidth {
    /// Notes that `carried` bytes were sent so far, in all. `ended`: a pack is complete.
    pub(super) fn look(&mut self, now: Instant, carried: u64, ended: bool) {
        let Some((then, before)) = self.since else {
            self.since = Some((now, carried));
            return;
        };
        let passed = now.saturating_duration_since(then);
        let enough = if self.rate.is_some() { APART } else { FIRST };
        if passed < enough && !(ended && self.rate.is_none()) {
            return;
        }
        if self.rate.is_none() && carried <= before {
            return; // still connecting
        }
        let seconds = passed.as_secs_f64().max(1e-6);
        let found = carried.saturating_sub(before) as f64 / seconds;
        let weight = 1.0 - (-seconds / MEMORY.as_secs_f64()).exp();
        self.rate = Some(self.rate.map_or(found, |rate| rate + (found - rate) * weight));
        self.since = Some((now, carried));
    }

    /// Nothing is on the wire: the time that passes now is not measured.
    pub(super) fn rest(&mut self) {
        self.since = None;
    }

    /// How many more bytes may be started while `left` are still on their way. The caller sends one pack in any case.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    pub(super) fn room(&self, left: u64) -> u64 {
        let most = self.rate.map_or(0.0, |rate| rate * HORIZON.as_secs_f64());
        (most as u64).saturating_sub(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MIB;

    /// A link that carries `rate` bytes a second, looked at four times a second for `seconds` seconds.
    fn after(bandwidth: &mut Bandwidth, from: Instant, rate: u64, seconds: u64) -> Instant {
        let mut now = from;
        let mut carried = 0;
        bandwidth.rest();
        for _ in 0..=seconds * 4 {
            bandwidth.look(now, carried, false);
            now += Duration::from_millis(250);
            carried += rate / 4;
        }
        now
    }

    #[test]
    fn nothing_is_known_and_one_pack_goes_until_something_was_carried() {
        let (mut bandwidth, now) = (Bandwidth::default(), Instant::now());
        assert_eq!(bandwidth.room(0), 0);
        bandwidth.look(now, 0, false);
        bandwidth.look(now + Duration::from_millis(100), 5000, false);
        assert_eq!(bandwidth.room(0), 0, "too soon to say");
        bandwidth.look(now + Duration::from_millis(100), 10 * MIB, true);
        assert_eq!(bandwidth.room(0), 6000 * MIB, "it is through: 100 MiB a second");
    }

    #[test]
    fn a_slow_link_has_room_for_what_it_carries_in_a_minute() {
        let mut bandwidth = Bandwidth::default();
        let now = after(&mut bandwidth, Instant::now(), 30_000, 10);
        assert!((1_700_000..1_900_000).contains(&bandwidth.room(0)), "{}", bandwidth.room(0));
        assert!(bandwidth.room(MIB) < MIB, "a second pack of 1 MiB waits");
        // The link becomes fast, and then slow again.
        let now = after(&mut bandwidth, now, 10_000_000, 10);
        assert!(bandwidth.room(96 * MIB) > 102 * MIB);
        after(&mut bandwidth, now, 30_000, 40);
        assert!(bandwidth.room(MIB) < MIB, "{}", bandwidth.room(0));
    }

    #[test]
    fn time_without_anything_to_carry_says_nothing() {
        let mut bandwidth = Bandwidth::default();
        let now = after(&mut bandwidth, Instant::now(), 1_000_000, 5);
        let room = bandwidth.room(0);
        bandwidth.rest();
        bandwidth.look(now + Duration::from_secs(3600), 0, false);
        assert_eq!(bandwidth.room(0), room);
    }
}
