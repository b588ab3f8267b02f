//! The time limits of a daemon's end, and what is said if it ends before everything is in the bucket.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::cli::daemon_report::describe_progress;
use crate::cli::exit::{Exit, Failure};
use crate::types::Progress;

/// The time limits of a lifecycle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndLimits {
    /// How often progress is reported, and a stall is checked for.
    pub(super) tick: Duration,
    /// Stuck: attempts fail, and nothing has moved for this long.
    pub(super) failing: Duration,
    /// Stuck: nothing has moved for this long, although nothing fails.
    pub(super) silent: Duration,
    /// After SIGTERM the daemon ends within this time, whatever moves: whoever sends SIGTERM (systemd, a shutdown)
    /// sends SIGKILL a little later.
    pub(super) stop: Duration,
    /// A signal that is repeated within this time counts once: systemd sends it to each process of a unit, and the
    /// front process passes its own on.
    pub(super) echo: Duration,
}

impl EndLimits {
    /// `failing`: longer than a request's deadline (30 s) plus a retry, so that one lost reply is no reason to give up.
    /// `silent`: one pack of 16 MiB through a link of 30 KB/s.
    pub(crate) fn usual(stop: Duration) -> Self {
        Self {
            tick: Duration::from_millis(500),
            failing: Duration::from_secs(90),
            silent: Duration::from_mins(10),
            stop,
            echo: Duration::from_secs(1),
        }
    }
}

/// The first signal, and the limit that it sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    signal: &'static str,
    came: Instant,
    limits: EndLimits,
}

impl Demand {
    /// A signal that came just now.
    pub(super) fn of(signal: &'static str, limits: EndLimits) -> Self {
        Self { signal, came: Instant::now(), limits }
    }

    /// Whether a signal that comes now is the same one again, by another way.
    pub(super) fn is_echo(&self, signal: &str) -> bool {
        self.signal == signal && self.came.elapsed() < self.limits.echo
    }

    /// How long the end may take. SIGINT comes from a user who watches and can send another.
    pub(super) fn limit(&self) -> Option<Duration> {
        (self.signal == "SIGTERM").then_some(self.limits.stop)
    }

    /// Returns when the time is up.
    pub(super) async fn over(&self) {
        match self.limit() {
            Some(limit) => sleep_until(self.came + limit).await,
            None => std::future::pending().await,
        }
    }

    /// The failure when the time is up.
    pub(super) fn out_of_time(&self, progress: &Progress) -> Failure {
        let limit = self.limits.stop.as_secs();
        if progress.is_done() {
            let text = format!("the store did not take it within {limit} s of {}", self.signal);
            return unreleased(Failure::new(Exit::Unreachable, text));
        }
        let failure = left(progress);
        let message = format!(
            "{}; given up {limit} s after {} (--stop-timeout)",
            failure.message, self.signal
        );
        Failure { message, ..failure }
    }
}

/// Notices that nothing moves.
pub(super) struct Stall {
    limits: EndLimits,
    last: Progress,
    since: Instant,
}

impl Stall {
    pub(super) fn new(last: Progress, limits: EndLimits) -> Self {
        Self { limits, last, since: Instant::now() }
    }

    pub(super) fn is_stuck(&mut self, now: &Progress) -> bool {
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

/// The failure that says what is missing, if the daemon goes on.
pub(super) fn unsent(progress: &Progress) -> Failure {
    let text = format!(
        "{}; nothing is lost: it is encrypted on this disk, and is sent as soon as the store takes it",
        describe_progress(progress)
    );
    Failure::new(Exit::Unsent, text)
}

/// The failure that says what is missing, if the daemon ends.
pub(super) fn left(progress: &Progress) -> Failure {
    let text = format!(
        "{}; nothing is lost: it is encrypted on this disk, and the next mount of this vault on this machine sends it",
        describe_progress(progress)
    );
    Failure::new(Exit::Unsent, text)
}

/// The failure of an `umount` that stops waiting. `why`: the limit that it waited for.
pub(super) fn not_waited_for(progress: &Progress, why: &str) -> Failure {
    let missing = match progress.is_done() {
        true => "everything is in the bucket, but the vault is not released yet".to_owned(),
        false => unsent(progress).message,
    };
    let text = format!(
        "{missing}; {why}: the vault is not in use any more, and its daemon goes on trying to send: see `s3vault status`; \
         `s3vault umount --force` or SIGKILL ends it"
    );
    Failure::new(Exit::Unsent, text)
}

pub(super) fn unreleased(failure: Failure) -> Failure {
    let text = format!(
        "everything is in the bucket, but this machine's claim on the vault was not released ({}); nothing is lost; \
         the next mount on this machine releases it; another machine needs --take-over",
        failure.message
    );
    Failure { message: text, ..failure }
}

pub(super) fn forced(signal: &str, progress: &Progress) -> Failure {
    let what = describe_progress(progress);
    let text = format!(
        "ended at once by a second {signal}: {what}; the next mount of this vault on this machine goes on with it"
    );
    Failure::new(Exit::Forced, text)
}
