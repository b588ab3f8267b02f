//! Reads the chain commit by commit, with many fetches at once.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::chain::{Chain, ChainedCommit, Head};
use super::commit::{CommitContent, commit_name, open_commit};
use super::listed::{LARGEST, ListedCommits, listed_commits};
use super::{CommitSize, Error, Result};
use crate::crypto;
use crate::store;
use crate::types::{CommitNo, Hash};

/// How many commits are fetched at once when a log is read.
const PARALLEL: usize = 32;
/// The memory for them, in KiB: four of the largest.
const ROOM: u32 = 4 * LARGEST;
/// For no more commits than this, the bucket is not asked for their lengths.
const FEW: u64 = 4;

/// A commit's object, from the bucket or from the local copy.
struct FetchedCommit {
    /// `None`: the object is not as long as the listing says.
    sealed: Option<Bytes>,
    is_local: bool,
    /// The memory that it takes, held until it is read.
    room: OwnedSemaphorePermit,
}

/// The commits after one commit up to another, in order, each verified against its predecessor.
pub struct Links<'a> {
    chain: &'a Chain,
    fetched: BoxStream<'a, Result<FetchedCommit>>,
    at: (CommitNo, Hash),
    last: CommitNo,
}

impl Chain {
    /// The commits above `after` that the bucket lists, and the store's time.
    pub async fn listed(&self, after: CommitNo) -> Result<(ListedCommits, SystemTime)> {
        listed_commits(&self.bucket, after).await
    }

    /// Reads the commits after `anchor` in order, each verified against its predecessor, and
    /// hands them to `take`. Returns the head.
    ///
    /// # Errors
    /// [`Error::Gap`] or [`Error::Fork`] when the chain does not hold; [`Error::Seal`] when a commit does not
    /// open; any error of `take`.
    pub async fn follow<E: From<Error>>(
        &self,
        anchor: (CommitNo, Hash),
        take: impl FnMut(ChainedCommit) -> Result<(), E> + Send,
    ) -> Result<Head, E> {
        let (listed, seen) = self.listed(anchor.0).await?;
        let last = listed.last().unwrap_or(anchor.0);
        let (number, hash) = self.walk_listed(anchor, last, &listed, take).await?;
        Ok(Head { number, hash, seen })
    }

    /// Reads the commits after `from` up to `last`. Returns the number and hash of the last one.
    ///
    /// # Errors
    /// As [`Chain::follow`].
    pub async fn walk<E: From<Error>>(
        &self,
        from: (CommitNo, Hash),
        last: CommitNo,
        take: impl FnMut(ChainedCommit) -> Result<(), E> + Send,
    ) -> Result<(CommitNo, Hash), E> {
        let listed = match last.0.saturating_sub(from.0.0) > FEW {
            true => self.listed(from.0).await?.0,
            false => ListedCommits::default(),
        };
        self.walk_listed(from, last, &listed, take).await
    }

    async fn walk_listed<E: From<Error>>(
        &self,
        from: (CommitNo, Hash),
        last: CommitNo,
        listed: &ListedCommits,
        mut take: impl FnMut(ChainedCommit) -> Result<(), E> + Send,
    ) -> Result<(CommitNo, Hash), E> {
        let mut links = self.links(from, last, listed);
        while let Some(link) = links.next().await? {
            take(link)?;
        }
        Ok(links.at())
    }

    /// Reads the commits after `from` up to `last`. Those whose length is `listed` take less of the memory, so
    /// more of them are fetched at once.
    pub fn links<'a>(
        &'a self,
        from: (CommitNo, Hash),
        last: CommitNo,
        listed: &'a ListedCommits,
    ) -> Links<'a> {
        let room = Arc::new(Semaphore::new(ROOM as usize));
        // Memory is granted in order, so that the next commit always gets it.
        let fetched = stream::iter((from.0.0 + 1)..=last.0)
            .then(move |number| {
                let (number, room) = (CommitNo(number), room.clone());
                async move { (number, room.acquire_many_owned(listed.weight(number)).await) }
            })
            .map(move |(number, room)| async move {
                let room = room.map_err(|_| Error::malformed("the log", "its reader is gone"))?;
                let name = commit_name(number);
                if let Some(sealed) = self.kept.as_ref().and_then(|kept| kept.get(&name)) {
                    return Ok(FetchedCommit { sealed: Some(sealed), is_local: true, room });
                }
                let sealed = match listed.length(number) {
                    Some(length) => self.of_length(number, length).await?,
                    None => Some(self.present(number, last).await?),
                };
                Ok(FetchedCommit { sealed, is_local: false, room })
            })
            .buffered(PARALLEL)
            .boxed();
        Links { chain: self, fetched, at: from, last }
    }

    /// A commit's object, but no more bytes of it than the listing says, because there is memory for no more.
    async fn of_length(&self, number: CommitNo, length: u64) -> Result<Option<Bytes>> {
        match self.bucket.get(&commit_name(number), Some(0..length)).await {
            Ok(sealed) => Ok(Some(sealed)),
            Err(store::Error::NotFound { .. } | store::Error::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the commit of this number; `sealed` is its object if it was fetched.
    async fn from_bucket(
        &self,
        (number, last): (CommitNo, CommitNo),
        sealed: Option<Bytes>,
    ) -> Result<(Bytes, CommitContent)> {
        let sealed = match sealed {
            Some(sealed) => sealed,
            None => self.present(number, last).await?,
        };
        self.opened(number, sealed).await
    }

    /// The locally kept commit, if it is the one that follows.
    fn kept_link(&self, (before, hash): (CommitNo, Hash), sealed: &Bytes) -> Option<CommitContent> {
        let content = open_commit(&self.keys, before.next(), sealed).ok();
        let content = content.filter(|content| content.header.previous == hash);
        if content.is_none() {
            let name = commit_name(before.next());
            tracing::warn!(object = name, "the local copy is not of this log: fetching it");
            self.kept.iter().for_each(|kept| kept.forget(&name));
        }
        content
    }
}

impl Links<'_> {
    /// The last commit that was read.
    pub fn at(&self) -> (CommitNo, Hash) {
        self.at
    }

    /// The next commit; `None` after the last.
    ///
    /// # Errors
    /// As [`Chain::follow`].
    pub async fn next(&mut self) -> Result<Option<ChainedCommit>> {
        match self.fetched.try_next().await {
            Ok(None) => Ok(None),
            Ok(Some(fetched)) => self.linked(fetched).await.map(Some),
            Err(error) => Err(self.chain.stranger_or(self.at.0, error).await),
        }
    }

    async fn linked(&mut self, fetched: FetchedCommit) -> Result<ChainedCommit> {
        let FetchedCommit { sealed, is_local, room: _room } = fetched;
        let (number, mut is_kept) = (self.at.0.next(), is_local);
        let opened = match sealed {
            Some(sealed) if is_local => match self.chain.kept_link(self.at, &sealed) {
                Some(content) => Ok((sealed, content)),
                None => {
                    is_kept = false;
                    self.chain.from_bucket((number, self.last), None).await
                }
            },
            sealed => self.chain.from_bucket((number, self.last), sealed).await,
        };
        let (sealed, content) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(self.chain.stranger_or(self.at.0, error).await),
        };
        if content.header.previous != self.at.1 {
            return Err(Error::Fork { number });
        }
        if !is_kept && let Some(kept) = &self.chain.kept {
            kept.keep(&commit_name(number), sealed.clone());
        }
        let hash = crypto::sha256(&sealed);
        self.at = (number, hash);
        let transactions = content.transactions.len() as u64;
        let size = CommitSize { transactions, sealed: sealed.len() as u64 };
        Ok(ChainedCommit { number, hash, content, size })
    }
}
