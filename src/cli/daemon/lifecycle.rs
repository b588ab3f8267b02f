//! A daemon's life from usable to gone: what may end it, and that nothing ends it before
//! everything is in the bucket, unless somebody insists.
//!
//! - `umount` unmounts (refused while files are open); SIGINT, SIGTERM and the end of a
//!   `--foreground` front process unmount lazily; anybody may unmount from outside. What only serves has no mount:
//!   `serve --stop` is its `umount`.
//! - Then the service stops, if there is one: requests at work have a moment to end.
//! - Then what is unsent is sent. After `umount` or an unmount from outside this goes on for
//!   as long as it takes; after a signal it gives up when it is stuck ([`Stall`]).
//! - Then the vault is released. A second signal ends the process at once, at any point:
//!   what is unsent is in staging and the journal, and the next mount goes on with it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::front_link::FrontSender;
use super::spec::{Credentials, DaemonMessage};
use crate::cli::control::{ControlHandler, ControlReply};
use crate::cli::daemon_report::{DaemonReport, State, describe_progress};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::gateway::ServeOptions;
use crate::types::Progress;

/// How often a lifecycle looks whether anything moves, and after how long it gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StallLimits {
    /// How often progress is told, and a stall looked for.
    tick: Duration,
    /// Attempts fail, and nothing has moved for this long: stuck.
    failing: Duration,
    /// Nothing has moved for this long although nothing fails: stuck.
    silent: Duration,
}

impl StallLimits {
    /// Failing: longer than a request's deadline (30 s) and a retry, so that one lost reply
    /// is no reason to give up. Silent: one pack of 16 MiB through a link of 30 KB/s.
    pub(crate) const USUAL: Self = Self {
        tick: Duration::from_millis(500),
        failing: Duration::from_secs(90),
        silent: Duration::from_mins(10),
    };
}

/// One attempt at a sync; at its end another begins. Only there so that no wait is endless.
const SYNC_STEP: Duration = Duration::from_hours(1);

/// The mounted or served vault, as the lifecycle sees it; tests have one of their own.
#[async_trait]
pub(crate) trait HostedVault: Send + Sync + 'static {
    /// How things are, but for the state.
    fn report(&self) -> DaemonReport;
    /// What is on its way. Does not block.
    fn progress(&self) -> Progress;
    /// Returns when everything written before is in the bucket. Fails after `limit`, or when
    /// that will not become true by waiting ([`is_final`]).
    async fn sync(&self, limit: Duration) -> CliResult;
    /// Finishes and releases the vault. Nothing is unsent before.
    async fn close(&self) -> CliResult;
    /// Whether there is, or was, a mount.
    fn has_mount(&self) -> bool;
    /// Mounts; there is no mount yet.
    async fn mount(&self, mountpoint: &Path, allow_other: bool) -> CliResult;
    /// Serves by HTTP.
    async fn serve(&self, options: ServeOptions) -> CliResult;
    /// Stops serving, within a deadline of its own; whether it did serve.
    async fn unserve(&self) -> bool;
    /// Takes other credentials for the store.
    async fn credentials(&self, given: Credentials) -> CliResult;
    /// Unmounts, unless files are open ([`Exit::Busy`]); without a mount it is over at once. May block for a moment.
    fn unmount(&self) -> CliResult;
    /// Unmounts lazily: out of sight now, whatever is open.
    fn detach(&self) -> CliResult;
    /// Returns when it is unmounted, by whomever, or over without a mount.
    async fn ended(&self);
}

/// Whether waiting cannot help any more.
fn is_final(exit: Exit) -> bool {
    !matches!(exit, Exit::Unsent | Exit::Unreachable | Exit::Denied | Exit::Other)
}

/// How far a lifecycle is.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Usable,
    Finishing,
    Ended(CliResult),
}

/// A daemon's lifecycle. Shared by the control socket, which asks, and [`Lifecycle::run`].
pub(crate) struct Lifecycle {
    vault: Arc<dyn HostedVault>,
    limits: StallLimits,
    phase: watch::Sender<Phase>,
}

impl Lifecycle {
    /// A lifecycle at its beginning: the vault is usable.
    pub(crate) fn new(vault: Arc<dyn HostedVault>, limits: StallLimits) -> Arc<Self> {
        Arc::new(Self { vault, limits, phase: watch::Sender::new(Phase::Usable) })
    }

    /// Runs until it is over. `front`: closes when a front process that stays is gone.
    pub(crate) async fn run(
        &self,
        mut signals: mpsc::Receiver<&'static str>,
        front: Option<mpsc::Receiver<()>>,
        to_front: &FrontSender,
    ) -> CliResult {
        let gone = async {
            match front {
                Some(mut front) => while front.recv().await.is_some() {},
                None => std::future::pending().await,
            }
        };
        let told = tokio::select! {
            Some(signal) = signals.recv() => Some(format!("Got {signal}")),
            () = gone => Some("The front process is gone".to_owned()),
            () = self.vault.ended() => None,
        };
        if let Some(why) = &told {
            to_front.tell(format!(
                "{why}: ending as soon as everything unsent is in the bucket. A second signal ends it at once."
            ));
            let vault = self.vault.clone();
            let unmounted =
                tokio::task::spawn_blocking(move || vault.unmount().or_else(|_| vault.detach()));
            if let Ok(Err(error)) = unmounted.await {
                tracing::warn!(%error, "not unmounted; it will be dead when this process ends");
            }
        } else {
            tracing::info!("ending; what is unsent is being sent");
        }
        self.phase.send_replace(Phase::Finishing);
        let outcome = self.finish(told.is_some(), &mut signals, to_front).await;
        match &outcome {
            Ok(()) => to_front.tell("Ended; everything is in the bucket."),
            Err(failure) => tracing::error!("{failure}"),
        }
        self.phase.send_replace(Phase::Ended(outcome.clone()));
        outcome
    }

    /// Sends what is unsent, then releases.
    async fn finish(
        &self,
        signalled: bool,
        signals: &mut mpsc::Receiver<&'static str>,
        to_front: &FrontSender,
    ) -> CliResult {
        let hurried = AtomicBool::new(signalled);
        // Never interrupted by the first signal: half a release is none.
        let mut work = Box::pin(self.send_and_release(&hurried, to_front));
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                Some(signal) = signals.recv() => {
                    // The first one: from now on it may give up.
                    if hurried.swap(true, Relaxed) {
                        return Err(forced(signal, &self.vault.progress()));
                    }
                }
            }
        }
    }

    async fn send_and_release(&self, hurried: &AtomicBool, to_front: &FrontSender) -> CliResult {
        // Before anything is waited for: it may still write.
        self.vault.unserve().await;
        loop {
            let sent = self
                .sync_until_stuck(|progress, stuck| {
                    to_front.say(&DaemonMessage::Progress(progress.clone()));
                    !(stuck && hurried.load(Relaxed))
                })
                .await;
            let outcome = match sent {
                Ok(()) => match self.vault.close().await {
                    // A last write came between: it is waited for as what came before.
                    Err(failure) if failure.exit == Exit::Unsent => {
                        tokio::time::sleep(self.limits.tick).await;
                        continue;
                    }
                    closed => return closed.map_err(unreleased),
                },
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

    /// Waits for everything written before to be in the bucket. `go_on` hears of progress
    /// at every tick, and whether it is stuck; it says whether to go on.
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

#[async_trait]
impl ControlHandler for Lifecycle {
    fn report(&self) -> DaemonReport {
        let state = match *self.phase.borrow() {
            Phase::Usable if self.vault.has_mount() => State::Mounted,
            Phase::Usable => State::Serving,
            Phase::Finishing | Phase::Ended(_) => State::Finishing,
        };
        DaemonReport { state, ..self.vault.report() }
    }

    async fn sync(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult {
        self.sync_until_stuck(|now, stuck| {
            // A client that does not read misses a reply; one that is gone needs none.
            drop(progress.try_send(ControlReply::Progress(now.clone())));
            !stuck && !progress.is_closed()
        })
        .await
    }

    async fn umount(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult {
        let mut phase = self.phase.subscribe();
        if *phase.borrow() == Phase::Usable {
            let vault = self.vault.clone();
            let mut unmounted = tokio::task::spawn_blocking(move || vault.unmount());
            loop {
                // umount(2) returns only when the kernel has let go of every inode, which takes it seconds for a
                // million of them; the mount is over long before, and then so may be this lifecycle.
                tokio::select! {
                    done = &mut unmounted => {
                        done.unwrap_or_else(|error| Err(Failure::new(Exit::Other, error.to_string())))?;
                        break;
                    }
                    _ = phase.wait_for(|phase| *phase != Phase::Usable) => break,
                    () = tokio::time::sleep(self.limits.tick) => {
                        drop(progress.try_send(ControlReply::Progress(self.vault.progress())));
                    }
                }
            }
        }
        let mut stall = Stall::new(self.vault.progress(), self.limits);
        loop {
            // Ends at the latest when the lifecycle does: the sender is `self`'s.
            let ended =
                timeout(self.limits.tick, phase.wait_for(|phase| matches!(phase, Phase::Ended(_))))
                    .await;
            if let Ok(Ok(phase)) = ended
                && let Phase::Ended(outcome) = &*phase
            {
                return outcome.clone();
            }
            let now = self.vault.progress();
            drop(progress.try_send(ControlReply::Progress(now.clone())));
            if stall.is_stuck(&now) {
                let mut failure = unsent(&now);
                failure.message.push_str(
                    "; the vault is not in use any more, and its daemon goes on trying to send: see `s3vault \
                     status`; `s3vault umount --force` or SIGKILL ends it",
                );
                return Err(failure);
            }
        }
    }

    async fn mount(&self, mountpoint: &Path, allow_other: bool) -> CliResult {
        self.is_usable()?;
        self.vault.mount(mountpoint, allow_other).await?;
        self.is_usable()
    }

    async fn serve(&self, options: ServeOptions) -> CliResult {
        self.is_usable()?;
        self.vault.serve(options).await?;
        // It may have begun to end meanwhile, after which nobody else would stop the service.
        let usable = self.is_usable();
        if usable.is_err() {
            self.vault.unserve().await;
        }
        usable
    }

    async fn credentials(&self, given: Credentials) -> CliResult {
        // While it ends, too: what is unsent may wait for nothing else.
        self.vault.credentials(given).await
    }

    async fn unserve(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult {
        if !self.vault.has_mount() {
            return self.umount(progress).await;
        }
        let mut ticks = interval(self.limits.tick);
        let mut unserved = self.vault.unserve();
        loop {
            tokio::select! {
                was = &mut unserved => return match was {
                    true => Ok(()),
                    false => Err(Failure::new(Exit::NotMounted, "nothing is served there")),
                },
                // So that the client hears that we live.
                _ = ticks.tick() => drop(progress.try_send(ControlReply::Progress(self.vault.progress()))),
            }
        }
    }
}

impl Lifecycle {
    fn is_usable(&self) -> CliResult {
        if *self.phase.borrow() == Phase::Usable {
            return Ok(());
        }
        let text = "the daemon of this vault is just ending; wait until it is gone (see `s3vault status`), then try \
            again";
        Err(Failure::new(Exit::MountedAlready, text))
    }
}

/// Notices that nothing moves.
struct Stall {
    limits: StallLimits,
    last: Progress,
    since: Instant,
}

impl Stall {
    fn new(last: Progress, limits: StallLimits) -> Self {
        Self { limits, last, since: Instant::now() }
    }

    fn is_stuck(&mut self, now: &Progress) -> bool {
        let of =
            |at: &Progress| (at.unsent_bytes, at.unsent_packs, at.unsent_changes, at.moved_bytes);
        let moved = of(now) != of(&self.last);
        self.last = now.clone();
        if moved {
            self.since = Instant::now();
        }
        let limit = if now.trouble.is_some() { self.limits.failing } else { self.limits.silent };
        self.since.elapsed() >= limit
    }
}

fn unsent(progress: &Progress) -> Failure {
    let text = format!(
        "{}; nothing is lost: it is encrypted on this disk, and is sent as soon as the store takes it",
        describe_progress(progress)
    );
    Failure::new(Exit::Unsent, text)
}

fn unreleased(failure: Failure) -> Failure {
    let text = format!(
        "everything is in the bucket, but this machine's claim on the vault was not released ({}); nothing is lost; \
         the next mount on this machine releases it; another machine needs --take-over",
        failure.message
    );
    Failure { message: text, ..failure }
}

fn forced(signal: &str, progress: &Progress) -> Failure {
    let what = describe_progress(progress);
    let text = format!(
        "ended at once by a second {signal}: {what}; the next mount of this vault on this machine goes on with it"
    );
    Failure::new(Exit::Forced, text)
}

#[cfg(test)]
mod tests;
