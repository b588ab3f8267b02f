//! Who waits for the store, and in which order: requests that somebody waits for before those of the background, each
//! kind in the order in which it came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// So many of those who are waited for go before one of the background. It is slow then, and does not stand still: a
/// transfer that stands still is given up by the store.
const BEFORE: u32 = 7;

/// Whether somebody waits for a request. A clone is the same: one may become urgent while it is under way.
#[derive(Clone, Debug, Default)]
pub struct Urgency(Arc<AtomicBool>);

impl Urgency {
    /// Nobody waits for it.
    pub fn background() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Somebody waits for it after all.
    pub fn hurry(&self) {
        self.0.store(false, Relaxed);
    }

    pub(super) fn is_background(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// How long a request was held back on this side. It does not count against the store.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    /// Microseconds.
    past: AtomicU64,
    since: Mutex<Option<Instant>>,
}

impl HeldBack {
    /// In all, up to now.
    pub(super) fn total(&self) -> Duration {
        let now = self.since.lock().map_or(Duration::ZERO, |since| since.elapsed());
        Duration::from_micros(self.past.load(Relaxed)) + now
    }

    /// Whether it is held back now.
    pub(super) fn is_now(&self) -> bool {
        self.since.lock().is_some()
    }

    fn begin(&self) {
        self.since.lock().get_or_insert_with(Instant::now);
    }

    fn end(&self) {
        if let Some(since) = self.since.lock().take() {
            let passed = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.past.fetch_add(passed, Relaxed);
        }
    }
}

/// What is known of a request beside what it asks. It goes with the task that makes the request, past those who need not
/// know of it.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestContext {
    pub(super) urgency: Urgency,
    pub(super) held_back: Arc<HeldBack>,
}

tokio::task_local! {
    static REQUEST: RequestContext;
}

impl RequestContext {
    /// That of the request which this task makes.
    pub(super) fn current() -> Self {
        REQUEST.try_with(Clone::clone).unwrap_or_default()
    }

    /// Makes a request with it.
    pub(super) fn scope<F: Future>(self, request: F) -> impl Future<Output = F::Output> {
        REQUEST.scope(self, request)
    }
}

/// A place in a line.
#[derive(Debug)]
pub(super) struct LinePlace {
    background: bool,
    pub(super) wake: Notify,
}

/// Those who wait. The caller's lock guards it.
#[derive(Debug, Default)]
pub(super) struct Line {
    waited_for: VecDeque<Arc<LinePlace>>,
    background: VecDeque<Arc<LinePlace>>,
    /// So many went before one of the background that waits.
    passed: u32,
}

impl Line {
    /// Takes the last place of its kind.
    pub(super) fn join(&mut self, background: bool) -> Arc<LinePlace> {
        let place = Arc::new(LinePlace { background, wake: Notify::new() });
        self.of(background).push_back(place.clone());
        place
    }

    /// Whose turn it is; `only_waited_for`: of those.
    pub(super) fn head(&self, only_waited_for: bool) -> Option<&Arc<LinePlace>> {
        let (first, other) = (self.waited_for.front(), self.background.front());
        match (first, other) {
            (first, _) if only_waited_for => first,
            (Some(_), Some(_)) if self.passed >= BEFORE => other,
            (first, other) => first.or(other),
        }
    }

    /// It had its turn.
    pub(super) fn served(&mut self, place: &Arc<LinePlace>) {
        self.passed = match place.background {
            true => 0,
            false if self.background.is_empty() => 0,
            false => self.passed + 1,
        };
        self.leave(place);
    }

    /// Gives its place up.
    pub(super) fn leave(&mut self, place: &Arc<LinePlace>) {
        self.of(place.background).retain(|other| !Arc::ptr_eq(other, place));
    }

    fn of(&mut self, background: bool) -> &mut VecDeque<Arc<LinePlace>> {
        if background { &mut self.background } else { &mut self.waited_for }
    }
}

/// Counts as held back for as long as this lives.
pub(super) struct HoldingBack<'a>(&'a HeldBack);

impl<'a> HoldingBack<'a> {
    pub(super) fn begin(held_back: &'a HeldBack) -> Self {
        held_back.begin();
        Self(held_back)
    }
}

impl Drop for HoldingBack<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
