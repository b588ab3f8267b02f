//! How much the map holds: the totals, how changes alter them, and what they were as of this process's commits.

use std::collections::{BTreeMap, VecDeque};

use crate::checkpoint::Manifest;
use crate::records::Tag;
use crate::types::{CommitNo, Seq};

/// How many transactions are remembered. The totals as of a commit whose last transaction is older are not known.
const MARKS: usize = 1 << 16;

/// How much the map holds, for statfs(2). If only a page that is not here could tell what a record was, a change to it counts as
/// none. That happens on a machine that takes in commits of others, or has lost its cache. The next checkpoint of a commit of
/// this process gives the true totals, which corrects it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files, directories and the like.
    pub inodes: u64,
    /// Bytes of content that the files' extents hold.
    pub bytes: u64,
}

impl Totals {
    /// The totals that a checkpoint gives for its map.
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self { inodes: manifest.records(Tag::Inode), bytes: manifest.live_bytes }
    }

    pub(super) fn and(self, weight: Weight) -> Self {
        Self {
            inodes: self.inodes.saturating_add_signed(weight.inodes),
            bytes: self.bytes.saturating_add_signed(weight.bytes),
        }
    }
}

/// What a change adds to the totals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    pub inodes: i64,
    pub bytes: i64,
}

impl Weight {
    pub(super) fn between(from: Totals, to: Totals) -> Self {
        let difference = |from: u64, to: u64| to.wrapping_sub(from).cast_signed();
        Self { inodes: difference(from.inodes, to.inodes), bytes: difference(from.bytes, to.bytes) }
    }
}

/// The totals after each of the last transactions, and so as of commits.
#[derive(Debug, Default)]
pub(super) struct TotalsMarks {
    /// The totals after each transaction, in order.
    transactions: VecDeque<(Seq, Totals)>,
    commits: BTreeMap<CommitNo, Totals>,
}

impl TotalsMarks {
    pub(super) fn put(&mut self, seq: Seq, totals: Totals) {
        if self.transactions.len() == MARKS {
            self.transactions.pop_front();
        }
        self.transactions.push_back((seq, totals));
    }

    /// Notes that this commit holds the transactions up to `upto`.
    pub(super) fn committed(&mut self, commit: CommitNo, upto: Seq) {
        while self.transactions.front().is_some_and(|(seq, _)| *seq < upto) {
            self.transactions.pop_front();
        }
        // The entry stays: a commit without transactions has the totals of the one before.
        if let Some((_, totals)) = self.transactions.front().filter(|(seq, _)| *seq == upto) {
            self.commits.insert(commit, *totals);
        }
    }

    /// Notes the totals after a commit that was taken from the log.
    pub(super) fn applied(&mut self, commit: CommitNo, totals: Totals) {
        self.commits.insert(commit, totals);
        if self.commits.len() > MARKS {
            self.commits.pop_first();
        }
    }

    /// Adds `weight` to the remembered totals that come after the commit `upto`.
    pub(super) fn shift(&mut self, upto: CommitNo, weight: Weight) {
        self.commits = self.commits.split_off(&upto.next());
        let commits = self.commits.values_mut();
        let transactions = self.transactions.iter_mut().map(|(_, totals)| totals);
        commits.chain(transactions).for_each(|totals| *totals = totals.and(weight));
    }

    pub(super) fn at(&self, commit: CommitNo) -> Option<Totals> {
        self.commits.get(&commit).copied()
    }
}
