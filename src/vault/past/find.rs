//! Finds a past state: its commit, the checkpoint to begin at, and a proof that it is of this very log (O2).

use std::time::{Duration, SystemTime};

use crate::checkpoint::{ListedManifest, Manifest, manifests, newest_of};
use crate::crypto::Keys;
use crate::index::Index;
use crate::log::commit_name;
use crate::records::{HISTORY_RUN, Pin, decode_value, hash_in_history, history_place};
use crate::store::{self, Bucket};
use crate::types::{AsOf, CommitNo, Hash, StateAt, Timestamp};
use crate::vault::{Error, NoState, Result};

/// How many snapshots a message names at most.
const NAMED: usize = 20;

/// A past state that can be opened.
#[derive(Clone, Debug)]
pub(in crate::vault) struct PastState {
    /// Which state it is.
    pub as_of: AsOf,
    /// The checkpoint to begin at; `None`: begin before the first commit.
    pub base: Option<Manifest>,
    /// The first 16 bytes of the commit's hash, as later states know it; `None`: it comes after the newest checkpoint.
    pub short_hash: Option<[u8; 16]>,
}

/// What is known of a vault's states.
pub(in crate::vault) struct States<'a> {
    bucket: &'a Bucket,
    keys: &'a Keys,
    /// The current map.
    index: &'a Index,
    /// The last commit.
    head: CommitNo,
    listed: Vec<ListedManifest>,
    /// The store's time of the listing.
    now: SystemTime,
}

impl<'a> States<'a> {
    pub(in crate::vault) async fn read(
        bucket: &'a Bucket,
        keys: &'a Keys,
        index: &'a Index,
        head: CommitNo,
    ) -> Result<Self> {
        let (listed, now) = manifests(bucket).await?;
        Ok(Self { bucket, keys, index, head, listed, now })
    }

    /// Finds the state asked for.
    ///
    /// # Errors
    /// [`Error::NoState`]; damage; what the store says.
    pub(in crate::vault) async fn find(&self, at: &StateAt) -> Result<PastState> {
        match at {
            StateAt::Named(name, other) => match (self.pin(name).await?, other) {
                (Some(pin), _) => self.pinned(pin.commit, Some(name.clone())).await,
                (None, Some(other)) => Box::pin(self.find(other)).await,
                (None, None) => {
                    let there = self.names().await?.into_iter().take(NAMED).collect();
                    Err(Error::NoState(NoState::NoSnapshot { name: name.clone(), there }))
                }
            },
            StateAt::Commit(number) if *number == 0 || *number > self.head.0 => {
                Err(Error::NoState(NoState::NoCommit { number: *number, last: self.head }))
            }
            StateAt::Commit(number) => self.at(CommitNo(*number), None).await,
            StateAt::Time(_) | StateAt::Ago(_) => {
                let until = moment(at, self.now).unwrap_or(self.now);
                let number = self.last_until(until).await?;
                self.at(number, Some(until)).await
            }
        }
    }

    /// The oldest promised state, apart from pinned ones.
    pub(in crate::vault) async fn oldest(&self) -> Result<PastState> {
        let first = self.horizon().await?.map_or(CommitNo(1), |commit| commit.max(CommitNo(1)));
        self.state(first, None).await
    }

    /// The last commit.
    pub(in crate::vault) fn head(&self) -> CommitNo {
        self.head
    }

    /// Checkpoints above `oldest` from which to search for recent changes: the newest first, then each time twice as many
    /// checkpoints further back.
    pub(in crate::vault) fn beginnings(&self, oldest: CommitNo) -> Vec<CommitNo> {
        let usable = |manifest: &&ListedManifest| {
            !manifest.overtaken && manifest.number > oldest && manifest.number <= self.head
        };
        let numbers: Vec<_> = self.listed.iter().rev().filter(usable).map(|m| m.number).collect();
        let steps = (0..usize::BITS).map(|n| (1_usize << n) - 1);
        steps.map_while(|at| numbers.get(at).copied()).collect()
    }

    /// The snapshots of states older than `oldest`, the oldest first.
    pub(in crate::vault) async fn pinned_before(
        &self,
        oldest: CommitNo,
    ) -> Result<Vec<(String, CommitNo)>> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let pins = self.pins().await?;
        let older = pins.iter().filter(|(_, pin)| pin.commit < oldest);
        let mut found: Vec<_> = older.map(|(name, pin)| (text(name), pin.commit)).collect();
        found.sort_by_key(|(_, commit)| *commit);
        Ok(found)
    }

    async fn pin(&self, name: &str) -> Result<Option<Pin>> {
        // A name that no snapshot can have names none.
        let Ok(key) = Pin::key(name.as_bytes()) else { return Ok(None) };
        let found = self.index.read(|view| view.get(&key)).await.map_err(Error::from)?;
        let pin: Option<Pin> = found.map(|value| decode_value("pin", &value)).transpose()?;
        Ok(pin.filter(|pin| pin.is_kept(Timestamp::of_store(self.now))))
    }

    async fn pins(&self) -> Result<Vec<(Vec<u8>, Pin)>> {
        let mut pins = self.index.read(|view| view.pins()).await.map_err(Error::from)?;
        pins.retain(|(_, pin)| pin.is_kept(Timestamp::of_store(self.now)));
        Ok(pins)
    }

    /// The names of all snapshots that count.
    pub(in crate::vault) async fn names(&self) -> Result<Vec<String>> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        Ok(self.pins().await?.iter().map(|(name, _)| text(name)).collect())
    }

    /// The horizon: states before this commit are not promised.
    async fn horizon(&self) -> Result<Option<CommitNo>> {
        let horizon = self.index.read(|view| view.horizon()).await.map_err(Error::from)?;
        Ok(horizon.map(|horizon| horizon.commit))
    }

    /// The state after a commit, if it is still promised or pinned. `until`: the time that was asked for, if one was.
    async fn at(&self, number: CommitNo, until: Option<SystemTime>) -> Result<PastState> {
        let horizon = self.horizon().await?;
        let deleted = horizon.is_some_and(|horizon| number < horizon);
        if deleted && self.pins().await?.iter().any(|(_, pin)| pin.commit == number) {
            return self.pinned(number, None).await;
        }
        let oldest = horizon.unwrap_or(CommitNo(1)).max(CommitNo(1));
        let put = self.put_at(number).await?;
        // For a trimmed commit the time of its put is not known; its checkpoint was put after it.
        let unknown = until.is_some_and(|until| put.is_none_or(|put| put > until));
        if number.0 == 0 || deleted || unknown {
            let time = self.put_at(oldest).await?.map(Timestamp::from);
            let deleted = horizon.is_some();
            return Err(Error::NoState(NoState::TooOld { oldest, time, deleted }));
        }
        self.state(number, None).await
    }

    /// The state after a commit, without checking that it is promised.
    pub(in crate::vault) async fn state(
        &self,
        number: CommitNo,
        snapshot: Option<String>,
    ) -> Result<PastState> {
        let time = self.put_at(number).await?.unwrap_or(self.now);
        let base = self.base_of(number).await?;
        let as_of = AsOf { commit: number, time: time.into(), snapshot };
        Ok(PastState { as_of, base, short_hash: self.known_hash(number).await? })
    }

    /// The checkpoint to begin at. A manifest that was put no earlier than a higher one counts only if the commits after the
    /// previous manifest are gone: in a bucket that was copied all dates are new. If instead its writer had slept, some of its
    /// pages may be gone, and what needs them cannot be read.
    async fn base_of(&self, number: CommitNo) -> Result<Option<Manifest>> {
        let (bucket, keys) = (self.bucket, self.keys);
        let base = newest_of(&self.listed, number, bucket, keys).await?.manifest;
        let from = base.as_ref().map_or(CommitNo(0), |base| base.commit);
        if from == number || self.commit_put(from.next()).await?.is_some() {
            return Ok(base);
        }
        let any = self.listed.iter().map(|listed| ListedManifest { overtaken: false, ..*listed });
        let any: Vec<_> = any.collect();
        Ok(newest_of(&any, number, bucket, keys).await?.manifest.or(base))
    }

    /// The state of a pin, opened from its own manifest only.
    pub(in crate::vault) async fn pinned(
        &self,
        number: CommitNo,
        snapshot: Option<String>,
    ) -> Result<PastState> {
        let time = self.put_at(number).await?.unwrap_or(self.now);
        let listed = self.listed.iter().find(|listed| listed.number == number);
        let lacking = || {
            let object = crate::checkpoint::manifest_name(number);
            Error::Store(store::Error::NotFound { object })
        };
        let base = listed.ok_or_else(lacking)?.open(self.bucket, self.keys).await?;
        let as_of = AsOf { commit: number, time: time.into(), snapshot };
        Ok(PastState { as_of, base: Some(base), short_hash: self.known_hash(number).await? })
    }

    /// When a commit was put, by the store's clock; for a trimmed one, when its checkpoint was.
    pub(in crate::vault) async fn put_at(&self, number: CommitNo) -> Result<Option<SystemTime>> {
        if let Some(put) = self.commit_put(number).await? {
            return Ok(Some(put));
        }
        let listed = self.listed.iter().find(|listed| listed.number == number);
        Ok(listed.map(|listed| listed.modified))
    }

    async fn commit_put(&self, number: CommitNo) -> Result<Option<SystemTime>> {
        match self.bucket.head(&commit_name(number)).await {
            Ok(head) => Ok(Some(head.modified)),
            Err(store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The last commit put no later than `until`; 0 if none was. A binary search: a trimmed commit is older than all that are
    /// there.
    async fn last_until(&self, until: SystemTime) -> Result<CommitNo> {
        if until >= self.now {
            return Ok(self.head);
        }
        let (mut low, mut high) = (0, self.head.0 + 1);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            let is_later = self.commit_put(CommitNo(middle)).await?.is_some_and(|put| put > until);
            *(if is_later { &mut high } else { &mut low }) = middle;
        }
        Ok(CommitNo(low))
    }

    /// The hash of a commit as the newest checkpoint knows it (O2).
    async fn known_hash(&self, number: CommitNo) -> Result<Option<[u8; 16]>> {
        let base = self.index.base();
        let Some(newest) = base.manifest().filter(|newest| number <= newest.commit) else {
            return Ok(None);
        };
        let run = number.0 / HISTORY_RUN;
        let found = if newest.commit.0 / HISTORY_RUN == run {
            let first = (run * HISTORY_RUN).max(1);
            usize::try_from(number.0 - first)
                .ok()
                .and_then(|at| newest.recent_hashes().get(at).copied())
        } else {
            let (key, at) = history_place(number);
            let run = self.index.read(|view| view.get(&key)).await.map_err(Error::from)?;
            run.map(|run| hash_in_history(&run, at)).transpose()?.flatten()
        };
        found.map(Some).ok_or(Error::Rollback { number })
    }
}

impl PastState {
    /// Whether the commit that was read is the one that later states know.
    pub(in crate::vault) fn is(&self, hash: &Hash) -> bool {
        self.short_hash.is_none_or(|short| hash.0[..16] == short)
    }
}

/// What was asked for as a time of the store's clock, if it is one.
fn moment(at: &StateAt, now: SystemTime) -> Option<SystemTime> {
    match at {
        // People and stores give whole seconds: such a time includes the whole second.
        StateAt::Time(time) => {
            let after = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let whole = after.subsec_nanos() == 0;
            Some(if whole { *time + Duration::from_nanos(999_999_999) } else { *time })
        }
        StateAt::Ago(ago) => Some(now.checked_sub(*ago).unwrap_or(SystemTime::UNIX_EPOCH)),
        StateAt::Commit(_) | StateAt::Named(..) => None,
    }
}
