//! The past: versions of a path, snapshots, and open past states. [`PastSource`] supplies what the vault knows; this
//! module keeps the number of open states and concurrent look-ups bounded.

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

/// How many past states are open at once. The least recently used one is closed for another.
const OPEN: usize = 4;
/// How long an unused state stays open.
const UNUSED: Duration = Duration::from_mins(10);
/// How many searches of the log and openings of states run at a time.
const LOOKS: usize = 2;
/// How long such a look-up may take; a command may take longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many changes run at a time: restores, and snapshots made or deleted.
const CHANGES: usize = 2;
/// How long a change, which holds one of these places, waits for unsent data to reach the bucket.
const SETTLING: Duration = Duration::from_mins(2);

/// The gateway's source of past states.
#[async_trait]
pub trait PastSource: Send + Sync + 'static {
    /// The versions of a path, the oldest first.
    async fn versions(&self, path: &[Vec<u8>]) -> std::result::Result<PathVersions, HttpProblem>;
    /// The snapshots in effect, sorted by name.
    async fn snapshots(&self) -> std::result::Result<Vec<SnapshotNote>, HttpProblem>;
    /// Waits until everything written by now is in the bucket, for at most `limit`; returns whether it is. May be
    /// dropped.
    async fn settles(&self, limit: Duration) -> bool;
    /// Opens a past state as a file system.
    async fn open(&self, at: &StateAt) -> std::result::Result<OpenedPast, HttpProblem>;
    /// Restores the whole of what was at a path as of a commit. `go_on` is asked at each step.
    async fn restore(
        &self,
        what: &BringBack,
        go_on: &mut (dyn FnMut() -> ControlFlow<()> + Send),
    ) -> std::result::Result<(), HttpProblem>;
    /// Makes a snapshot of the current state; it ends after `keep`, if given.
    async fn make_snapshot(
        &self,
        name: &[u8],
        keep: Option<Duration>,
    ) -> std::result::Result<(), HttpProblem>;
    /// Deletes a snapshot.
    async fn delete_snapshot(&self, name: &[u8]) -> std::result::Result<(), HttpProblem>;
}

/// A change that may take long.
pub(super) enum PastChange {
    Restore(BringBack),
    Keep {
        name: Vec<u8>,
        /// How long the snapshot is kept, if not for good.
        span: Option<Duration>,
    },
    Delete {
        name: Vec<u8>,
    },
}

/// What to restore, from when, and to where.
#[derive(Clone, Debug)]
pub struct BringBack {
    /// Its path, as components from the root.
    pub path: Vec<Vec<u8>>,
    /// The commit whose state is meant.
    pub commit: u64,
    /// The target path; a file that is there is replaced.
    pub to: Vec<Vec<u8>>,
}

/// A past state as a file system.
pub struct OpenedPast {
    /// Its files, read-only.
    pub vfs: Vfs,
    /// Which state it is.
    pub as_of: AsOf,
    /// Keeps the state open until it is dropped.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// The versions of a path, as they are told.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PathVersions {
    /// The oldest first.
    pub versions: Vec<PathVersion>,
    /// The number of older versions that are left out.
    pub left_out: u64,
    /// Whether everything written is in the bucket, so that the list has the newest version.
    pub is_complete: bool,
}

/// A version of a path, or its deletion.
#[derive(Clone, Debug, Serialize)]
pub struct PathVersion {
    /// The first commit of this version.
    pub commit: u64,
    /// When that commit was put, by the store's clock.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: Timestamp,
    /// `created`, `written`, `deleted` ...
    pub what: &'static str,
    /// The snapshot that this version is listed for, if any.
    pub snapshot: Option<String>,
    /// Whether the path exists from then on.
    pub is_there: bool,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes.
    pub size: u64,
    /// The host that wrote it, if known.
    pub host: Option<String>,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotNote {
    /// Its name.
    pub name: Vec<u8>,
    /// The commit whose state it keeps.
    pub commit: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it expires.
    pub ends: Option<Timestamp>,
}

fn as_rfc3339<S: serde::Serializer>(
    time: &Timestamp,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&super::metadata::rfc3339(*time))
}

/// An open past state, with a [`Gateway`] to answer requests for its files.
pub(super) struct OpenPast {
    pub(super) gateway: Arc<Gateway>,
    pub(super) as_of: AsOf,
    _keep: Box<dyn Any + Send + Sync>,
}

/// The open states, and the limits on look-ups and changes.
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

    /// The state that `at` names.
    pub(super) async fn find(&self, at: &StateAt) -> Result<Arc<OpenPast>> {
        in_time(async {
            let _place = self.place().await?;
            // Somebody else may have opened it while this waited.
            if let StateAt::Commit(commit) = at
                && let Some(found) = self.at_hand(*commit)
            {
                return Ok(found);
            }
            let OpenedPast { vfs, as_of, keep } = self.gateway.past.open(at).await?;
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
        // Closing them closes their files, so it is not done under the lock.
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
        // The semaphore is never closed.
        self.looks.acquire().await.map_err(|_| too_long())
    }

    /// Makes a change in a task of its own, since a change that is cut off in the middle would leave files open. Once
    /// begun, it goes on to its end even if the caller goes away; only a restore then stops at its next step.
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
            // If the caller went away, nobody needs the result.
            let _ = tell.send(done);
            drop(place);
        }));
        told.await.unwrap_or_else(|_| Err(HttpProblem::internal()))
    }
}

/// Waits until unsent data is in the bucket: what a restore replaces must be among the versions, and a snapshot must
/// hold all that is there. The wait is limited, since it may take hours, during which others could not change anything.
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
