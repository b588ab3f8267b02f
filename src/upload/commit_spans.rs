//! Runs of transactions that must share a commit, because a pack that they refer to never gets into the bucket (C1).
//! Pure bookkeeping, no I/O; a part of the pack table.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::log::{COMMIT_BYTES, DroppedPack};
use crate::records::TRANSACTION_MAX;
use crate::types::Seq;

/// How many bytes of transactions there may be from the first reference to a dropped pack to the transaction that
/// removed the last one: one commit, which is applied whole, must hold them all.
pub(super) const SPAN_MAX: u64 = (COMMIT_BYTES - TRANSACTION_MAX) as u64;

/// The runs, by first transaction; disjoint. Each begins with a transaction that refers to a pack that never gets into
/// the bucket, and ends with the one after which nothing refers to it.
#[derive(Debug, Default)]
pub(super) struct CommitSpans(BTreeMap<Seq, CommitSpan>);

#[derive(Clone, Debug)]
struct CommitSpan {
    last: Seq,
    /// Its range in the bytes of all transactions.
    bytes: Range<u64>,
}

impl CommitSpans {
    /// Binds the transactions `first..=last`, which lie at `bytes`, into one run, with all runs that they overlap.
    /// Returns `false`, and changes nothing, if that is too much for one commit.
    pub(super) fn bind(&mut self, mut first: Seq, mut last: Seq, mut bytes: Range<u64>) -> bool {
        let met: Vec<_> = self
            .0
            .range(..=last)
            .rev()
            .take_while(|(_, span)| span.last >= first)
            .map(|(first, span)| (*first, span.clone()))
            .collect();
        for (other, span) in &met {
            first = first.min(*other);
            last = last.max(span.last);
            bytes = bytes.start.min(span.bytes.start)..bytes.end.max(span.bytes.end);
        }
        if bytes.end - bytes.start > SPAN_MAX {
            return false;
        }
        met.iter().for_each(|(first, _)| _ = self.0.remove(first));
        self.0.insert(first, CommitSpan { last, bytes });
        true
    }

    /// Restores the runs of a continued journal. No new run can overlap them.
    pub(super) fn restore(&mut self, dropped: &[DroppedPack]) {
        for one in dropped {
            self.bind(one.first, one.last, 0..0);
        }
    }

    /// The last transaction up to `upto` after which a commit may end.
    pub(super) fn end_before(&self, upto: Seq) -> Seq {
        match self.0.range(..=upto).next_back() {
            Some((first, span)) if upto < span.last => Seq(first.0.saturating_sub(1)),
            _ => upto,
        }
    }

    /// Where a commit that follows `from` and would end at `at` ends: there, or before the run that this would cut, or,
    /// if the commit begins with that run, after it.
    pub(super) fn end_near(&self, from: Seq, at: Seq) -> Seq {
        match self.end_before(at) {
            before if before > from => before,
            _ => self.0.range(..=at).next_back().map_or(at, |(_, span)| span.last.max(at)),
        }
    }

    /// Forgets runs up to here: everything is in the bucket.
    pub(super) fn confirmed(&mut self, upto: Seq) {
        self.0.retain(|_, span| span.last > upto);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PackId;

    #[test]
    fn c1_no_commit_ends_inside_a_span() {
        let mut spans = CommitSpans::default();
        let mut bind = |first, last| spans.bind(Seq(first), Seq(last), first..last + 1);
        assert!(bind(3, 5) && bind(10, 12) && bind(5, 7) && bind(20, 22) && bind(11, 13));
        assert!(!spans.bind(Seq(6), Seq(11), 0..SPAN_MAX + 1), "too much");
        let end = |upto| spans.end_before(Seq(upto)).0;
        assert_eq!(
            [2, 3, 6, 7, 9, 10, 12, 13, 19, 21, 22, 30].map(end),
            [2, 2, 2, 7, 9, 9, 9, 13, 19, 19, 22, 30]
        );
        let near = |from, at| spans.end_near(Seq(from), Seq(at)).0;
        assert_eq!(
            (near(0, 4), near(2, 4), near(2, 8), near(9, 10), near(7, 10)),
            (2, 7, 8, 13, 9)
        );
        spans.confirmed(Seq(9));
        assert_eq!((spans.end_before(Seq(4)), spans.end_before(Seq(11))), (Seq(4), Seq(9)));
        let (pack, first, last) = (PackId([1; 16]), Seq(30), Seq(33));
        spans.restore(&[DroppedPack { pack, first, last }]);
        assert_eq!(spans.end_before(Seq(31)), Seq(29));
    }
}
