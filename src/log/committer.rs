//! Puts the next commit into the log (C2, C3): one is in flight, and there are never two winners.

use std::time::SystemTime;

use bytes::Bytes;

use super::chain::{Head, Whose, strangers};
use super::{
    Chain, CommitContent, CommitHeader, CommitSize, Error, Journaled, Receipt, commit_name,
    seal_commit,
};
use crate::crypto::{self, Keys};
use crate::os::{self, PipelineStep};
use crate::records::Claimant;
use crate::records::{Change, HISTORY_RUN, Key, WriterClaim, encode_value};
use crate::store::{self, Bucket, Moved};
use crate::types::{CommitNo, CurrentGeneration, Generation, Hash, MIB, Seq, Timestamp};

/// The most bytes of transactions in one commit (C1).
pub const COMMIT_BYTES: usize = (16 * MIB) as usize;

/// Why a commit is not (yet) in the log.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another writer has this number or a later one (W3).
    #[error("another machine has taken over this vault: {found} is not ours")]
    Fenced {
        /// The commit that says so.
        found: CommitNo,
    },
    /// The commit is not known to be in the bucket; attempt it again.
    #[error("commit {number} is not confirmed yet")]
    Again {
        /// Its number.
        number: CommitNo,
        /// The cause.
        #[source]
        cause: Option<store::Error>,
    },
    /// The log could not be read to find out.
    #[error(transparent)]
    Log(#[from] Error),
}

/// The writer of the log. Only its holder puts commits.
#[derive(Debug)]
pub struct Committer {
    bucket: Bucket,
    chain: Chain,
    keys: Keys,
    head: Head,
    claim: CommitNo,
    writer: Option<WriterClaim>,
    generation: CurrentGeneration,
    /// 16-byte hashes of the commits from the last multiple of 256 to the head.
    recent: Vec<[u8; 16]>,
    upto: Seq,
    pending: Option<PendingCommit>,
    fenced: Option<CommitNo>,
}

#[derive(Debug)]
struct PendingCommit {
    number: CommitNo,
    sealed: Bytes,
    hash: Hash,
    upto: Seq,
    records: Vec<Change>,
    size: CommitSize,
    moved: Moved,
}

/// The end of the log: what a writer must know to continue it.
#[derive(Clone, Debug)]
pub struct LogEnd {
    /// The head of the verified chain.
    pub head: Head,
    /// 16-byte hashes of the commits from the last multiple of 256 up to the head.
    pub recent: Vec<[u8; 16]>,
    /// The superblock's generation.
    pub generation: Generation,
    /// Every transaction of the journal up to this one is in the log.
    pub upto: Seq,
}

impl LogEnd {
    /// Updates `recent` when the commit `number`, with this hash, follows.
    pub fn note(recent: &mut Vec<[u8; 16]>, number: CommitNo, hash: &Hash) {
        if number.0.is_multiple_of(HISTORY_RUN) {
            recent.clear();
        }
        recent.push(short(hash));
    }
}

fn short(hash: &Hash) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash.0[..16]);
    short
}

impl Committer {
    /// A writer at the end of the log; it has no claim yet.
    pub fn new(bucket: Bucket, keys: Keys, end: LogEnd) -> Self {
        let chain = Chain::new(bucket.clone(), keys.clone());
        let LogEnd { head, recent, generation, upto } = end;
        let generation = generation.into();
        let (claim, writer, pending, fenced) = (CommitNo(0), None, None, None);
        Self { bucket, chain, keys, head, claim, writer, generation, recent, upto, pending, fenced }
    }

    /// The last confirmed commit.
    #[cfg(test)]
    pub fn head(&self) -> Head {
        self.head
    }

    /// 16-byte hashes of the commits from the last multiple of 256 to the head.
    #[cfg(test)]
    pub fn recent(&self) -> &[[u8; 16]] {
        &self.recent
    }

    /// The superblock's generation that the next commit will name; whoever changes the keys raises it (K6).
    pub fn generation(&self) -> CurrentGeneration {
        self.generation.clone()
    }

    /// Every transaction up to this one is in the log.
    pub fn upto(&self) -> Seq {
        self.upto
    }

    /// The commit that fenced this writer, if one did.
    #[cfg(test)]
    pub fn fenced(&self) -> Option<CommitNo> {
        self.fenced
    }

    /// The bytes of the prepared commit.
    #[cfg(test)]
    pub(super) fn pending_bytes(&self) -> Option<Bytes> {
        self.pending.as_ref().map(|pending| pending.sealed.clone())
    }

    /// Whether a commit is prepared but not confirmed.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The length of the prepared commit, and how much of it has been sent, over all attempts.
    pub fn moving(&self) -> Option<(u64, Moved)> {
        let pending = self.pending.as_ref()?;
        Some((pending.sealed.len() as u64, pending.moved.clone()))
    }

    /// Seals these transactions, which follow those already in the log, as the next commit.
    /// [`Committer::attempt`] puts it, each time with the same bytes.
    ///
    /// # Panics
    /// When a commit is pending, because only one is in flight (C2). When transactions were skipped.
    pub fn prepare(&mut self, transactions: &[Journaled]) {
        // It is better to stop loudly than to count a skipped transaction as sent.
        let first = transactions.first().map(|first| first.seq);
        assert!(
            first.is_none_or(|first| first == self.upto.next()),
            "{first:?} after {:?}",
            self.upto
        );
        let upto = transactions.last().map_or(self.upto, |last| last.seq);
        let bytes = transactions.iter().map(|t| t.bytes.clone()).collect();
        self.prepare_with(Vec::new(), bytes, upto, self.claim);
    }

    fn prepare_with(
        &mut self,
        mut records: Vec<Change>,
        transactions: Vec<Bytes>,
        upto: Seq,
        claim: CommitNo,
    ) {
        assert!(self.pending.is_none(), "one commit is in flight");
        let number = self.head.number.next();
        if number.0.is_multiple_of(HISTORY_RUN) {
            records.push(self.history(number));
        }
        let header = CommitHeader {
            vault: self.keys.vault(),
            number,
            previous: self.head.hash,
            claim,
            generation: self.generation.get(),
            time: Timestamp::now(),
            records: records.clone(),
        };
        let count = transactions.len() as u64;
        let sealed = seal_commit(&self.keys, &CommitContent { header, transactions });
        let size = CommitSize { transactions: count, sealed: sealed.len() as u64 };
        let hash = crypto::sha256(&sealed);
        let moved = self.bucket.moving();
        self.pending = Some(PendingCommit { number, sealed, hash, upto, records, size, moved });
    }

    /// The history record of the 256 commits before `number`. In the first run, number 0 is no commit, and its
    /// hash is zeros.
    fn history(&self, number: CommitNo) -> Change {
        let run = number.0 / HISTORY_RUN - 1;
        let key = Key::History(run).encode();
        let before_the_first = if run == 0 { [0; 16].as_slice() } else { &[] };
        let all = [before_the_first, &self.recent.concat()].concat();
        Change { key, value: Some(encode_value(&minicbor::bytes::ByteVec::from(all))) }
    }

    /// Puts the prepared commit once, and determines whether it is in the log (C2).
    ///
    /// # Errors
    /// [`CommitError::Again`]: attempt again. [`CommitError::Fenced`]: never again (W3).
    pub async fn attempt(&mut self) -> Result<Receipt, CommitError> {
        if let Some(found) = self.fenced {
            return Err(CommitError::Fenced { found });
        }
        let Some(pending) = &self.pending else {
            return Err(Error::malformed("the committer", "nothing is prepared").into());
        };
        let name = commit_name(pending.number);
        let put = self.bucket.put_once_counted(&name, pending.sealed.clone(), &pending.moved).await;
        os::reached(PipelineStep::CommitPut);
        let cause = match put {
            Ok(uploaded) if self.head.vouches_at(uploaded.time()) => {
                return Ok(self.confirmed(uploaded.time()));
            }
            Ok(_) => None,
            Err(error) => Some(error),
        };
        self.decide(cause).await
    }

    /// Reads from the log whether the commit is there, because the reply to the put did not tell.
    async fn decide(&mut self, cause: Option<store::Error>) -> Result<Receipt, CommitError> {
        let Some(pending) = &self.pending else { unreachable!("attempt checked it") };
        let (number, ours) = (pending.number, pending.sealed.clone());
        let (beyond, seen) = self.chain.list(number).await?;
        if !beyond.is_empty() {
            // Anybody with write access to the bucket can put objects there: only a commit of this vault
            // fences.
            return match self.chain.first_that_opens(&beyond).await? {
                Some(found) => Err(self.fence(found)),
                None => Err(strangers(&beyond).into()),
            };
        }
        let Some(found) = self.chain.sealed(number).await? else {
            return Err(CommitError::Again { number, cause });
        };
        match self.chain.whose(number, found, &ours).await? {
            Whose::Ours => Ok(self.confirmed(seen)),
            // The put took a free name and got a 200: what is there is what the store made of our bytes (C5).
            Whose::Nobodys if matches!(cause, Some(store::Error::Corrupt { .. })) => {
                let name = commit_name(number);
                tracing::warn!(
                    object = name,
                    "the store kept other bytes than it was sent: removed"
                );
                self.bucket.delete(&[name]).await.map_err(Error::from)?;
                Err(CommitError::Again { number, cause })
            }
            Whose::Theirs => Err(self.fence(number)),
            Whose::Nobodys => Err(strangers(&[number]).into()),
        }
    }

    fn fence(&mut self, found: CommitNo) -> CommitError {
        self.fenced = Some(found);
        CommitError::Fenced { found }
    }

    fn confirmed(&mut self, time: SystemTime) -> Receipt {
        let Some(pending) = self.pending.take() else { unreachable!("attempt checked it") };
        let PendingCommit { number, hash, upto, records, size, .. } = pending;
        self.head = Head { number, hash, seen: time };
        LogEnd::note(&mut self.recent, number, &hash);
        self.upto = upto;
        Receipt::new(number, hash, upto, time, records, size)
    }

    /// Claims the vault for `claimant` (W1, step 4). If another writer was quicker, the error is `Fenced`, and
    /// the caller decides again by W2 with a new committer.
    pub async fn claim(&mut self, claimant: &Claimant) -> Result<Receipt, CommitError> {
        if self.pending.is_none() {
            let epoch = self.head.number.next();
            let claim = WriterClaim::new(claimant, epoch);
            self.prepare_with(vec![claim.change()], Vec::new(), self.upto, epoch);
            self.writer = Some(claim);
            self.claim = epoch;
        }
        self.attempt().await
    }

    /// Releases the claim: the last commit of a clean unmount, when nothing is unsent (W1).
    pub async fn release(&mut self) -> Result<Receipt, CommitError> {
        if self.pending.is_none() {
            let Some(writer) = &self.writer else {
                return Err(Error::malformed("the committer", "it has no claim").into());
            };
            let released = WriterClaim { released: Some(Timestamp::now()), ..writer.clone() };
            self.prepare_with(vec![released.change()], Vec::new(), self.upto, self.claim);
        }
        self.attempt().await
    }
}

#[cfg(test)]
mod tests;
