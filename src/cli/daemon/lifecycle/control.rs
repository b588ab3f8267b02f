//! The requests of the control socket, as the lifecycle's phase allows.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};

use super::super::spec::Credentials;
use super::ending::{Stall, not_waited_for};
use super::{Lifecycle, Phase, UNMOUNT, answer};
use crate::cli::control::{AsideRecovery, ControlHandler, ControlReply, FilesPlace, PathRestore};
use crate::cli::daemon_report::{DaemonReport, State};
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::keys::KeysAsked;
use crate::cli::limits::LimitWords;
use crate::cli::mount_look::MountLook;
use crate::cli::old_states::OldStates;
use crate::gateway::ServeOptions;
use crate::types::Progress;

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
            // A client that does not read misses a report; one that is gone needs none.
            drop(progress.try_send(ControlReply::Progress(now.clone())));
            !stuck && !progress.is_closed() && !matches!(*self.phase.borrow(), Phase::Ended(_))
        })
        .await
    }

    async fn umount(
        &self,
        within: Option<Duration>,
        progress: &mpsc::Sender<ControlReply>,
    ) -> CliResult {
        // A limit that is too far away counts as none.
        let until = within.and_then(|within| Instant::now().checked_add(within));
        let begun = Instant::now();
        let late = |now: &Progress| match (until, within) {
            (Some(until), Some(within)) if Instant::now() >= until => {
                let why = format!("{} s are over (--timeout)", within.as_secs());
                Err(not_waited_for(now, &why))
            }
            _ => Ok(()),
        };
        let tick = || {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            self.limits.tick.min(left.unwrap_or(Duration::MAX))
        };
        let mut phase = self.phase.subscribe();
        if *phase.borrow() == Phase::Usable {
            let vault = self.vault.clone();
            let mut unmounted = tokio::task::spawn_blocking(move || vault.unmount());
            loop {
                // umount(2) returns only when the kernel has dropped every inode, which takes seconds for a million of
                // them. The mount has ended long before, and perhaps this lifecycle, too.
                tokio::select! {
                    done = &mut unmounted => {
                        done.unwrap_or_else(|error| Err(Failure::new(Exit::Other, error.to_string())))?;
                        break;
                    }
                    _ = phase.wait_for(|phase| *phase != Phase::Usable) => break,
                    () = tokio::time::sleep(self.limits.tick) => {
                        let now = self.vault.progress();
                        drop(progress.try_send(ControlReply::Progress(now.clone())));
                        // Enough time to learn that files are open.
                        if begun.elapsed() >= UNMOUNT {
                            late(&now)?;
                        }
                    }
                }
            }
        }
        let mut stall = Stall::new(self.vault.progress(), self.limits);
        loop {
            // This wait ends no later than the lifecycle, since `self` owns the sender.
            let ended =
                timeout(tick(), phase.wait_for(|phase| matches!(phase, Phase::Ended(_)))).await;
            if let Ok(Ok(phase)) = ended
                && let Phase::Ended(outcome) = &*phase
            {
                return outcome.clone();
            }
            let now = self.vault.progress();
            drop(progress.try_send(ControlReply::Progress(now.clone())));
            late(&now)?;
            if stall.is_stuck(&now) {
                return Err(not_waited_for(&now, "nothing moves any more"));
            }
        }
    }

    async fn leave(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult {
        let mut phase = self.phase.subscribe();
        loop {
            if self.is_joined() {
                return ControlHandler::sync(self, progress).await;
            }
            tokio::select! {
                closed = self.files.closed_by_the_last(|| self.is_joined()) => {
                    if closed {
                        break;
                    }
                }
                _ = phase.wait_for(|phase| *phase != Phase::Usable) => break,
                () = tokio::time::sleep(self.limits.tick) => {
                    drop(progress.try_send(ControlReply::Progress(self.vault.progress())));
                }
            }
        }
        let done = self.umount(None, progress).await;
        if done.is_err() && *self.phase.borrow() == Phase::Usable {
            self.files.reopen();
        }
        done
    }

    async fn mount(&self, mountpoint: &Path, look: &MountLook) -> CliResult {
        let _place = self.joining()?;
        self.vault.mount(mountpoint, look).await?;
        self.is_usable()
    }

    async fn serve(&self, options: ServeOptions) -> CliResult {
        let _place = self.joining()?;
        self.vault.serve(options).await?;
        // The end may have begun meanwhile; then nobody else would stop the service.
        let usable = self.is_usable();
        if usable.is_err() {
            self.vault.unserve().await;
        }
        usable
    }

    async fn credentials(&self, given: Credentials) -> CliResult {
        // Allowed during the end, too: what is unsent may be waiting for just this.
        self.vault.credentials(given).await
    }

    async fn tune(&self, said: LimitWords) -> CliResult {
        // Allowed during the end, too: it may be waiting for just this.
        self.vault.tune(said).await
    }

    async fn old_states(&self, what: OldStates, told: &mpsc::Sender<ControlReply>) -> CliResult {
        let work = self.vault.old_states(what);
        answer::told(work, self.limits.tick, || self.vault.progress(), told).await
    }

    async fn keys(&self, what: KeysAsked, told: &mpsc::Sender<ControlReply>) -> CliResult {
        self.is_usable()?;
        let work = self.vault.keys(what);
        answer::told(work, self.limits.tick, || self.vault.progress(), told).await
    }

    async fn history(&self, path: &Path, told: &mpsc::Sender<ControlReply>) -> CliResult {
        self.is_usable()?;
        self.while_told(self.vault.history(path, told), told).await
    }

    async fn restore(&self, what: PathRestore, told: &mpsc::Sender<ControlReply>) -> CliResult {
        self.is_usable()?;
        self.while_told(self.vault.restore(what, told), told).await
    }

    async fn recover(&self, what: AsideRecovery, told: &mpsc::Sender<ControlReply>) -> CliResult {
        self.is_usable()?;
        self.while_told(self.vault.recover(what, told), told).await
    }

    fn files(&self) -> CliResult<FilesPlace> {
        self.is_usable()?;
        match self.files.take() {
            Some(place) => Ok(Box::new(place)),
            None => {
                let text = "too many commands work on this vault's files at once; wait until one has ended, and try again";
                Err(Failure::new(Exit::Busy, text))
            }
        }
    }

    async fn serve_files(&self, stream: UnixStream, umask: u32, place: FilesPlace) {
        let mut phase = self.phase.subscribe();
        tokio::select! {
            () = self.vault.serve_files(stream, umask) => {}
            // Operations under way have no effect after this; the end of the connection tells the client.
            _ = phase.wait_for(|phase| *phase != Phase::Usable) => {}
        }
        drop(place);
    }

    async fn unserve(&self, progress: &mpsc::Sender<ControlReply>) -> CliResult {
        if !self.is_joined() {
            return self.leave(progress).await;
        }
        if !self.vault.has_mount() {
            return self.umount(None, progress).await;
        }
        let mut ticks = interval(self.limits.tick);
        let mut unserved = self.vault.unserve();
        loop {
            tokio::select! {
                was = &mut unserved => return match was {
                    true => Ok(()),
                    false => Err(Failure::new(Exit::NotMounted, "nothing is served there")),
                },
                // This tells the client that we are alive.
                _ = ticks.tick() => drop(progress.try_send(ControlReply::Progress(self.vault.progress()))),
            }
        }
    }
}

impl Lifecycle {
    /// Does work that may take long, while the client is told that we are alive. The work is not cut off when the
    /// client goes away: it checks for that itself, where it holds nothing (a file being restored is open until then).
    async fn while_told(
        &self,
        work: impl Future<Output = CliResult> + Send,
        told: &mpsc::Sender<ControlReply>,
    ) -> CliResult {
        let mut work = Box::pin(work);
        let mut ticks = interval(self.limits.tick);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = ticks.tick() => drop(told.try_send(ControlReply::Progress(self.vault.progress()))),
            }
        }
    }

    /// A place for somebody who mounts or serves, so that a daemon that was started for a command does not end
    /// meanwhile.
    fn joining(&self) -> CliResult<impl Send + use<>> {
        self.is_usable()?;
        self.files.join().ok_or_else(is_ending)
    }

    fn is_usable(&self) -> CliResult {
        if *self.phase.borrow() == Phase::Usable && !self.files.is_closed() {
            return Ok(());
        }
        Err(is_ending())
    }
}

fn is_ending() -> Failure {
    let text = "the daemon of this vault is just ending; wait until it is gone (see `s3vault status`), then try again";
    Failure::new(Exit::MountedAlready, text)
}
