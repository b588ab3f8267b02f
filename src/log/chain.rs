//! The log in the bucket: `log/<number>`, each commit bound to the one before it (O1).

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::commit::{CommitContent, commit_name, open_commit, parse_commit_name};
use super::{CommitSize, Error, Result, open_object};
use crate::crypto::{self, Keys};
use crate::store::{self, Bucket};
use crate::types::{CommitNo, Hash};
use std::time::SystemTime;

/// So many objects above the end of the log are opened at most, to see whether one is a commit: half of them the first.
const WITNESSES: usize = 8;

/// Commits under way at once when a log is read: with commits of 16 MiB, 64 MiB of memory.
const PARALLEL: usize = 4;

/// A commit that was found where the chain says it must be.
#[derive(Clone, Debug)]
pub struct ChainedCommit {
    /// Its number.
    pub number: CommitNo,
    /// SHA-256 of its sealed bytes.
    pub hash: Hash,
    /// What it holds.
    pub content: CommitContent,
    /// How much it is.
    pub size: CommitSize,
}

/// The log of a vault as it lies in a bucket.
#[derive(Clone, Debug)]
pub struct Chain {
    bucket: Bucket,
    keys: Keys,
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

/// Whose commit lies under a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Byte for byte what was to be put.
    Ours,
    /// A commit of this vault, and another one.
    Theirs,
    /// It does not open: it is no commit.
    Nobodys,
}

/// These objects are no commits of this vault.
pub(super) fn strangers(numbers: &[CommitNo]) -> Error {
    let first = numbers.first().copied().unwrap_or_default();
    Error::Stranger { object: commit_name(first), more: numbers.len().saturating_sub(1) }
}

impl Chain {
    /// The log in `bucket`.
    pub fn new(bucket: Bucket, keys: Keys) -> Self {
        Self { bucket, keys }
    }

    /// The numbers above `after` that the bucket lists, ascending, and the store's time.
    pub async fn list(&self, after: CommitNo) -> Result<(Vec<CommitNo>, SystemTime)> {
        let (listed, time) = self.bucket.list_after("log/", &commit_name(after)).await?;
        let mut numbers: Vec<_> = listed
            .iter()
            .filter_map(|object| parse_commit_name(&object.name))
            .filter(|number| *number > after)
            .collect();
        numbers.sort_unstable();
        Ok((numbers, time))
    }

    /// The sealed bytes of a commit; `None` when there is none of that number.
    pub async fn sealed(&self, number: CommitNo) -> Result<Option<Bytes>> {
        match self.bucket.get(&commit_name(number), None).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the commits after `anchor` in order, each verified against its predecessor, and
    /// hands them to `take`. Returns the head.
    ///
    /// # Errors
    /// [`Error::Gap`] or [`Error::Fork`] when the chain does not hold, [`Error::Seal`] when a
    /// commit does not open; whatever `take` returns.
    pub async fn follow<E: From<Error>>(
        &self,
        anchor: (CommitNo, Hash),
        take: impl FnMut(ChainedCommit) -> Result<(), E> + Send,
    ) -> Result<Head, E> {
        let (numbers, seen) = self.list(anchor.0).await?;
        let last = numbers.last().copied().unwrap_or(anchor.0);
        let (number, hash) = self.walk(anchor, last, take).await?;
        Ok(Head { number, hash, seen })
    }

    /// Reads the commits after `from` up to `last`; the number and hash of the last one.
    ///
    /// # Errors
    /// As [`Chain::follow`].
    pub async fn walk<E: From<Error>>(
        &self,
        from: (CommitNo, Hash),
        last: CommitNo,
        mut take: impl FnMut(ChainedCommit) -> Result<(), E> + Send,
    ) -> Result<(CommitNo, Hash), E> {
        let (mut number, mut hash) = from;
        let mut fetched = stream::iter((number.0 + 1)..=last.0)
            .map(|number| self.present(CommitNo(number), last))
            .buffered(PARALLEL);
        loop {
            let next = match fetched.try_next().await {
                Ok(None) => break,
                Ok(Some(sealed)) => self.opened(number.next(), sealed).await,
                Err(error) => Err(error),
            };
            let (sealed, content) = match next {
                Ok(next) => next,
                Err(error) => return Err(self.stranger_or(number, error).await.into()),
            };
            number = number.next();
            if content.header.previous != hash {
                return Err(Error::Fork { number }.into());
            }
            hash = crypto::sha256(&sealed);
            let transactions = content.transactions.len() as u64;
            let size = CommitSize { transactions, sealed: sealed.len() as u64 };
            take(ChainedCommit { number, hash, content, size })?;
        }
        Ok((number, hash))
    }

    /// What is said of a log that ends in damage or a gap: strangers, if nothing that is listed above `end` opens.
    async fn stranger_or(&self, end: CommitNo, error: Error) -> Error {
        if !error.is_damage() && !matches!(error, Error::Gap { .. }) {
            return error;
        }
        let Ok((above, _)) = self.list(end).await else { return error };
        match self.first_that_opens(&above).await {
            Ok(None) if !above.is_empty() => strangers(&above),
            _ => error,
        }
    }

    /// Opens a commit that was fetched; if it does not open, it is asked for again.
    async fn opened(&self, number: CommitNo, sealed: Bytes) -> Result<(Bytes, CommitContent)> {
        let open = |bytes: &Bytes| Ok((bytes.clone(), open_commit(&self.keys, number, bytes)?));
        open_object(&self.bucket, &commit_name(number), Some(sealed), open).await
    }

    /// The first of these numbers under which a commit of this vault lies, whatever it continues. Of many, a few are
    /// opened, from both ends: a commit that another writer put has all the others of its run beside it.
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

    /// Whose the commit is that was found under this number. If it does not open, it is asked for again first.
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

    /// A commit that must be there. A listing may lag behind: a number that it lacks is fetched, and
    /// the listing made again, before that is called a gap (O1).
    async fn present(&self, number: CommitNo, head: CommitNo) -> Result<Bytes> {
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
