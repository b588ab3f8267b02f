//! What a listing of the log tells.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Result;
use super::commit::{COMMIT_MAX, commit_name, parse_commit_name};
use crate::store::Bucket;
use crate::types::{CommitNo, KIB};

/// The size of the largest commit, in KiB.
pub(super) const LARGEST: u32 = (COMMIT_MAX as u64 / KIB) as u32;

/// What a listing tells of commits: how long each is, and when it was put.
#[derive(Clone, Debug, Default)]
pub struct ListedCommits(BTreeMap<CommitNo, (u64, SystemTime)>);

impl ListedCommits {
    /// When the commit was put, by the store's clock, if the listing has it.
    pub fn put_at(&self, number: CommitNo) -> Option<SystemTime> {
        self.0.get(&number).map(|(_, modified)| *modified)
    }

    /// The highest number.
    pub fn last(&self) -> Option<CommitNo> {
        self.numbers().next_back()
    }

    pub(super) fn numbers(&self) -> impl DoubleEndedIterator<Item = CommitNo> {
        self.0.keys().copied()
    }

    /// The commit's length, if the listing has it and it is possible for a commit.
    pub(super) fn length(&self, number: CommitNo) -> Option<u64> {
        let length = self.0.get(&number).map(|(length, _)| *length);
        length.filter(|length| (1..=COMMIT_MAX as u64).contains(length))
    }

    /// The memory that the commit takes, in KiB. If its length is not known, that of the largest.
    pub(super) fn weight(&self, number: CommitNo) -> u32 {
        let length = self.length(number).unwrap_or(u64::MAX);
        u32::try_from(length.div_ceil(KIB)).unwrap_or(LARGEST).min(LARGEST)
    }
}

/// The commits above `after` that the bucket lists, and the store's time.
pub(super) async fn listed_commits(
    bucket: &Bucket,
    after: CommitNo,
) -> Result<(ListedCommits, SystemTime)> {
    let (listed, time) = bucket.list_after("log/", &commit_name(after)).await?;
    let commits = listed.iter().filter_map(|object| {
        Some((parse_commit_name(&object.name)?, (object.length, object.modified)))
    });
    Ok((ListedCommits(commits.filter(|(number, _)| *number > after).collect()), time))
}
