//! How much a vault may ask of its store, and take of the way there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Seconds of a day.
const DAY: u32 = 24 * 3600;

/// A part of the day with a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateWindow {
    /// The second of the day at which it begins.
    pub from: u32,
    /// The second before which it ends; at or before `from`: on the next day.
    pub until: u32,
    /// Bytes a second; `None`: as many as go.
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

/// Bytes a second, by the time of the day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateSchedule {
    /// The first that covers a moment counts.
    pub windows: Vec<RateWindow>,
    /// At all other times; `None`: as many as go.
    pub otherwise: Option<u64>,
}

impl RateSchedule {
    /// The rate at a second of the day.
    pub fn at(&self, second: u32) -> Option<u64> {
        let second = second % DAY;
        let window = self.windows.iter().find(|window| window.covers(second));
        window.map_or(self.otherwise, |window| window.rate)
    }

    /// Whether the time of the day matters.
    pub fn varies(&self) -> bool {
        !self.windows.is_empty()
    }
}

/// What a vault may ask of its store. Said at the mount, and changed while it is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreLimits {
    /// Bytes of objects a second to the store.
    pub bandwidth_up: RateSchedule,
    /// Bytes of objects a second from it.
    pub bandwidth_down: RateSchedule,
    /// Requests at once.
    pub max_requests: Option<u32>,
    /// The class in which packs are stored; `None`: the bucket's own.
    pub storage_class: Option<String>,
    /// The tags of each object that is put.
    pub tags: BTreeMap<String, String>,
    /// Bytes that are read ahead of one reader at most; `None`: as far as it helps.
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
