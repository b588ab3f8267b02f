//! The judgement of one object (K4), as a pure function of its listing and the pack table.

use std::time::{Duration, SystemTime};

use crate::checkpoint::PackInfo;
use crate::types::CommitNo;

/// How long commits are kept at least (K4). A writer may sleep that long, and a late put of it is still recognised (C2).
pub(super) const COMMITS_KEPT: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// When an object was put, and the store's time when it was listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    pub(super) modified: SystemTime,
    pub(super) now: SystemTime,
}

impl Age {
    /// Whether it was put more than `limit` ago. `false` if the store gives no date for it.
    pub(super) fn is_over(self, limit: Duration) -> bool {
        self.modified > SystemTime::UNIX_EPOCH
            && self.now.duration_since(self.modified).is_ok_and(|age| age > limit)
    }
}

/// What becomes of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PackFate {
    /// The newest state needs it.
    Live,
    /// A state inside the retention needs it.
    Retained,
    /// A snapshot needs it. If only one does: its position among the pins.
    Pinned(Option<usize>),
    /// Nothing refers to it, and it is young: its commit may be on the way.
    Young,
    /// Nothing needs it.
    Goes,
}

/// What is promised, as far as packs are concerned.
pub(super) struct PackJudge<'a> {
    /// States from this commit on are promised.
    pub(super) from: CommitNo,
    /// So are the states of these commits.
    pub(super) pins: &'a [CommitNo],
    /// How long an object without a row is left alone.
    pub(super) retention: Duration,
}

impl PackJudge<'_> {
    /// The fate of a pack by its row in the newest checkpoint's table. The caller must know what later commits refer to.
    pub(super) fn fate(&self, row: Option<&PackInfo>, age: Age) -> PackFate {
        let Some(row) = row else {
            return if age.is_over(self.retention) { PackFate::Goes } else { PackFate::Young };
        };
        if row.references > 0 {
            return PackFate::Live;
        }
        if !row.is_dead_at(self.from) {
            return PackFate::Retained;
        }
        let mut holders = (0..self.pins.len()).filter(|at| row.lived_at(self.pins[*at]));
        match (holders.next(), holders.next()) {
            (None, _) => PackFate::Goes,
            (Some(only), None) => PackFate::Pinned(Some(only)),
            (Some(_), Some(_)) => PackFate::Pinned(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(references: u64, birth: u64, death: Option<u64>) -> PackInfo {
        PackInfo {
            references,
            live: references,
            birth: CommitNo(birth),
            death: death.map(CommitNo),
        }
    }

    #[test]
    fn k4_a_pack_goes_when_no_promised_state_needs_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let aged = |seconds| Age { modified: now - Duration::from_secs(seconds), now };
        let pins = [CommitNo(10), CommitNo(20)];
        let promise =
            PackJudge { from: CommitNo(50), pins: &pins, retention: Duration::from_secs(100) };
        let fate = |row: Option<PackInfo>, seconds| promise.fate(row.as_ref(), aged(seconds));
        assert_eq!(fate(Some(row(1, 5, None)), 9999), PackFate::Live);
        // The state at its death no longer has it, and the first promised state may be just that one.
        assert_eq!(fate(Some(row(0, 30, Some(51))), 9999), PackFate::Retained);
        assert_eq!(fate(Some(row(0, 30, Some(50))), 0), PackFate::Goes);
        assert_eq!(fate(Some(row(0, 10, Some(11))), 0), PackFate::Pinned(Some(0)));
        assert_eq!(fate(Some(row(0, 10, Some(10))), 0), PackFate::Goes);
        assert_eq!(fate(Some(row(0, 11, Some(20))), 0), PackFate::Goes);
        assert_eq!(fate(Some(row(0, 11, Some(21))), 0), PackFate::Pinned(Some(1)));
        assert_eq!(fate(Some(row(0, 9, Some(21))), 0), PackFate::Pinned(None));
        assert_eq!(fate(None, 100), PackFate::Young);
        assert_eq!(fate(None, 101), PackFate::Goes);
        // Without dates no object is old; nor if the clock goes back.
        let dateless = Age { modified: SystemTime::UNIX_EPOCH, now };
        assert_eq!(promise.fate(None, dateless), PackFate::Young);
        assert_eq!(
            promise.fate(None, Age { modified: now, now: now - COMMITS_KEPT }),
            PackFate::Young
        );
    }
}
