//! Limits how many requests are under way at once.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::error::Result;
use super::line::{HoldingBack, Line, LinePlace, RequestContext};
use super::object::{Begin, Body, Fetched, HeadReply, Listing, Put, PutReply, Store};

/// Places for requests. A put may take long, and nobody waits for background requests. So these together leave one
/// place free: a read never waits for a pack to go through a slow link.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    max: Option<u32>,
    busy: u32,
    /// How many of the busy places hold puts or background requests.
    long: u32,
    line: Line,
}

impl State {
    fn head(&self) -> Option<&Arc<LinePlace>> {
        let max = self.max.unwrap_or(u32::MAX);
        let only_reads = self.long >= max.saturating_sub(1).max(1);
        (self.busy < max).then(|| self.line.head(only_reads)).flatten()
    }

    fn wake_head(&self) {
        if let Some(head) = self.head() {
            head.wake.notify_one();
        }
    }
}

impl Slots {
    /// Sets the number of places; requests under way go on.
    pub(super) fn set(&self, max: Option<u32>) {
        let mut state = self.0.lock();
        state.max = max;
        state.wake_head();
    }

    /// Waits for a place.
    async fn take(&self, long: bool) -> RequestSlot<'_> {
        let request = RequestContext::current();
        let mut slot = RequestSlot { slots: self, place: None, long: None };
        let place = {
            let mut state = self.0.lock();
            let long = long || request.urgency.is_background();
            let place = state.line.join(long);
            slot.place = Some((place.clone(), long));
            place
        };
        let _waiting = HoldingBack::begin(&request.held_back);
        loop {
            let woken = place.wake.notified();
            if slot.fill(&place) {
                return slot;
            }
            woken.await;
        }
    }
}

/// A place that is waited for, or taken.
struct RequestSlot<'a> {
    slots: &'a Slots,
    /// Its place in the line, and whether it is for a long request.
    place: Option<(Arc<LinePlace>, bool)>,
    /// Whether it is taken for a long request; `None`: not taken.
    long: Option<bool>,
}

impl RequestSlot<'_> {
    fn fill(&mut self, place: &Arc<LinePlace>) -> bool {
        let mut state = self.slots.0.lock();
        let is_mine = state.head().is_some_and(|head| Arc::ptr_eq(head, place));
        if is_mine && let Some((_, long)) = self.place.take() {
            state.line.served(place);
            state.busy += 1;
            state.long += u32::from(long);
            self.long = Some(long);
            state.wake_head();
        }
        is_mine
    }
}

impl Drop for RequestSlot<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.0.lock();
        if let Some((place, _)) = &self.place {
            state.line.leave(place);
        }
        if let Some(long) = self.long {
            state.busy -= 1;
            state.long -= u32::from(long);
        }
        state.wake_head();
    }
}

/// A store with a limited number of requests at once.
#[derive(Debug)]
pub(super) struct Slotted {
    inner: Arc<dyn Store>,
    slots: Arc<Slots>,
}

impl Slotted {
    pub(super) fn over(inner: Arc<dyn Store>, slots: Arc<Slots>) -> Self {
        Self { inner, slots }
    }
}

#[async_trait]
impl Store for Slotted {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        let _slot = self.slots.take(true).await;
        self.inner.put(name, body, condition).await
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        let _slot = self.slots.take(false).await;
        self.inner.get(name, range).await
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        let _slot = self.slots.take(false).await;
        self.inner.head(name).await
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        let _slot = self.slots.take(false).await;
        self.inner.list(prefix, begin).await
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        let _slot = self.slots.take(false).await;
        self.inner.delete(names).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::line::Urgency;
    use super::*;

    fn slots(max: u32) -> Slots {
        let slots = Slots::default();
        slots.set(Some(max));
        slots
    }

    #[tokio::test]
    async fn reads_find_a_place_beside_puts_and_the_background() {
        let slots = slots(3);
        let (one, two) = (slots.take(true).await, slots.take(true).await);
        assert!(slots.take(true).now_or_never().is_none(), "the last place is for reads");
        let behind = RequestContext { urgency: Urgency::background(), ..Default::default() };
        assert!(behind.scope(slots.take(false)).now_or_never().is_none());
        let read = slots.take(false).now_or_never().unwrap();
        assert!(slots.take(false).now_or_never().is_none(), "three are three");
        drop((one, read));
        let put = slots.take(true).now_or_never().unwrap();
        assert!(slots.take(true).now_or_never().is_none());
        drop((two, put));
        let state = slots.0.lock();
        assert_eq!((state.busy, state.long), (0, 0));
        assert!(state.line.head(false).is_none());
    }

    #[tokio::test]
    async fn who_waits_is_served_in_turn_and_by_a_larger_number_at_once() {
        let slots = Arc::new(slots(2));
        let held = (slots.take(false).await, slots.take(false).await);
        let (told, mut served) = tokio::sync::mpsc::unbounded_channel();
        for long in [true, false, true, false] {
            let (slots, told) = (slots.clone(), told.clone());
            tokio::spawn(async move {
                let slot = slots.take(long).await;
                told.send(long).unwrap();
                tokio::task::yield_now().await;
                drop(slot);
            });
            tokio::task::yield_now().await;
        }
        assert!(served.try_recv().is_err());
        drop(held.0);
        let mut order = Vec::new();
        for _ in 0..2 {
            order.push(served.recv().await.unwrap());
        }
        assert_eq!(order, [false, false], "reads first");
        slots.set(None);
        for _ in 0..2 {
            assert!(served.recv().await.unwrap());
        }
        drop(held.1);
        let unlimited: Vec<_> =
            (0..100).map(|_| slots.take(true).now_or_never().unwrap()).collect();
        assert_eq!(unlimited.len(), 100);
    }
}
