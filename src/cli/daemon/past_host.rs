//! What the daemon tells about its vault's past, as lines of text.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytesize::ByteSize;
use tokio::sync::mpsc;

use super::past_source::settled;
use crate::cli::control::{ControlReply, PathRestore};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::messages;
use crate::fuse::{OpenedSnapshot, SnapshotError, Snapshots};
use crate::types::StateAt;
use crate::vault::{self, FileVersion, Happened, HistoryStep, Restored, Restoring, Vault};

/// The most versions that are told; they are the newest.
const VERSIONS: usize = 10_000;
/// How often it is said how far it is.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// The names that a path in the mount is made of.
pub(super) fn names(path: &Path) -> Vec<Vec<u8>> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            _ => None,
        })
        .collect()
}

pub(super) async fn say(told: &mpsc::Sender<ControlReply>, text: String) {
    drop(told.send(ControlReply::Said { text }).await); // whoever went away needs none
}

/// How long what is written by now may take to the bucket; it is asked for by somebody who waits.
const SYNC: Duration = Duration::from_mins(5);

/// Tells the versions of a path.
pub(super) async fn history(
    vault: &Vault,
    path: &Path,
    told: &mpsc::Sender<ControlReply>,
    fail: impl Fn(&vault::Error) -> Failure,
) -> CliResult {
    settled(vault, SYNC).await.map_err(|error| fail(&error))?;
    let (mut versions, mut left_out) = (VecDeque::new(), 0_u64);
    let mut last = Instant::now();
    let mut keep = |step: HistoryStep| {
        match step {
            HistoryStep::Version(version) => versions.push_back(version),
            HistoryStep::Read { commits, of } if last.elapsed() >= PAUSE => {
                last = Instant::now();
                let text = format!("so far {commits} of {of} commits were looked through");
                drop(told.try_send(ControlReply::Said { text })); // the next one says more
            }
            HistoryStep::Read { .. } => {}
        }
        if versions.len() > VERSIONS {
            versions.pop_front();
            left_out += 1;
        }
        // Nobody waits for the rest.
        if told.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    vault.history(&names(path), &mut keep).await.map_err(|error| fail(&error))?;
    if versions.is_empty() {
        let text = format!("nothing called {} was there in any state that is kept", path.display());
        return Err(Failure::new(Exit::NoState, text));
    }
    if left_out > 0 {
        say(told, format!("({left_out} older versions are not shown)")).await;
    }
    for version in versions {
        say(told, line(&version)).await;
    }
    Ok(())
}

/// `2026-11-28T14:00:00Z  commit 17      12.3 KiB  written by host`
fn line(version: &FileVersion) -> String {
    let size = match version.kind {
        libc::S_IFDIR => "directory".to_owned(),
        _ if !version.is_there() => "-".to_owned(),
        _ => ByteSize::b(version.size).to_string(),
    };
    let what = match &version.what {
        Happened::Kept(Some(name)) => format!("in the snapshot {name}"),
        Happened::Kept(None) => "in the oldest state that is kept".to_owned(),
        Happened::Created => "created".to_owned(),
        Happened::Arrived => "renamed to this".to_owned(),
        Happened::Written => "written".to_owned(),
        Happened::Left => "renamed to something else".to_owned(),
        Happened::Deleted => "deleted".to_owned(),
    };
    let by = version.host.as_ref().map_or_else(String::new, |host| format!(" by {host}"));
    let (time, commit) = (messages::when(version.time), version.commit.0);
    format!("{time}  commit {commit:<8} {size:>10}  {what}{by}")
}

/// Restores a path.
pub(super) async fn restore(
    vault: &Vault,
    what: PathRestore,
    told: &mpsc::Sender<ControlReply>,
    fail: impl Fn(&vault::Error) -> Failure,
) -> CliResult {
    if let Some(reason) = vault.status().read_only {
        let text = format!("nothing can be brought back here, as nothing can be changed: {reason}");
        return Err(Failure::new(Exit::Usage, text));
    }
    settled(vault, SYNC).await.map_err(|error| fail(&error))?;
    let what =
        Restoring { path: names(&what.path), at: what.at, to: what.to.as_deref().map(names) };
    let mut last = Instant::now();
    let mut tell = |done: &Restored| {
        if told.is_closed() {
            return ControlFlow::Break(());
        }
        if last.elapsed() >= PAUSE {
            last = Instant::now();
            let text = match done.files {
                0 => format!("so far {} commits were looked through", done.looked),
                _ => format!("so far {}", amount(done)),
            };
            drop(told.try_send(ControlReply::Said { text })); // the next one says more
        }
        ControlFlow::Continue(())
    };
    let done = vault.restore(&what, &mut tell).await.map_err(|error| fail(&error))?;
    let from = done.as_of.as_ref().map_or_else(String::new, |as_of| {
        let name = as_of.snapshot.as_ref().map(|name| format!(" (snapshot {name})"));
        let (commit, time) = (as_of.commit.0, messages::when(as_of.time));
        format!(" as of commit {commit}, {time}{}", name.unwrap_or_default())
    });
    say(told, format!("Brought back {}{from}.", amount(&done))).await;
    Ok(())
}

fn amount(done: &Restored) -> String {
    let things = if done.files == 1 {
        "1 file".to_owned()
    } else {
        format!("{} files and directories", done.files)
    };
    let copied = match done.shared {
        0 => String::new(),
        shared if shared == done.bytes => " (nothing was copied)".to_owned(),
        shared => format!(" ({} of it copied)", ByteSize::b(done.bytes - shared)),
    };
    format!("{things} with {}{copied}", ByteSize::b(done.bytes))
}

/// The snapshots as the mount sees them.
struct VaultSnapshots(Weak<Vault>);

/// The content of `.snapshots` in a mount of this vault.
pub(super) fn snapshots(vault: &Arc<Vault>) -> Arc<dyn Snapshots> {
    // A weak reference: the vault closes after the mount, and must not be kept alive by it.
    Arc::new(VaultSnapshots(Arc::downgrade(vault)))
}

#[async_trait]
impl Snapshots for VaultSnapshots {
    async fn names(&self) -> Result<Vec<(Vec<u8>, u64)>, SnapshotError> {
        let Some(vault) = self.0.upgrade() else { return Ok(Vec::new()) };
        let names = vault.snapshot_names().await?;
        Ok(names.into_iter().map(|(name, commit)| (name, commit.0)).collect())
    }

    async fn open(&self, name: &[u8]) -> Result<Option<OpenedSnapshot>, SnapshotError> {
        let Some(vault) = self.0.upgrade() else { return Ok(None) };
        // Looked up by the commit that the name refers to, so that a name that is not UTF-8 is found, too.
        let names = vault.snapshot_names().await?;
        let Some((_, commit)) = names.iter().find(|(there, _)| there == name) else {
            return Ok(None);
        };
        let past = vault.past(&StateAt::Commit(commit.0)).await?;
        Ok(Some(OpenedSnapshot { vfs: past.vfs.clone(), keep: Box::new(past) }))
    }
}
