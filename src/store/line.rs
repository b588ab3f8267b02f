//! Who waits for the store, and in which order: requests that somebody waits for come before those in the background,
//! and each kind in order of arrival.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many requests that somebody waits for may go before a background one. The background is slow then, but does not
/// stand still: the store gives up a transfer that does.
const BEFORE: u32 = 7;

/// Whether somebody waits for a request. Clones share it: a request may become urgent while it is under way.
#[derive(Clone, Debug, Default)]
pub struct Urgency(Arc<AtomicBool>);

impl Urgency {
    /// For a request that nobody waits for.
    pub fn background() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Marks that somebody waits for it after all.
    pub fn hurry(&self) {
        self.0.store(false, Relaxed);
    }

    pub(super) fn is_background(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// How long a request was held back on this side. That time does not count against the store.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    /// Microseconds.
    past: AtomicU64,
    since: Mutex<Option<Instant>>,
}

impl HeldBack {
    /// The total up to now.
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

/// What is known of a request besides its content. It goes with the task that makes the request, so that the layers
/// between need not pass it on.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestContext {
    pub(super) urgency: Urgency,
    pub(super) held_back: Arc<HeldBack>,
}

tokio::task_local! {
    static REQUEST: RequestContext;
}

impl RequestContext {
    /// The context of the request that this task makes.
    pub(super) fn current() -> Self {
        REQUEST.try_with(Clone::clone).unwrap_or_default()
    }

    /// Makes a request with this context.
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
    /// How many went before a waiting background request.
    passed: u32,
}

impl Line {
    /// Takes the last place of its kind.
    pub(super) fn join(&mut self, background: bool) -> Arc<LinePlace> {
        let place = Arc::new(LinePlace { background, wake: Notify::new() });
        self.of(background).push_back(place.clone());
        place
    }

    /// Whose turn it is; with `only_waited_for`, among those that somebody waits for.
    pub(super) fn head(&self, only_waited_for: bool) -> Option<&Arc<LinePlace>> {
        let (first, other) = (self.waited_for.front(), self.background.front());
        match (first, other) {
            (first, _) if only_waited_for => first,
            (Some(_), Some(_)) if self.passed >= BEFORE => other,
            (first, other) => first.or(other),
        }
    }

    /// Notes that this place had its turn, and removes it.
    pub(super) fn served(&mut self, place: &Arc<LinePlace>) {
        self.passed = match place.background {
            true => 0,
            false if self.background.is_empty() => 0,
            false => self.passed + 1,
        };
        self.leave(place);
    }

    /// Gives up a place.
    pub(super) fn leave(&mut self, place: &Arc<LinePlace>) {
        self.of(place.background).retain(|other| !Arc::ptr_eq(other, place));
    }

    fn of(&mut self, background: bool) -> &mut VecDeque<Arc<LinePlace>> {
        if background { &mut self.background } else { &mut self.waited_for }
    }
}

/// As long as this lives, the request counts as held back.
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
