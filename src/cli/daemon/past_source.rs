//! What the service tells about the vault's past, and restores from it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use async_trait::async_trait;

use crate::gateway::{
    BringBack, HttpProblem, OpenedPast, PastSource, PathVersion, PathVersions, SnapshotNote,
};
use crate::types::{StateAt, Timestamp};
use crate::vault::{
    Error, ErrorClass, FileVersion, Happened, HistoryStep, NoState, Restoring, Vault,
};

/// The most versions that are told; they are the newest.
const VERSIONS: usize = 1000;
/// How long a look-up waits for unsent changes. After that it shows what is in the bucket.
const LOOK: Duration = Duration::from_secs(10);

/// Waits until what is written by now is in the bucket: the past is what is there.
pub(super) async fn settled(vault: &Vault, limit: Duration) -> Result<(), Error> {
    match vault.status().read_only {
        Some(_) => Ok(()),
        None => vault.sync(limit).await,
    }
}

fn may_change(vault: &Vault) -> Result<(), HttpProblem> {
    match vault.status().read_only {
        Some(reason) => Err(HttpProblem::read_only(&reason)),
        None => Ok(()),
    }
}

#[async_trait]
impl PastSource for Vault {
    async fn versions(&self, path: &[Vec<u8>]) -> Result<PathVersions, HttpProblem> {
        let is_complete = settled(self, LOOK).await.is_ok();
        let (mut versions, mut left_out) = (VecDeque::new(), 0_u64);
        let mut keep = |step: HistoryStep| {
            if let HistoryStep::Version(version) = step {
                versions.push_back(told(version));
            }
            if versions.len() > VERSIONS {
                versions.pop_front();
                left_out += 1;
            }
            ControlFlow::Continue(())
        };
        self.history(path, &mut keep).await.map_err(|error| problem(&error))?;
        Ok(PathVersions { versions: versions.into(), left_out, is_complete })
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotNote>, HttpProblem> {
        let all = Self::snapshots(self).await.map_err(|error| problem(&error))?;
        let now = Timestamp::now();
        let kept = all.into_iter().filter(|snapshot| snapshot.pin.is_kept(now));
        let note = |snapshot: crate::vault::SnapshotInfo| SnapshotNote {
            name: snapshot.name,
            commit: snapshot.pin.commit.0,
            created: snapshot.pin.created,
            ends: snapshot.pin.ends,
        };
        Ok(kept.map(note).collect())
    }

    async fn settles(&self, limit: Duration) -> bool {
        let done = settled(self, limit).await;
        if let Err(error) = &done {
            tracing::warn!(%error, "the past is not changed, as what is there now is not in the bucket");
        }
        done.is_ok()
    }

    async fn open(&self, at: &StateAt) -> Result<OpenedPast, HttpProblem> {
        let past = self.past(at).await.map_err(|error| problem(&error))?;
        let (vfs, as_of) = (past.vfs.clone(), past.as_of.clone());
        Ok(OpenedPast { vfs, as_of, keep: Box::new(past) })
    }

    async fn restore(
        &self,
        what: &BringBack,
        go_on: &mut (dyn FnMut() -> ControlFlow<()> + Send),
    ) -> Result<(), HttpProblem> {
        may_change(self)?;
        let BringBack { path, commit, to } = what.clone();
        let what = Restoring { path, at: Some(StateAt::Commit(commit)), to: Some(to) };
        let done = Self::restore(self, &what, &mut |_| go_on()).await;
        done.map(drop).map_err(|error| problem(&error))
    }

    async fn make_snapshot(&self, name: &[u8], keep: Option<Duration>) -> Result<(), HttpProblem> {
        may_change(self)?;
        let made = Self::make_snapshot(self, name, keep).await;
        made.map(drop).map_err(|error| problem(&error))
    }

    async fn delete_snapshot(&self, name: &[u8]) -> Result<(), HttpProblem> {
        may_change(self)?;
        Self::delete_snapshot(self, name).await.map_err(|error| problem(&error))
    }
}

fn told(version: FileVersion) -> PathVersion {
    let (what, snapshot) = match &version.what {
        Happened::Kept(Some(name)) => ("in the snapshot", Some(name.clone())),
        Happened::Kept(None) => ("in the oldest state that is kept", None),
        Happened::Created => ("created", None),
        Happened::Arrived => ("renamed to this", None),
        Happened::Written => ("written", None),
        Happened::Left => ("renamed to something else", None),
        Happened::Deleted => ("deleted", None),
    };
    PathVersion {
        commit: version.commit.0,
        time: version.time,
        what,
        snapshot,
        is_there: version.is_there(),
        is_directory: version.kind == libc::S_IFDIR,
        size: version.size,
        host: version.host,
    }
}

fn problem(error: &Error) -> HttpProblem {
    match error {
        Error::NoState(NoState::TooOld { oldest, deleted, .. }) => {
            let since = if *deleted { "that is kept" } else { "that there is" };
            let text = format!(
                "This state is not kept (any more). The oldest one {since} is that of commit {}.",
                oldest.0
            );
            return HttpProblem::no_state(text);
        }
        Error::NoState(why) => {
            let text = format!("There is no such state: {why}.");
            return HttpProblem::no_state(text);
        }
        Error::NotRestored(why) => {
            tracing::info!("a restoring was refused");
            return HttpProblem::not_restored(why);
        }
        Error::Snapshot(why) => {
            tracing::info!("a snapshot was refused");
            return HttpProblem::no_snapshot(why);
        }
        _ => {}
    }
    match error.class() {
        ErrorClass::Store(_) | ErrorClass::Unfinished => {
            tracing::warn!(%error, "a look into the past failed: the store");
            let text = "The store does not answer, or there is no room for what waits. Nothing is lost; try again later.";
            HttpProblem::unavailable(text, 30)
        }
        ErrorClass::ReadOnly | ErrorClass::Fenced => {
            HttpProblem::read_only("another machine has it, or a disk failed")
        }
        _ => {
            tracing::error!(%error, "a look into the past failed");
            HttpProblem::internal()
        }
    }
}
