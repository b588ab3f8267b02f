//! A daemon's life from usable to ended: what may end it, and that it does not end before everything is in the bucket
//! unless somebody insists.
//!
//! - `umount` unmounts (refused while files are open). SIGINT, SIGTERM and the end of a `--foreground` front process
//!   unmount lazily. Anybody may unmount from outside. A daemon that only serves has no mount: `serve --stop` is its
//!   `umount`.
//! - A daemon that was started for one command ends with the command, once nobody else uses it. If it was mounted or
//!   served meanwhile, it is a mount or service like any other, and lives on.
//! - Then the service stops, if there is one; requests under way have a moment to end.
//! - Then what is unsent is sent. After `umount` or an unmount from outside this takes as long as it must. After a
//!   signal it gives up when it is stuck ([`Stall`]), and after SIGTERM also when `--stop-timeout` is over, so that it
//!   can say what is missing before a SIGKILL.
//! - Then the vault is released. A second signal ends the process at once, at any point: what is unsent is in staging
//!   and the journal, and the next mount goes on with it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use ending::{Demand, Stall, forced, left, unreleased, unsent};

use super::front_link::FrontSender;
use super::spec::Credentials;
use crate::cli::control::{AsideRecovery, ControlReply, PathRestore};
use crate::cli::daemon_report::DaemonReport;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::keys::KeysAsked;
use crate::cli::limits::LimitWords;
use crate::cli::mount_look::MountLook;
use crate::cli::old_states::OldStates;
use crate::gateway::ServeOptions;
use crate::types::Progress;

mod answer;
mod control;
mod ending;
mod files_count;

use files_count::FilesCount;

pub(crate) use ending::EndLimits;

/// How long the kernel may take to unmount; the rest of the end does not depend on it.
const UNMOUNT: Duration = Duration::from_secs(10);
/// The limit of one sync attempt, after which another begins. It only keeps a wait from being endless.
const SYNC_STEP: Duration = Duration::from_hours(1);

/// The hosted vault as the lifecycle sees it; tests have their own.
#[async_trait]
pub(crate) trait HostedVault: Send + Sync + 'static {
    /// The status, except for the state.
    fn report(&self) -> DaemonReport;
    /// What is still unsent. Does not block.
    fn progress(&self) -> Progress;
    /// Returns when everything written before is in the bucket. Fails after `limit`, or if waiting cannot help
    /// ([`is_final`]).
    async fn sync(&self, limit: Duration) -> CliResult;
    /// Finishes and releases the vault. Everything has been sent before.
    async fn close(&self) -> CliResult;
    /// Whether there is or was a mount.
    fn has_mount(&self) -> bool;
    /// Mounts the vault, which has no mount yet.
    async fn mount(&self, mountpoint: &Path, look: &MountLook) -> CliResult;
    /// Serves by HTTP.
    async fn serve(&self, options: ServeOptions) -> CliResult;
    /// Stops serving, within a deadline of its own; returns whether it did serve.
    async fn unserve(&self) -> bool;
    /// Replaces the credentials for the store.
    async fn credentials(&self, given: Credentials) -> CliResult;
    /// Changes the limits that are named.
    async fn tune(&self, said: LimitWords) -> CliResult;
    /// Carries out a request about old states; returns the answer's lines.
    async fn old_states(&self, what: OldStates) -> CliResult<Vec<String>>;
    /// Tells or changes the key slots; returns the answer's lines.
    async fn keys(&self, what: KeysAsked) -> CliResult<Vec<String>>;
    /// Tells the versions of a path.
    async fn history(&self, path: &Path, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Restores a path.
    async fn restore(&self, what: PathRestore, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Lists or brings back what was set aside on this machine.
    async fn recover(&self, what: AsideRecovery, told: &mpsc::Sender<ControlReply>) -> CliResult;
    /// Does what comes over a connection for files, until it ends.
    async fn serve_files(&self, stream: UnixStream, umask: u32);
    /// Whether it serves by HTTP.
    fn has_service(&self) -> bool;
    /// Unmounts, unless files are open ([`Exit::Busy`]). Without a mount, none can be made from then on. May block for
    /// a moment.
    fn unmount(&self) -> CliResult;
    /// Unmounts lazily: detaches the mount now, whatever is open.
    fn detach(&self) -> CliResult;
    /// Returns when the vault is unmounted, by whomever, or can no longer be mounted.
    async fn ended(&self);
}

/// Whether waiting cannot change the outcome any more.
fn is_final(exit: Exit) -> bool {
    !matches!(exit, Exit::Unsent | Exit::Unreachable | Exit::Denied | Exit::Other)
}

/// The phase of a lifecycle.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Usable,
    Finishing,
    Ended(CliResult),
}

/// A daemon's lifecycle, shared by the control socket and [`Lifecycle::run`].
pub(crate) struct Lifecycle {
    vault: Arc<dyn HostedVault>,
    limits: EndLimits,
    phase: watch::Sender<Phase>,
    files: FilesCount,
    /// Whether it was started for one command, without mount and service.
    is_for_command: bool,
}

impl Lifecycle {
    /// A lifecycle at its beginning, with a usable vault.
    pub(crate) fn new(vault: Arc<dyn HostedVault>, limits: EndLimits) -> Arc<Self> {
        let (phase, files) = (watch::Sender::new(Phase::Usable), FilesCount::default());
        // Nobody can have joined yet.
        let is_for_command = !vault.has_mount() && !vault.has_service();
        Arc::new(Self { vault, limits, phase, files, is_for_command })
    }

    /// Runs until the end. `front`: closes when a front process that stays is gone.
    pub(crate) async fn run(
        &self,
        mut signals: mpsc::Receiver<&'static str>,
        front: Option<mpsc::Receiver<()>>,
        to_front: &FrontSender,
    ) -> CliResult {
        let gone = async {
            match front {
                Some(mut front) => {
                    while front.recv().await.is_some() {}
                    // If that command is killed, others that use its daemon must not be cut off.
                    if self.is_for_command
                        && !self.files.closed_by_the_last(|| self.is_joined()).await
                    {
                        std::future::pending::<()>().await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        let (told, demand) = tokio::select! {
            Some(signal) = signals.recv() => {
                (Some(format!("Got {signal}")), Some(Demand::of(signal, self.limits)))
            }
            () = gone => (Some("The front process is gone".to_owned()), None),
            () = self.vault.ended() => (None, None),
        };
        if let Some(why) = &told {
            let limit = demand.and_then(|demand| demand.limit());
            let limit = limit.map_or_else(String::new, |limit| {
                format!(", or else in {} s (--stop-timeout)", limit.as_secs())
            });
            // A client that came now would be cut off a moment later.
            self.files.close();
            to_front.tell(format!(
                "{why}: ending as soon as everything unsent is in the bucket{limit}. A second signal ends it at once."
            ));
            self.let_go().await;
        } else {
            tracing::info!("ending; what is unsent is being sent");
        }
        self.phase.send_replace(Phase::Finishing);
        to_front.ending();
        let outcome = self.finish(told.is_some(), demand, &mut signals, to_front).await;
        match &outcome {
            Ok(()) => to_front.tell("Ended; everything is in the bucket."),
            Err(failure) => tracing::error!("{failure}"),
        }
        self.phase.send_replace(Phase::Ended(outcome.clone()));
        outcome
    }

    /// Whether there is a mount or a service.
    fn is_joined(&self) -> bool {
        self.vault.has_mount() || self.vault.has_service()
    }

    /// Unmounts, lazily if need be. The kernel may take long, which does not stop the rest.
    async fn let_go(&self) {
        let vault = self.vault.clone();
        let unmounted =
            tokio::task::spawn_blocking(move || vault.unmount().or_else(|_| vault.detach()));
        match timeout(UNMOUNT, unmounted).await {
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "not unmounted; it will be dead when this process ends");
            }
            Ok(_) => {}
            Err(_) => tracing::warn!("not unmounted yet; what is unsent is being sent meanwhile"),
        }
    }

    /// Sends what is unsent, then releases the vault.
    async fn finish(
        &self,
        signalled: bool,
        mut demand: Option<Demand>,
        signals: &mut mpsc::Receiver<&'static str>,
        to_front: &FrontSender,
    ) -> CliResult {
        let hurried = AtomicBool::new(signalled);
        // The first signal never interrupts this, only the end of its time does: half a release is no release.
        let mut work = Box::pin(self.send_and_release(&hurried, to_front));
        loop {
            let over = async {
                match &demand {
                    Some(demand) => {
                        demand.over().await;
                        demand.out_of_time(&self.vault.progress())
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                outcome = &mut work => return outcome,
                failure = over => return Err(failure),
                Some(signal) = signals.recv() => {
                    if demand.is_some_and(|first| first.is_echo(signal)) {
                        continue;
                    }
                    // After the first signal, it may give up when stuck. A second one ends it.
                    if hurried.swap(true, Relaxed) {
                        return Err(forced(signal, &self.vault.progress()));
                    }
                    demand = Some(Demand::of(signal, self.limits));
                }
            }
        }
    }

    async fn send_and_release(&self, hurried: &AtomicBool, to_front: &FrontSender) -> CliResult {
        // First of all, since the service may still write.
        self.vault.unserve().await;
        loop {
            let sent = self
                .sync_until_stuck(|progress, stuck| {
                    to_front.sending(progress, stuck);
                    !(stuck && hurried.load(Relaxed))
                })
                .await;
            let outcome = match sent {
                Ok(()) => match self.vault.close().await {
                    // A last write came in between: it is waited for, too.
                    Err(failure) if failure.exit == Exit::Unsent => {
                        tokio::time::sleep(self.limits.tick).await;
                        continue;
                    }
                    closed => return closed.map_err(unreleased),
                },
                // The daemon ends now, so the failure must not promise that it goes on sending.
                Err(failure) if failure.exit == Exit::Unsent && hurried.load(Relaxed) => {
                    return Err(Failure { causes: failure.causes, ..left(&self.vault.progress()) });
                }
                Err(failure) => Err(failure),
            };
            match outcome {
                Err(failure) if !hurried.load(Relaxed) && !is_final(failure.exit) => {
                    tracing::warn!("{failure}; trying again");
                    tokio::time::sleep(self.limits.tick).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Waits until everything written before is in the bucket. `go_on` is told the progress at every tick, and whether
    /// it is stuck; it returns whether to go on.
    async fn sync_until_stuck(&self, mut go_on: impl FnMut(&Progress, bool) -> bool) -> CliResult {
        let mut stall = Stall::new(self.vault.progress(), self.limits);
        let mut ticks = interval(self.limits.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut sync = self.vault.sync(SYNC_STEP);
            let failure = loop {
                tokio::select! {
                    outcome = &mut sync => match outcome {
                        Ok(()) => return Ok(()),
                        Err(failure) if is_final(failure.exit) => return Err(failure),
                        Err(failure) => break failure,
                    },
                    _ = ticks.tick() => {
                        let progress = self.vault.progress();
                        let stuck = stall.is_stuck(&progress);
                        if !go_on(&progress, stuck) {
                            return Err(unsent(&progress));
                        }
                    }
                }
            };
            tracing::debug!(%failure, "sync is not through yet");
            ticks.tick().await;
            let progress = self.vault.progress();
            let stuck = stall.is_stuck(&progress);
            if !go_on(&progress, stuck) {
                return Err(Failure { causes: failure.causes, ..unsent(&progress) });
            }
        }
    }
}

#[cfg(test)]
mod tests;
