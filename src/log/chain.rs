//! The log in the bucket: `log/<number>`, each commit bound to the one before it (O1).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::commit::{CommitContent, commit_name, open_commit};
use super::kept_commits::KeptCommits;
use super::listed::listed_commits;
use super::{CommitSize, Error, Result, open_object};
use crate::crypto::Keys;
use crate::store::{self, Bucket};
use crate::types::{CommitNo, Hash};

/// How many objects above the end of the log are opened at most, to see whether one is a commit: half of them from each end.
const WITNESSES: usize = 8;

/// How far a reply's date may be from the last sight of the head to be believed (C2). Commits are kept for at least three days
/// (K4), so a number seen within one day cannot have been freed.
const BELIEVED: Duration = Duration::from_secs(24 * 60 * 60);

/// A commit that was found where the chain says it must be.
#[derive(Clone, Debug)]
pub struct ChainedCommit {
    /// Its number.
    pub number: CommitNo,
    /// SHA-256 of its sealed bytes.
    pub hash: Hash,
    /// What it holds.
    pub content: CommitContent,
    /// How large it is.
    pub size: CommitSize,
}

/// The log of a vault, as it is in a bucket.
#[derive(Clone, Debug)]
pub struct Chain {
    pub(super) bucket: Bucket,
    pub(super) keys: Keys,
    pub(super) kept: Option<Arc<dyn KeptCommits>>,
}

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last commit.
    pub number: CommitNo,
    /// SHA-256 of its sealed bytes.
    pub hash: Hash,
    /// When the log was listed, by the store's clock.
    pub seen: SystemTime,
}

impl Head {
    /// Whether this sight of the head is recent enough to believe what the store answered at `date`: that a number above the head
    /// was free, or whose commit it holds (C2, W5). A store that gives no date (represented as 1970) is not believed, because
    /// nothing says when it replied.
    pub fn vouches_at(&self, date: SystemTime) -> bool {
        if date <= SystemTime::UNIX_EPOCH || self.seen <= SystemTime::UNIX_EPOCH {
            return false;
        }
        let apart = date.duration_since(self.seen).unwrap_or_else(|earlier| earlier.duration());
        apart <= BELIEVED
    }
}

/// Whose commit was found under a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Byte for byte what was to be put.
    Ours,
    /// Another commit of this vault.
    Theirs,
    /// It does not open, so it is not a commit.
    Nobodys,
}

/// The error for objects that are not commits of this vault.
pub(super) fn strangers(numbers: &[CommitNo]) -> Error {
    let first = numbers.first().copied().unwrap_or_default();
    Error::Stranger { object: commit_name(first), more: numbers.len().saturating_sub(1) }
}

impl Chain {
    /// The log in `bucket`.
    pub fn new(bucket: Bucket, keys: Keys) -> Self {
        Self { bucket, keys, kept: None }
    }

    /// The same chain, for callers that look back: commits that were read are kept, and not fetched a second time.
    #[must_use]
    pub fn keeping(self, kept: Arc<dyn KeptCommits>) -> Self {
        Self { kept: Some(kept), ..self }
    }

    /// The numbers above `after` that the bucket lists, in ascending order, and the store's time.
    pub async fn list(&self, after: CommitNo) -> Result<(Vec<CommitNo>, SystemTime)> {
        let (listed, time) = listed_commits(&self.bucket, after).await?;
        Ok((listed.numbers().collect(), time))
    }

    /// The sealed bytes of a commit; `None` when there is none of that number.
    pub async fn sealed(&self, number: CommitNo) -> Result<Option<Bytes>> {
        match self.bucket.get(&commit_name(number), None).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The error for a log that ends in damage or a gap: [`Error::Stranger`] if nothing listed above `end` opens, and otherwise
    /// `error`.
    pub(super) async fn stranger_or(&self, end: CommitNo, error: Error) -> Error {
        if !error.is_damage() && !matches!(error, Error::Gap { .. }) {
            return error;
        }
        let Ok((above, _)) = self.list(end).await else { return error };
        match self.first_that_opens(&above).await {
            Ok(None) if !above.is_empty() => strangers(&above),
            _ => error,
        }
    }

    /// Opens a commit that was fetched. If it does not open, it is fetched again.
    pub(super) async fn opened(
        &self,
        number: CommitNo,
        sealed: Bytes,
    ) -> Result<(Bytes, CommitContent)> {
        let open = |bytes: &Bytes| Ok((bytes.clone(), open_commit(&self.keys, number, bytes)?));
        open_object(&self.bucket, &commit_name(number), Some(sealed), open).await
    }

    /// The first of these numbers that holds a commit of this vault, whatever commit it continues. If there are many, only a few
    /// are opened, from both ends: if another writer put commits there, its whole run is there.
    pub(super) async fn first_that_opens(&self, numbers: &[CommitNo]) -> Result<Option<CommitNo>> {
        let half = WITNESSES / 2;
        let (first, rest) = numbers.split_at(numbers.len().min(half));
        let last = &rest[rest.len().saturating_sub(half)..];
        for number in first.iter().chain(last.iter().rev()) {
            let open = |bytes: &Bytes| open_commit(&self.keys, *number, bytes);
            match open_object(&self.bucket, &commit_name(*number), None, open).await {
                Ok(_) => return Ok(Some(*number)),
                Err(error) if error.is_damage() => {}
                Err(Error::Store(store::Error::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whose commit was found under this number. If it does not open, it is fetched again first.
    pub(super) async fn whose(
        &self,
        number: CommitNo,
        found: Bytes,
        ours: &Bytes,
    ) -> Result<Whose> {
        let open = |bytes: &Bytes| match *bytes == *ours {
            true => Ok(Whose::Ours),
            false => open_commit(&self.keys, number, bytes).map(|_| Whose::Theirs),
        };
        match open_object(&self.bucket, &commit_name(number), Some(found), open).await {
            Err(error) if error.is_damage() => Ok(Whose::Nobodys),
            other => other,
        }
    }

    /// A commit that must be there. A listing may lag behind: before a number that it lacks is called a gap, the number is
    /// fetched, and the listing repeated (O1).
    pub(super) async fn present(&self, number: CommitNo, head: CommitNo) -> Result<Bytes> {
        if let Some(bytes) = self.sealed(number).await? {
            return Ok(bytes);
        }
        let (again, _) = self.list(CommitNo(number.0 - 1)).await?;
        if again.contains(&number)
            && let Some(bytes) = self.sealed(number).await?
        {
            return Ok(bytes);
        }
        Err(Error::Gap { missing: number, head })
    }
}
