//! What an operation may still do when its caller got a reply before the operation ended (V5).
//!
//! A caller is told within its deadline, whatever the operation waits for. The operation and its deadline are polled by
//! one task, so neither comes between two steps of the other that have no `await` between them: an operation that has
//! had no effect yet is dropped, and then its caller is told that it failed. One that has had an effect is not cut off in
//! the middle of what belongs to it; should its caller get a reply all the same, it has no further effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Error, Result};

tokio::task_local! {
    /// The request of a caller with a deadline that this task works for. Background work and HTTP have none.
    static REQUEST: Arc<State>;
}

/// A request whose caller gets a reply in time. A clone is the same request.
#[derive(Clone, Debug, Default)]
pub struct TimedRequest(Arc<State>);

#[derive(Debug, Default)]
struct State {
    has_effect: AtomicBool,
    is_answered: AtomicBool,
    due: Mutex<Option<Instant>>,
}

impl TimedRequest {
    /// `work` as the work of this request.
    pub fn run<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        REQUEST.scope(self.0.clone(), work)
    }

    /// Whether anything of it can be seen by others: then its caller must not be told that nothing happened.
    pub fn has_effect(&self) -> bool {
        self.0.has_effect.load(Ordering::Relaxed)
    }

    /// Its caller gets a reply in this moment: no further effect.
    pub fn answered(&self) {
        self.0.is_answered.store(true, Ordering::Relaxed);
    }

    /// When its caller is to get a reply at the latest, if a step of it asked for time of its own ([`takes`]).
    pub fn due(&self) -> Option<Instant> {
        *self.0.due.lock()
    }
}

/// The step that begins now, or goes on, has a deadline of its own, this long from now: the request that it is part of
/// (if it is part of one) gets no reply before. For what is long although all is well: a slow link that moves.
pub fn takes(time: Duration) {
    let due = Instant::now() + time;
    _ = REQUEST.try_with(|request| {
        let mut before = request.due.lock();
        *before = Some(before.map_or(due, |before| before.max(due)));
    });
}

/// To be asked right before each effect: no `await` between it and the effect.
pub(super) fn may_go_on() -> Result<()> {
    let is_answered = REQUEST.try_with(|request| request.is_answered.load(Ordering::Relaxed));
    if is_answered.unwrap_or(false) { Err(Error::Late) } else { Ok(()) }
}

/// To be said right after each effect: no `await` between them.
pub(super) fn took_effect() {
    _ = REQUEST.try_with(|request| request.has_effect.store(true, Ordering::Relaxed));
}
