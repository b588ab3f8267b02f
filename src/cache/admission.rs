//! Admits fetches to a bounded memory: first those that somebody waits for.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Who is admitted first. Within one priority: in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Somebody waits for the fetch.
    Now,
    /// Somebody will probably ask for it. Such fetches get no more than half of the memory, and only while nobody
    /// waits.
    Later,
}

/// A number of units of memory. It is a semaphore with priorities, in which a small request never overtakes a large
/// one.
#[derive(Debug)]
pub(super) struct Admission(Mutex<State>);

#[derive(Debug)]
struct State {
    units: u32,
    free: u32,
    queues: [VecDeque<Waiter>; 2],
}

#[derive(Debug)]
struct Waiter {
    units: u32,
    admitted: oneshot::Sender<Admitted>,
}

/// Units that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Arc<Admission>,
    units: u32,
}

impl Admission {
    pub(super) fn new(units: u32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { units, free: units, queues: Default::default() })))
    }

    pub(super) fn free(&self) -> u32 {
        self.0.lock().free
    }

    /// Waits for `units`, which must not exceed the total. If a caller stops waiting, its place in the queue is
    /// removed when the next one comes or goes. Always `Some` in the end.
    pub(super) async fn admit(
        self: &Arc<Self>,
        units: u32,
        priority: Priority,
    ) -> Option<Admitted> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.0.lock();
            state.queues[priority as usize].push_back(Waiter { units, admitted: sender });
            self.serve(&mut state);
        }
        receiver.await.ok()
    }

    /// Serves each queue strictly in order: if small requests could overtake, a large one would wait for ever.
    fn serve(self: &Arc<Self>, state: &mut State) {
        for priority in [Priority::Now, Priority::Later] {
            let queue = &mut state.queues[priority as usize];
            while let Some(first) = queue.front() {
                if first.admitted.is_closed() {
                    queue.pop_front();
                    continue;
                }
                // A request for more than half is admitted when it is alone.
                let kept = if priority == Priority::Later { state.units / 2 } else { 0 };
                let is_alone = state.free == state.units;
                if first.units.saturating_add(kept) > state.free && !is_alone {
                    return;
                }
                let Some(Waiter { units, admitted }) = queue.pop_front() else { return };
                state.free -= units;
                if let Err(refused) = admitted.send(Admitted { admission: self.clone(), units }) {
                    // Dropping it would lock this very state.
                    state.free += refused.into_units();
                }
            }
        }
    }
}

impl Admitted {
    fn into_units(mut self) -> u32 {
        std::mem::take(&mut self.units)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.units > 0 {
            let mut state = self.admission.0.lock();
            state.free += self.units;
            self.admission.serve(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_is_waited_for_comes_first_and_nobody_overtakes_who_needs_much() {
        let admission = Admission::new(4);
        let all = admission.admit(4, Priority::Later).now_or_never().flatten().unwrap();
        let take = |units, priority| {
            let admission = admission.clone();
            Box::pin(async move { admission.admit(units, priority).await })
        };
        let mut later = take(1, Priority::Later);
        let mut gone = take(4, Priority::Now);
        let mut much = take(3, Priority::Now);
        let mut little = take(2, Priority::Now);
        for waiter in [&mut later, &mut gone, &mut much, &mut little] {
            assert!(waiter.now_or_never().is_none());
        }
        drop(gone);
        drop(all);
        let much = much.as_mut().now_or_never().flatten().unwrap();
        assert!(
            little.as_mut().now_or_never().is_none() && later.as_mut().now_or_never().is_none()
        );
        drop(much);
        let little = little.as_mut().now_or_never().flatten().unwrap();
        assert!(later.as_mut().now_or_never().is_none(), "half of it is for those who wait");
        drop(little);
        let later = later.as_mut().now_or_never().flatten().unwrap();
        assert_eq!(admission.free(), 3);
        drop(later);
        assert_eq!(admission.free(), 4);
    }

    #[test]
    fn memory_that_was_given_to_one_who_does_not_take_it_comes_back() {
        let admission = Admission::new(1);
        let admitted = admission.admit(1, Priority::Now).now_or_never().flatten().unwrap();
        let mut waits = Box::pin(admission.admit(1, Priority::Now));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(admitted);
        assert_eq!(admission.free(), 0, "it is the other's");
        drop(waits);
        assert_eq!(admission.free(), 1);
    }
}
