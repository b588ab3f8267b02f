//! Limits on what a vault may request from its store, and how much of the link it may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Seconds of a day.
const DAY: u32 = 24 * 3600;

/// A part of the day with a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateWindow {
    /// The second of the day at which it begins.
    pub from: u32,
    /// The second before which it ends; if not after `from`: on the next day.
    pub until: u32,
    /// Bytes a second; `None`: unlimited.
    pub rate: Option<u64>,
}

impl RateWindow {
    fn covers(&self, second: u32) -> bool {
        match self.from < self.until {
            true => (self.from..self.until).contains(&second),
            false => second >= self.from || second < self.until,
        }
    }
}

/// A rate in bytes a second that depends on the time of day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateSchedule {
    /// The first window that covers a moment applies.
    pub windows: Vec<RateWindow>,
    /// The rate at all other times; `None`: unlimited.
    pub otherwise: Option<u64>,
}

impl RateSchedule {
    /// The rate at a second of the day.
    pub fn at(&self, second: u32) -> Option<u64> {
        let second = second % DAY;
        let window = self.windows.iter().find(|window| window.covers(second));
        window.map_or(self.otherwise, |window| window.rate)
    }

    /// Whether the rate depends on the time of day.
    pub fn varies(&self) -> bool {
        !self.windows.is_empty()
    }
}

/// Limits on what a vault may request from its store. Set at the mount, and changeable while it is
/// mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreLimits {
    /// Bytes of objects a second to the store.
    pub bandwidth_up: RateSchedule,
    /// Bytes of objects a second from it.
    pub bandwidth_down: RateSchedule,
    /// The most requests at once.
    pub max_requests: Option<u32>,
    /// The storage class for packs; `None`: the bucket's own.
    pub storage_class: Option<String>,
    /// Tags for each object that is put.
    pub tags: BTreeMap<String, String>,
    /// The most bytes that are read ahead for one reader; `None`: as many as help.
    pub read_ahead: Option<u64>,
}

impl StoreLimits {
    /// Whether the owner limits what comes from the store, or how fast.
    pub fn saves_reads(&self) -> bool {
        self.read_ahead.is_some() || self.bandwidth_down != RateSchedule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_window_that_covers_the_time_counts() {
        let hour = |hour: u32| hour * 3600;
        let window = |from, until, rate| RateWindow { from: hour(from), until: hour(until), rate };
        let schedule = RateSchedule {
            windows: vec![window(8, 18, Some(2)), window(17, 20, Some(3)), window(22, 6, None)],
            otherwise: Some(20),
        };
        for (second, rate) in [
            (0, None),
            (hour(6) - 1, None),
            (hour(6), Some(20)),
            (hour(8), Some(2)),
            (hour(18) - 1, Some(2)),
            (hour(18), Some(3)),
            (hour(20), Some(20)),
            (hour(22), None),
            (DAY, None), // a leap second
        ] {
            assert_eq!(schedule.at(second), rate, "{second}");
        }
        assert!(schedule.varies());
        let all_day = RateSchedule { windows: vec![window(3, 3, Some(1))], otherwise: None };
        assert_eq!((all_day.at(0), all_day.at(hour(23))), (Some(1), Some(1)));
        assert!(!RateSchedule::default().varies());
    }
}
