//! What was: versions of a path, snapshots, and states of the past that are open. The vault's own answers come by
//! [`PastSource`]; here is what keeps them few and bounded.

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::errors::Result;
use super::{Gateway, HttpProblem};
use crate::os;
use crate::types::{AsOf, StateAt, Timestamp};
use crate::vfs::Vfs;

/// States that are open at once; one that was not used for longest makes room.
const OPEN: usize = 4;
/// How long one stays open that nobody looks at.
const UNUSED: Duration = Duration::from_mins(10);
/// Looks through the log, and openings, at the same time.
const LOOKS: usize = 2;
/// How long such a look may take; a command may take longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// Changes at the same time: versions brought back, snapshots made and deleted.
const CHANGES: usize = 2;
/// How long a change waits for what is on its way to the bucket, and keeps its place.
const SETTLING: Duration = Duration::from_mins(2);

/// Where the gateway learns what was.
#[async_trait]
pub trait PastSource: Send + Sync + 'static {
    /// The versions of a path, the oldest first.
    async fn versions(&self, path: &[Vec<u8>]) -> std::result::Result<PathVersions, HttpProblem>;
    /// The snapshots that count, by name.
    async fn snapshots(&self) -> std::result::Result<Vec<SnapshotNote>, HttpProblem>;
    /// Whether all that is written by now is in the bucket, which it waits for, so long at most. May be dropped.
    async fn settles(&self, limit: Duration) -> bool;
    /// A state as a file system.
    async fn open(&self, at: &StateAt) -> std::result::Result<PastRoom, HttpProblem>;
    /// Brings back what was at a path in the state of a commit, whole. `go_on` is asked at each step.
    async fn restore(
        &self,
        what: &BringBack,
        go_on: &mut (dyn FnMut() -> ControlFlow<()> + Send),
    ) -> std::result::Result<(), HttpProblem>;
    /// Names the state of this moment; it ends after `keep`, if that is given.
    async fn make_snapshot(
        &self,
        name: &[u8],
        keep: Option<Duration>,
    ) -> std::result::Result<(), HttpProblem>;
    /// Ends a snapshot.
    async fn delete_snapshot(&self, name: &[u8]) -> std::result::Result<(), HttpProblem>;
}

/// A change that may take long.
pub(super) enum PastChange {
    Restore(BringBack),
    Keep {
        name: Vec<u8>,
        /// It ends after that.
        span: Option<Duration>,
    },
    Delete {
        name: Vec<u8>,
    },
}

/// What is to be brought back.
#[derive(Clone, Debug)]
pub struct BringBack {
    /// The names that lead to it from the root.
    pub path: Vec<Vec<u8>>,
    /// As of which commit.
    pub commit: u64,
    /// To where; a file that is there is replaced.
    pub to: Vec<Vec<u8>>,
}

/// A state as a file system.
pub struct PastRoom {
    /// Read-only.
    pub vfs: Vfs,
    /// Which state it is.
    pub as_of: AsOf,
    /// What keeps it.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// What is told of a path's past.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PathVersions {
    /// The oldest first.
    pub versions: Vec<PathVersion>,
    /// Older ones that are not told.
    pub left_out: u64,
    /// Whether all that was written is in the bucket, and so among them.
    pub is_complete: bool,
}

/// A version of a path, or its end.
#[derive(Clone, Debug, Serialize)]
pub struct PathVersion {
    /// The commit from which on it was so.
    pub commit: u64,
    /// When that was put, by the store's clock.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: Timestamp,
    /// `created`, `written`, `deleted` ...
    pub what: &'static str,
    /// Of which snapshot it is, if it is told for that.
    pub snapshot: Option<String>,
    /// Whether the path is there from then on.
    pub is_there: bool,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes.
    pub size: u64,
    /// The machine that wrote it, if that is known.
    pub host: Option<String>,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotNote {
    /// Its name.
    pub name: Vec<u8>,
    /// The state that it keeps.
    pub commit: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself.
    pub ends: Option<Timestamp>,
}

fn as_rfc3339<S: serde::Serializer>(
    time: &Timestamp,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&super::metadata::rfc3339(*time))
}

/// A state that is open, with all that answers questions about files.
pub(super) struct OpenPast {
    pub(super) gateway: Arc<Gateway>,
    pub(super) as_of: AsOf,
    _keep: Box<dyn Any + Send + Sync>,
}

/// The states that are open, and the places for those who look back.
pub(super) struct OpenPasts {
    gateway: Arc<Gateway>,
    open: Mutex<Vec<(Instant, Arc<OpenPast>)>>,
    looks: Semaphore,
    changes: Arc<Semaphore>,
}

impl OpenPasts {
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        Self {
            gateway,
            open: Mutex::default(),
            looks: Semaphore::new(LOOKS),
            changes: Arc::new(Semaphore::new(CHANGES)),
        }
    }

    /// The state of a commit.
    pub(super) async fn at(&self, commit: u64) -> Result<Arc<OpenPast>> {
        match self.at_hand(commit) {
            Some(found) => Ok(found),
            None => self.find(&StateAt::Commit(commit)).await,
        }
    }

    /// The state that is meant.
    pub(super) async fn find(&self, at: &StateAt) -> Result<Arc<OpenPast>> {
        in_time(async {
            let _place = self.place().await?;
            // Somebody else may have opened it while we waited.
            if let StateAt::Commit(commit) = at
                && let Some(found) = self.at_hand(*commit)
            {
                return Ok(found);
            }
            let PastRoom { vfs, as_of, keep } = self.gateway.past.open(at).await?;
            let gateway = Arc::new(Gateway { vfs, ..self.gateway.as_ref().clone() });
            let opened = Arc::new(OpenPast { gateway, as_of, _keep: keep });
            self.keep(&opened);
            Ok(opened)
        })
        .await
    }

    fn at_hand(&self, commit: u64) -> Option<Arc<OpenPast>> {
        let mut open = self.open.lock();
        let found = open.iter_mut().find(|(_, past)| past.as_of.commit.0 == commit);
        found.map(|(used, past)| {
            *used = Instant::now();
            past.clone()
        })
    }

    fn keep(&self, opened: &Arc<OpenPast>) {
        let mut gone = Vec::new();
        {
            let mut open = self.open.lock();
            let is_old = |(used, past): &mut (Instant, Arc<OpenPast>)| {
                used.elapsed() >= UNUSED || past.as_of.commit == opened.as_of.commit
            };
            gone.extend(open.extract_if(.., is_old));
            while open.len() >= OPEN {
                let oldest = open.iter().enumerate().min_by_key(|(_, (used, _))| *used);
                let Some(oldest) = oldest.map(|(at, _)| at) else { break };
                gone.push(open.swap_remove(oldest));
            }
            open.push((Instant::now(), opened.clone()));
        }
        // Their files go with them: not under the lock.
        drop(gone);
    }

    /// The versions of a path.
    pub(super) async fn versions(&self, path: &[Vec<u8>]) -> Result<PathVersions> {
        in_time(async {
            let _place = self.place().await?;
            self.gateway.past.versions(path).await
        })
        .await
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.looks.acquire().await.map_err(|_| too_long())
    }

    /// Makes a change. Nobody need wait for it any more once it has begun: it goes on by itself until it is done, or, what is
    /// restored, until nobody waits for it. Cut off in the middle it would leave open files.
    pub(super) async fn change(&self, what: PastChange) -> Result<()> {
        let Ok(place) = self.changes.clone().try_acquire_owned() else {
            let text = "Others restore, or make and delete snapshots, just now. Nothing was changed; try again in a moment.";
            return Err(HttpProblem::unavailable(text, 5));
        };
        let source = self.gateway.past.clone();
        let (mut tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(os::watched("changing the past for the page", async move {
            let settled = tokio::select! {
                settled = settled(source.as_ref(), &what) => settled,
                () = tell.closed() => return,
            };
            let mut go_on = || match tell.is_closed() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let done = match (settled, &what) {
                (Err(not_yet), _) => Err(not_yet),
                (Ok(()), PastChange::Restore(what)) => source.restore(what, &mut go_on).await,
                (Ok(()), PastChange::Keep { name, span }) => {
                    source.make_snapshot(name, *span).await
                }
                (Ok(()), PastChange::Delete { name }) => source.delete_snapshot(name).await,
            };
            // Whoever went away needs none.
            let _ = tell.send(done);
            drop(place);
        }));
        told.await.unwrap_or_else(|_| Err(HttpProblem::internal()))
    }
}

/// What is on its way is waited for: what a restoring replaces is to be among the versions, and a snapshot has all that is there.
/// Not for as long as it takes: that may be hours, in which others could not change anything.
async fn settled(source: &dyn PastSource, what: &PastChange) -> Result<()> {
    let text = match what {
        PastChange::Delete { .. } => return Ok(()),
        PastChange::Restore(_) => {
            "What is there now is not in the bucket yet, and to replace it would lose it. Nothing was changed; try again \
             when everything is in the bucket."
        }
        PastChange::Keep { .. } => {
            "What is there now is not in the bucket yet, and a snapshot would wait for it. None was made; try again when \
             everything is in the bucket. (On the machine of the vault, `s3vault snapshot create` waits.)"
        }
    };
    match source.settles(SETTLING).await {
        true => Ok(()),
        false => Err(HttpProblem::unavailable(text, 30)),
    }
}

async fn in_time<T>(look: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(DEADLINE, look).await.unwrap_or_else(|_| Err(too_long()))
}

fn too_long() -> HttpProblem {
    let text = "Looking back takes longer than a page may wait. Nothing was changed. On the machine of the vault, \
                `s3vault history` and `s3vault mount --at` take their time.";
    HttpProblem::unavailable(text, 60)
}
