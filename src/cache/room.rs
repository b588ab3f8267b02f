//! Room in memory for what is fetched, given to those first for whom somebody waits.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Who is served first; within one of them, who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Somebody waits for it.
    Now,
    /// It will probably be asked for: it takes no more than half of the room, and that when nobody waits.
    Later,
}

/// So many units of room.
#[derive(Debug)]
pub(super) struct Room(Mutex<State>);

#[derive(Debug)]
struct State {
    units: u32,
    free: u32,
    queues: [VecDeque<Waiter>; 2],
}

#[derive(Debug)]
struct Waiter {
    units: u32,
    place: oneshot::Sender<Place>,
}

/// Room that is taken, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    units: u32,
}

impl Room {
    pub(super) fn new(units: u32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { units, free: units, queues: Default::default() })))
    }

    pub(super) fn free(&self) -> u32 {
        self.0.lock().free
    }

    /// Waits for room; `units` are no more than there are in all. Who stops waiting has left the queue when the next
    /// one comes or goes. There is always a place in the end.
    pub(super) async fn take(self: &Arc<Self>, units: u32, turn: Turn) -> Option<Place> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.0.lock();
            state.queues[turn as usize].push_back(Waiter { units, place: sender });
            self.serve(&mut state);
        }
        receiver.await.ok()
    }

    /// Nobody overtakes within a queue: who needs much would wait for ever.
    fn serve(self: &Arc<Self>, state: &mut State) {
        for turn in [Turn::Now, Turn::Later] {
            let queue = &mut state.queues[turn as usize];
            while let Some(first) = queue.front() {
                if first.place.is_closed() {
                    queue.pop_front();
                    continue;
                }
                // One that needs more than half has its turn when it is alone.
                let kept = if turn == Turn::Later { state.units / 2 } else { 0 };
                let is_alone = state.free == state.units;
                if first.units.saturating_add(kept) > state.free && !is_alone {
                    return;
                }
                let Some(Waiter { units, place }) = queue.pop_front() else { return };
                state.free -= units;
                if let Err(refused) = place.send(Place { room: self.clone(), units }) {
                    // Its drop would lock this very state.
                    state.free += refused.into_units();
                }
            }
        }
    }
}

impl Place {
    fn into_units(mut self) -> u32 {
        std::mem::take(&mut self.units)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.units > 0 {
            let mut state = self.room.0.lock();
            state.free += self.units;
            self.room.serve(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_is_waited_for_comes_first_and_nobody_overtakes_who_needs_much() {
        let room = Room::new(4);
        let all = room.take(4, Turn::Later).now_or_never().flatten().unwrap();
        let take = |units, turn| {
            let room = room.clone();
            Box::pin(async move { room.take(units, turn).await })
        };
        let mut later = take(1, Turn::Later);
        let mut gone = take(4, Turn::Now);
        let mut much = take(3, Turn::Now);
        let mut little = take(2, Turn::Now);
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
        assert_eq!(room.free(), 3);
        drop(later);
        assert_eq!(room.free(), 4);
    }

    #[test]
    fn room_that_was_given_to_one_who_does_not_take_it_comes_back() {
        let room = Room::new(1);
        let place = room.take(1, Turn::Now).now_or_never().flatten().unwrap();
        let mut waits = Box::pin(room.take(1, Turn::Now));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(place);
        assert_eq!(room.free(), 0, "it is the other's");
        drop(waits);
        assert_eq!(room.free(), 1);
    }
}
