//! What an operation may still do after its caller has got a reply (V5).
//!
//! A caller gets a reply within its deadline, whatever the operation waits for. One task polls both the operation and
//! its deadline, so the deadline never strikes between two steps of the operation that have no `await` between them. An
//! operation without an effect so far is dropped, and only then is its caller told that it failed. An operation that
//! has had an effect is not cut off in the middle; if its caller gets a reply before it ends, it has no further effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Error, Result};

tokio::task_local! {
    /// The request, of a caller with a deadline, that this task works for. Background work and HTTP have none.
    static REQUEST: Arc<State>;
}

/// A request with a deadline for its reply. Clones are the same request.
#[derive(Clone, Debug, Default)]
pub struct TimedRequest(Arc<State>);

#[derive(Debug, Default)]
struct State {
    has_effect: AtomicBool,
    is_answered: AtomicBool,
    due: Mutex<Option<Instant>>,
}

impl TimedRequest {
    /// Runs `work` as the work of this request.
    pub fn run<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        REQUEST.scope(self.0.clone(), work)
    }

    /// Whether others can see anything of it yet. If so, its caller must not be told that nothing happened.
    pub fn has_effect(&self) -> bool {
        self.0.has_effect.load(Ordering::Relaxed)
    }

    /// The caller gets its reply now: the operation has no further effect.
    pub fn answered(&self) {
        self.0.is_answered.store(true, Ordering::Relaxed);
    }

    /// The latest time for the reply, if a step has asked for time of its own ([`extend_deadline`]).
    pub fn due(&self) -> Option<Instant> {
        *self.0.due.lock()
    }
}

/// Gives the step that begins or goes on now a deadline of its own, this long from now: the request that it belongs to,
/// if any, gets no reply before. For steps that take long although all is well, such as on a slow link that moves.
pub fn extend_deadline(time: Duration) {
    let due = Instant::now() + time;
    _ = REQUEST.try_with(|request| {
        let mut before = request.due.lock();
        *before = Some(before.map_or(due, |before| before.max(due)));
    });
}

/// Call right before each effect, with no `await` between this and the effect.
pub(super) fn may_go_on() -> Result<()> {
    let is_answered = REQUEST.try_with(|request| request.is_answered.load(Ordering::Relaxed));
    if is_answered.unwrap_or(false) { Err(Error::Late) } else { Ok(()) }
}

/// Call right after each effect, with no `await` in between.
pub(super) fn took_effect() {
    _ = REQUEST.try_with(|request| request.has_effect.store(true, Ordering::Relaxed));
}
