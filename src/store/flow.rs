//! A bandwidth limit for one direction: a token bucket that hands out pieces in the order of a [`Line`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::line::{HoldingBack, Line, LinePlace, RequestContext};
use crate::os;
use crate::types::RateSchedule;

/// How much unused time may be made up for: timers are late by a millisecond or two.
const BURST: Duration = Duration::from_millis(50);
/// Pieces in a second, within the limits below. A newcomer waits for about one piece, and a single transfer shows
/// progress this often.
const PIECES: u64 = 16;
const PIECE_MIN: u64 = 4 << 10;
/// The largest piece: it costs nothing, and is little on any link that carries more.
pub(super) const PIECE_MAX: u64 = 64 << 10;

/// The limit of one direction.
pub(super) struct Flow {
    state: Mutex<State>,
    /// The current second of the day.
    clock: Box<dyn Fn() -> u32 + Send + Sync>,
}

#[derive(Debug)]
struct State {
    schedule: RateSchedule,
    line: Line,
    /// When the pieces let through so far will have been sent at the current rate.
    busy_until: Instant,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.lock().fmt(f)
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::by_clock(os::second_of_day)
    }
}

/// What [`Flow::try_pass`] found.
enum PieceTry {
    Passed,
    /// It is the piece's turn, at this time.
    At(Instant),
    /// Others are before it.
    Behind,
}

impl Flow {
    pub(super) fn by_clock(clock: impl Fn() -> u32 + Send + Sync + 'static) -> Self {
        let schedule = RateSchedule::default();
        let state = State { schedule, line: Line::default(), busy_until: Instant::now() };
        Self { state: Mutex::new(state), clock: Box::new(clock) }
    }

    /// Sets the rate from now on.
    pub(super) fn set(&self, schedule: &RateSchedule) {
        let mut state = self.state.lock();
        state.schedule.clone_from(schedule);
        // What was let through at the old rate is one piece at most.
        state.busy_until = state.busy_until.min(Instant::now());
        state.wake_head();
    }

    fn rate_of(&self, state: &State) -> Option<u64> {
        if !state.schedule.varies() {
            return state.schedule.otherwise;
        }
        state.schedule.at((self.clock)())
    }

    /// The current limit in bytes a second, if there is one.
    pub(super) fn rate(&self) -> Option<u64> {
        self.rate_of(&self.state.lock())
    }

    /// How large a piece should be now; `None`: there is no limit.
    pub(super) fn piece(&self) -> Option<u64> {
        self.rate().map(|rate| (rate / PIECES).clamp(PIECE_MIN, PIECE_MAX))
    }

    /// Returns when a piece of `bytes` may go.
    pub(super) async fn pass(&self, bytes: u64, request: &RequestContext) {
        let place = {
            let mut state = self.state.lock();
            if self.rate_of(&state).is_none() {
                return;
            }
            state.line.join(request.urgency.is_background())
        };
        // Declared before `held`, so it ends only after `held` has left the line and woken the next.
        let _waiting = HoldingBack::begin(&request.held_back);
        let held = FlowPlace { flow: self, place };
        loop {
            let woken = held.place.wake.notified();
            match self.try_pass(&held.place, bytes) {
                PieceTry::Passed => return,
                PieceTry::Behind => woken.await,
                PieceTry::At(until) => tokio::select! {
                    () = woken => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Returns when `bytes` may have come, piece by piece.
    pub(super) async fn pass_all(&self, mut bytes: u64, request: &RequestContext) {
        while bytes > 0 {
            let Some(piece) = self.piece() else { return };
            let piece = piece.min(bytes);
            self.pass(piece, request).await;
            bytes -= piece;
        }
    }

    fn try_pass(&self, place: &Arc<LinePlace>, bytes: u64) -> PieceTry {
        let (mut state, now) = (self.state.lock(), Instant::now());
        if let Some(rate) = self.rate_of(&state) {
            if !state.line.head(false).is_some_and(|head| Arc::ptr_eq(head, place)) {
                return PieceTry::Behind;
            }
            if state.busy_until > now {
                return PieceTry::At(state.busy_until);
            }
            let begin = state.busy_until.max(now.checked_sub(BURST).unwrap_or(now));
            let takes = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
            state.busy_until = begin + takes;
        }
        state.line.served(place);
        state.wake_head();
        PieceTry::Passed
    }
}

impl State {
    fn wake_head(&self) {
        if let Some(head) = self.line.head(false) {
            head.wake.notify_one();
        }
    }
}

/// A place in the line, which is given up when its owner stops waiting.
struct FlowPlace<'a> {
    flow: &'a Flow,
    place: Arc<LinePlace>,
}

impl Drop for FlowPlace<'_> {
    fn drop(&mut self) {
        let mut state = self.flow.state.lock();
        state.line.leave(&self.place);
        state.wake_head();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

    use super::super::line::Urgency;
    use super::*;
    use crate::types::{KIB, MIB, RateWindow};

    fn at_rate(rate: u64) -> RateSchedule {
        RateSchedule { windows: Vec::new(), otherwise: Some(rate) }
    }

    fn flow(rate: u64) -> Arc<Flow> {
        let flow = Flow::by_clock(|| 0);
        flow.set(&at_rate(rate));
        Arc::new(flow)
    }

    /// Sends `bytes`, and counts them as they go.
    fn send(flow: &Arc<Flow>, bytes: u64, urgency: Urgency) -> Arc<AtomicU64> {
        let gone = Arc::new(AtomicU64::new(0));
        let (flow, count) = (flow.clone(), gone.clone());
        let request = RequestContext { urgency, ..RequestContext::default() };
        tokio::spawn(async move {
            let mut left = bytes;
            while left > 0 {
                let piece = flow.piece().unwrap_or(PIECE_MAX).min(left);
                flow.pass(piece, &request).await;
                count.fetch_add(piece, Relaxed);
                left -= piece;
            }
        });
        gone
    }

    async fn after(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    fn near(count: &AtomicU64, expected: u64) {
        let count = count.load(Relaxed);
        assert!(count.abs_diff(expected) <= expected / 10, "{count} of {expected}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_as_fast_as_it_may_be_and_those_who_send_share_it() {
        for rate in [16 * KIB, 100 * KIB, 10 * MIB, 1000 * MIB] {
            let flow = flow(rate);
            let (one, other) = (
                send(&flow, 100 * rate, Urgency::default()),
                send(&flow, 100 * rate, Urgency::default()),
            );
            after(10).await;
            near(&one, 5 * rate);
            near(&other, 5 * rate);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_first_and_the_background_does_not_stand_still() {
        let flow = flow(64 * KIB);
        let behind = send(&flow, 100 * MIB, Urgency::background());
        after(10).await;
        near(&behind, 640 * KIB); // nobody else is there
        let before = behind.load(Relaxed);
        let first = send(&flow, 100 * MIB, Urgency::default());
        after(10).await;
        near(&first, 560 * KIB);
        let slow = behind.load(Relaxed) - before;
        assert!((70 * KIB..100 * KIB).contains(&slow), "{slow}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_waited_for_after_all_is_hurried() {
        let flow = flow(64 * KIB);
        let urgency = Urgency::background();
        let (hurried, other) =
            (send(&flow, 100 * MIB, urgency.clone()), send(&flow, 100 * MIB, Urgency::default()));
        after(1).await;
        urgency.hurry();
        let before = (hurried.load(Relaxed), other.load(Relaxed));
        after(10).await;
        near(&AtomicU64::new(hurried.load(Relaxed) - before.0), 320 * KIB);
        near(&AtomicU64::new(other.load(Relaxed) - before.1), 320 * KIB);
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_counts_at_once_and_who_gives_up_holds_nobody() {
        let flow = flow(16 * KIB);
        let count = send(&flow, 1000 * MIB, Urgency::default());
        after(5).await;
        near(&count, 80 * KIB);
        flow.set(&at_rate(10 * MIB));
        after(1).await;
        near(&count, 10 * MIB);
        let request = RequestContext::default();
        let given_up = tokio::time::timeout(Duration::from_micros(10), flow.pass(64, &request));
        given_up.await.unwrap_err();
        flow.set(&RateSchedule::default());
        after(1).await;
        assert_eq!(count.load(Relaxed), 1000 * MIB);
        assert!(flow.state.lock().line.head(false).is_none());
        assert!(!request.held_back.is_now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_the_day_decides_and_what_was_held_back_is_counted() {
        let clock = Arc::new(AtomicU32::new(7 * 3600));
        let shown = clock.clone();
        let flow = Arc::new(Flow::by_clock(move || shown.load(Relaxed)));
        let window = RateWindow { from: 8 * 3600, until: 18 * 3600, rate: Some(MIB) };
        flow.set(&RateSchedule { windows: vec![window], otherwise: None });
        let request = RequestContext::default();
        let begun = Instant::now();
        flow.pass_all(100 * MIB, &request).await;
        assert_eq!((begun.elapsed(), request.held_back.total()), Default::default());
        clock.store(12 * 3600, Relaxed);
        flow.pass_all(5 * MIB, &request).await;
        let (took, held) = (begun.elapsed(), request.held_back.total());
        assert!((4.5..5.1).contains(&took.as_secs_f64()), "{took:?}");
        assert!(took.abs_diff(held) < Duration::from_millis(20), "{took:?} {held:?}");
    }
}
