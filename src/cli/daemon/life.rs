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

use super::process::Voice;
use super::spec::{Credentials, Word};
use crate::cli::control::{Answer, Reply};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::report::{Progress, Report, State};
use crate::gateway::ServeOptions;

/// How long a life waits for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// How often progress is told, and a stall looked for.
    tick: Duration,
    /// Attempts fail, and nothing has moved for this long: stuck.
    failing: Duration,
    /// Nothing has moved for this long although nothing fails: stuck.
    silent: Duration,
}

impl Patience {
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

/// The mounted or served vault, as its life sees it; played in tests.
#[async_trait]
pub(crate) trait Live: Send + Sync + 'static {
    /// How things are, but for the state.
    fn report(&self) -> Report;
    /// What is on its way. Does not block.
    fn progress(&self) -> Progress;
    /// Returns when everything written before is in the bucket. Fails after `limit`, or when
    /// that will not become true by waiting ([`is_final`]).
    async fn sync(&self, limit: Duration) -> Outcome;
    /// Finishes and releases the vault. Nothing is unsent before.
    async fn close(&self) -> Outcome;
    /// Whether there is, or was, a mount.
    fn has_mount(&self) -> bool;
    /// Mounts; there is no mount yet.
    async fn mount(&self, mountpoint: &Path, allow_other: bool) -> Outcome;
    /// Serves by HTTP.
    async fn serve(&self, options: ServeOptions) -> Outcome;
    /// Stops serving, within a deadline of its own; whether it did serve.
    async fn unserve(&self) -> bool;
    /// Takes other credentials for the store.
    async fn credentials(&self, given: Credentials) -> Outcome;
    /// Unmounts, unless files are open ([`Exit::Busy`]); without a mount it is over at once. May block for a moment.
    fn unmount(&self) -> Outcome;
    /// Unmounts lazily: out of sight now, whatever is open.
    fn detach(&self) -> Outcome;
    /// Returns when it is unmounted, by whomever, or over without a mount.
    async fn ended(&self);
}

/// Whether waiting may help.
fn is_final(exit: Exit) -> bool {
    !matches!(exit, Exit::Unsent | Exit::Unreachable | Exit::Denied | Exit::Other)
}

/// Where a life stands.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Usable,
    Finishing,
    Ended(Outcome),
}

/// A daemon's life. Shared by the control socket, which asks, and [`Life::run`].
pub(crate) struct Life {
    live: Arc<dyn Live>,
    patience: Patience,
    phase: watch::Sender<Phase>,
}

impl Life {
    /// A life that begins usable.
    pub(crate) fn new(live: Arc<dyn Live>, patience: Patience) -> Arc<Self> {
        Arc::new(Self { live, patience, phase: watch::Sender::new(Phase::Usable) })
    }

    /// Runs until it is over. `front`: closes when a front process that stays is gone.
    pub(crate) async fn run(
        &self,
        mut signals: mpsc::Receiver<&'static str>,
        front: Option<mpsc::Receiver<()>>,
        voice: &Voice,
    ) -> Outcome {
        let gone = async {
            match front {
                Some(mut front) => while front.recv().await.is_some() {},
                None => std::future::pending().await,
            }
        };
        let told = tokio::select! {
            Some(signal) = signals.recv() => Some(format!("Got {signal}")),
            () = gone => Some("The front process is gone".to_owned()),
            () = self.live.ended() => None,
        };
        if let Some(why) = &told {
            voice.tell(format!(
                "{why}: ending; what is unsent is being sent. Once more ends it at once."
            ));
            let live = self.live.clone();
            let unmounted =
                tokio::task::spawn_blocking(move || live.unmount().or_else(|_| live.detach()));
            if let Ok(Err(error)) = unmounted.await {
                tracing::warn!(%error, "not unmounted; it will be dead when this process ends");
            }
        } else {
            tracing::info!("ending; what is unsent is being sent");
        }
        self.phase.send_replace(Phase::Finishing);
        let outcome = self.finish(told.is_some(), &mut signals, voice).await;
        match &outcome {
            Ok(()) => voice.tell("It is over; everything is in the bucket."),
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
        voice: &Voice,
    ) -> Outcome {
        let hurried = AtomicBool::new(signalled);
        // Never interrupted by the first signal: half a release is none.
        let mut work = Box::pin(self.send_and_release(&hurried, voice));
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                Some(signal) = signals.recv() => {
                    // The first one: from now on it may give up.
                    if hurried.swap(true, Relaxed) {
                        return Err(forced(signal, &self.live.progress()));
                    }
                }
            }
        }
    }

    async fn send_and_release(&self, hurried: &AtomicBool, voice: &Voice) -> Outcome {
        // Before anything is waited for: it may still write.
        self.live.unserve().await;
        loop {
            let sent = self
                .sync_until_stuck(|progress, stuck| {
                    voice.say(&Word::Progress(progress.clone()));
                    !(stuck && hurried.load(Relaxed))
                })
                .await;
            let outcome = match sent {
                Ok(()) => match self.live.close().await {
                    // A last write came between: it is waited for as what came before.
                    Err(failure) if failure.exit == Exit::Unsent => {
                        tokio::time::sleep(self.patience.tick).await;
                        continue;
                    }
                    closed => return closed.map_err(unreleased),
                },
                Err(failure) => Err(failure),
            };
            match outcome {
                Err(failure) if !hurried.load(Relaxed) && !is_final(failure.exit) => {
                    tracing::warn!("{failure}; trying again");
                    tokio::time::sleep(self.patience.tick).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Waits for everything written before to be in the bucket. `go_on` hears of progress
    /// at every tick, and whether it is stuck; it says whether to go on.
    async fn sync_until_stuck(&self, mut go_on: impl FnMut(&Progress, bool) -> bool) -> Outcome {
        let mut stall = Stall::new(self.live.progress(), self.patience);
        let mut ticks = interval(self.patience.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut sync = self.live.sync(SYNC_STEP);
            let failure = loop {
                tokio::select! {
                    outcome = &mut sync => match outcome {
                        Ok(()) => return Ok(()),
                        Err(failure) if is_final(failure.exit) => return Err(failure),
                        Err(failure) => break failure,
                    },
                    _ = ticks.tick() => {
                        let progress = self.live.progress();
                        let stuck = stall.is_stuck(&progress);
                        if !go_on(&progress, stuck) {
                            return Err(unsent(&progress));
                        }
                    }
                }
            };
            tracing::debug!(%failure, "sync is not through yet");
            ticks.tick().await;
            let progress = self.live.progress();
            let stuck = stall.is_stuck(&progress);
            if !go_on(&progress, stuck) {
                return Err(Failure { causes: failure.causes, ..unsent(&progress) });
            }
        }
    }
}

#[async_trait]
impl Answer for Life {
    fn report(&self) -> Report {
        let state = match *self.phase.borrow() {
            Phase::Usable if self.live.has_mount() => State::Mounted,
            Phase::Usable => State::Serving,
            Phase::Finishing | Phase::Ended(_) => State::Finishing,
        };
        Report { state, ..self.live.report() }
    }

    async fn sync(&self, progress: &mpsc::Sender<Reply>) -> Outcome {
        self.sync_until_stuck(|now, stuck| {
            // A client that does not read misses a word; one that is gone needs no answer.
            drop(progress.try_send(Reply::Progress(now.clone())));
            !stuck && !progress.is_closed()
        })
        .await
    }

    async fn umount(&self, progress: &mpsc::Sender<Reply>) -> Outcome {
        let mut phase = self.phase.subscribe();
        if *phase.borrow() == Phase::Usable {
            let live = self.live.clone();
            let mut unmounted = tokio::task::spawn_blocking(move || live.unmount());
            loop {
                // umount(2) returns only when the kernel has let go of every inode, which takes it seconds for a
                // million of them; the mount is over long before, and then so may be this life.
                tokio::select! {
                    done = &mut unmounted => {
                        done.unwrap_or_else(|error| Err(Failure::new(Exit::Other, error.to_string())))?;
                        break;
                    }
                    _ = phase.wait_for(|phase| *phase != Phase::Usable) => break,
                    () = tokio::time::sleep(self.patience.tick) => {
                        drop(progress.try_send(Reply::Progress(self.live.progress())));
                    }
                }
            }
        }
        let mut stall = Stall::new(self.live.progress(), self.patience);
        loop {
            // Ends at the latest when the life does: the sender is `self`'s.
            let ended = timeout(
                self.patience.tick,
                phase.wait_for(|phase| matches!(phase, Phase::Ended(_))),
            )
            .await;
            if let Ok(Ok(phase)) = ended
                && let Phase::Ended(outcome) = &*phase
            {
                return outcome.clone();
            }
            let now = self.live.progress();
            drop(progress.try_send(Reply::Progress(now.clone())));
            if stall.is_stuck(&now) {
                let mut failure = unsent(&now);
                failure.message.push_str(
                    "; it is not in use any more, and the daemon goes on trying: see `s3vault status`; \
                     `s3vault umount --force` or SIGKILL ends it",
                );
                return Err(failure);
            }
        }
    }

    async fn mount(&self, mountpoint: &Path, allow_other: bool) -> Outcome {
        self.is_usable()?;
        self.live.mount(mountpoint, allow_other).await?;
        self.is_usable()
    }

    async fn serve(&self, options: ServeOptions) -> Outcome {
        self.is_usable()?;
        self.live.serve(options).await?;
        // It may have begun to end meanwhile, after which nobody else would stop the service.
        let usable = self.is_usable();
        if usable.is_err() {
            self.live.unserve().await;
        }
        usable
    }

    async fn credentials(&self, given: Credentials) -> Outcome {
        // While it ends, too: what is unsent may wait for nothing else.
        self.live.credentials(given).await
    }

    async fn unserve(&self, progress: &mpsc::Sender<Reply>) -> Outcome {
        if !self.live.has_mount() {
            return self.umount(progress).await;
        }
        let mut ticks = interval(self.patience.tick);
        let mut unserved = self.live.unserve();
        loop {
            tokio::select! {
                was = &mut unserved => return match was {
                    true => Ok(()),
                    false => Err(Failure::new(Exit::NotMounted, "nothing is served there")),
                },
                // So that the client hears that we live.
                _ = ticks.tick() => drop(progress.try_send(Reply::Progress(self.live.progress()))),
            }
        }
    }
}

impl Life {
    fn is_usable(&self) -> Outcome {
        if *self.phase.borrow() == Phase::Usable {
            return Ok(());
        }
        let text =
            "it is just ending; wait until it is gone (see `s3vault status`), then try again";
        Err(Failure::new(Exit::MountedAlready, text))
    }
}

/// Notices that nothing moves.
struct Stall {
    patience: Patience,
    last: Progress,
    since: Instant,
}

impl Stall {
    fn new(last: Progress, patience: Patience) -> Self {
        Self { patience, last, since: Instant::now() }
    }

    fn is_stuck(&mut self, now: &Progress) -> bool {
        let of =
            |at: &Progress| (at.unsent_bytes, at.unsent_packs, at.unsent_changes, at.moved_bytes);
        let moved = of(now) != of(&self.last);
        self.last = now.clone();
        if moved {
            self.since = Instant::now();
        }
        let limit =
            if now.trouble.is_some() { self.patience.failing } else { self.patience.silent };
        self.since.elapsed() >= limit
    }
}

fn unsent(progress: &Progress) -> Failure {
    let text = format!(
        "{}; nothing is lost: it is sealed on this disk and is sent as soon as the store takes it",
        progress.describe()
    );
    Failure::new(Exit::Unsent, text)
}

fn unreleased(failure: Failure) -> Failure {
    let text = format!(
        "everything is in the bucket, but this machine's claim on the vault was not released ({}); nothing is lost; \
         the next mount here does it, another machine needs --take-over",
        failure.message
    );
    Failure { message: text, ..failure }
}

fn forced(signal: &str, progress: &Progress) -> Failure {
    let what = progress.describe();
    let text = format!(
        "ended at once by a second {signal}: {what}; the next mount of this vault here goes on with it"
    );
    Failure::new(Exit::Forced, text)
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
