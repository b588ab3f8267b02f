//! How far ahead of a sequential reader to fetch, and what is fetched for it already.
//!
//! The kernel asks for 128 KiB at a time, so the read-ahead is ours. A file is followed at a few
//! places at once (it may have several readers). Each place grows its window while it is read in
//! order, and loses it when it is not: a random reader costs nothing but what it asks for.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::File;
use super::chunks;
use crate::cache::{Cache, Flight, PIECE};
use crate::types::{Extent, MIB};
use crate::upload::{Staging, pack_object};

/// Places of one file that are followed at once.
const PLACES: usize = 4;
/// How far from where it is expected a read may begin and still be in order: four times its
/// length, as the kernel's requests overtake each other, within these limits.
const SLACK: u64 = MIB;
const SLACK_MIN: u64 = MIB / 16;
/// The first window, and the step below which nothing is fetched.
const WINDOW_MIN: u64 = MIB;
/// No reader gains by more: at 30 ms it is 2 GiB/s.
const WINDOW_MAX: u64 = 64 * MIB;
/// The window is this many times what was read in order.
const GROWTH: u64 = 4;
/// Windows of files that were not read for so long give their room to others.
const IDLE: Duration = Duration::from_secs(2);

/// A place at which a file is read in order.
#[derive(Debug)]
struct Place {
    /// Where the furthest read ended: the next one is expected here.
    front: u64,
    /// Bytes read in order.
    run: u64,
    /// Up to here fetches were begun.
    planned: u64,
    /// What was fetched and is not yet used up: (file offset at which it is, flight).
    held: VecDeque<(u64, Arc<Flight>)>,
    /// Wants a share of the room, whether it got one or not.
    eager: bool,
    /// Its share when it last asked, in bytes.
    share: u64,
    used: Instant,
}

impl Place {
    /// Is a read of `range` one of those that follow each other here?
    fn expects(&self, range: &Range<u64>) -> bool {
        let slack = ((range.end - range.start).saturating_mul(4)).clamp(SLACK_MIN, SLACK);
        range.start <= self.front.saturating_add(slack)
            && range.start.saturating_add(slack) >= self.front
    }

    /// How far fetches should reach once `range` is read.
    fn target(&self, range: &Range<u64>) -> u64 {
        let run = self.run.saturating_add(range.end - range.start);
        let window = run.saturating_mul(GROWTH).clamp(WINDOW_MIN, self.share);
        self.front.max(range.end).saturating_add(window)
    }

    /// Lets go of the furthest that it holds, down to `share` bytes. What has landed is on disk by then, or is
    /// fetched again when the reader comes near.
    fn shed(&mut self, share: u64, gone: &mut Vec<Arc<Flight>>) {
        let length = |flight: &Flight| flight.range().end - flight.range().start;
        let mut held: u64 = self.held.iter().map(|(_, flight)| length(flight)).sum();
        while held > share
            && let Some((_, flight)) = self.held.pop_back()
        {
            held -= length(&flight);
            gone.push(flight);
            self.planned = self.held.back().map_or(self.front, |(until, _)| *until);
        }
    }

    /// The least that is worth a fetch of its own.
    fn step(&self) -> u64 {
        self.run.clamp(WINDOW_MIN, PIECE).min(self.share / 2)
    }
}

/// The places at which one file is read.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Place>);

impl Places {
    /// What to have the extents of for a read of `range`: more than it, if it is time to fetch.
    fn window(&self, range: &Range<u64>) -> Range<u64> {
        let place = self.0.iter().find(|place| place.expects(range));
        let Some(place) = place else { return range.clone() };
        let target = place.target(range);
        let backward = range.end <= place.front;
        if backward || place.planned.max(range.end) + place.step() > target {
            return range.clone();
        }
        range.start..target
    }

    /// Notes a read; what it leaves behind is let go. If it is in order, the place moves on.
    fn note(&mut self, range: &Range<u64>, now: Instant) -> Vec<Arc<Flight>> {
        let length = range.end - range.start;
        if let Some(place) = self.0.iter_mut().find(|place| place.expects(range)) {
            place.run = place.run.saturating_add(length.min(range.end.saturating_sub(place.front)));
            place.front = place.front.max(range.end);
            (place.used, place.eager) = (now, true);
            let behind = place.front.saturating_sub(SLACK);
            let until = place.held.partition_point(|(end, _)| *end <= behind);
            return place.held.drain(..until).map(|(_, flight)| flight).collect();
        }
        let new = Place {
            front: range.end,
            run: length,
            planned: range.end,
            held: VecDeque::new(),
            eager: false,
            share: WINDOW_MAX,
            used: now,
        };
        if self.0.len() < PLACES {
            self.0.push(new);
            return Vec::new();
        }
        let oldest = self.0.iter_mut().min_by_key(|place| place.used);
        let old = oldest.map(|place| std::mem::replace(place, new));
        let held = old.into_iter().flat_map(|place| place.held);
        held.map(|(_, flight)| flight).collect()
    }

    fn eager(&self) -> bool {
        self.0.iter().any(|place| place.eager)
    }

    /// Lets go what places hold that were not read since `before`.
    fn drop_idle(&mut self, before: Instant) -> Vec<Arc<Flight>> {
        let idle = self.0.iter_mut().filter(|place| place.used < before);
        let mut gone = Vec::new();
        for place in idle {
            gone.extend(place.held.drain(..).map(|(_, flight)| flight));
            // What is let go is fetched again when the reader goes on.
            place.planned = place.front;
            place.run = 0;
            place.eager = false;
        }
        gone
    }
}

/// What the reads of one file remember.
#[derive(Clone, Debug, Default)]
pub(super) struct PerFile(Arc<Mutex<Places>>);

/// All files that are read ahead, or would be if there was room: they share it.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<Vec<Weak<Mutex<Places>>>>);

impl Holders {
    /// How many there are, after those that are idle let go of what they hold.
    fn active(&self, now: Instant) -> u64 {
        let before = now.checked_sub(IDLE);
        let mut gone = Vec::new();
        let mut holders = self.0.lock();
        holders.retain(|holder| {
            let Some(places) = holder.upgrade() else { return false };
            // One that is locked is being read, so it is active.
            let Some(mut places) = places.try_lock() else { return true };
            gone.extend(before.map(|before| places.drop_idle(before)).into_iter().flatten());
            places.eager()
        });
        let active = holders.len();
        drop(holders);
        drop(gone); // frees memory: not under the locks
        active as u64
    }

    /// Those who took more than `share` bytes while they were alone give the rest back.
    fn shed(&self, share: u64) {
        let mut gone = Vec::new();
        let holders = self.0.lock();
        for holder in holders.iter().filter_map(Weak::upgrade) {
            let Some(mut places) = holder.try_lock() else { continue };
            places.0.iter_mut().for_each(|place| place.shed(share, &mut gone));
        }
        drop(holders);
        drop(gone); // frees memory: not under the locks
    }

    fn add(&self, file: &PerFile) {
        let mut holders = self.0.lock();
        let new = Arc::downgrade(&file.0);
        if !holders.iter().any(|holder| holder.ptr_eq(&new)) {
            holders.push(new);
        }
    }
}

/// Where to fetch from, and what is here already.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub cache: &'a Cache,
    pub staging: &'a Staging,
    pub holders: &'a Holders,
}

impl PerFile {
    /// Does a read of `range` continue others?
    pub(super) fn continues(&self, range: &Range<u64>) -> bool {
        self.0.lock().0.iter().any(|place| place.expects(range))
    }

    /// Notes a read of `range`, and begins to fetch what probably comes next, as far as the
    /// extents are known. Never waits. Within a tokio runtime.
    pub(super) fn advance(
        &self,
        range: &Range<u64>,
        published: &[(u64, Extent)],
        size: u64,
        sources: Sources<'_>,
    ) {
        let now = Instant::now();
        let window = {
            let mut places = self.0.lock();
            let window = places.window(range);
            let gone = places.note(range, now);
            drop(places);
            drop(gone);
            if window == *range || range.end >= size {
                return;
            }
            window
        };
        // Before it has anything: a newcomer counts, or those who have all the room would keep it.
        sources.holders.add(self);
        let others = sources.holders.active(now);
        let share = sources.cache.ahead_capacity() / others.max(1);
        let begin = || {
            let mut places = self.0.lock();
            let Some(place) =
                places.0.iter_mut().find(|place| place.front >= range.end && place.expects(range))
            else {
                return true;
            };
            place.share = share.clamp(WINDOW_MIN, WINDOW_MAX);
            let from = place.planned.max(range.end);
            let to = window.end.min(place.front.saturating_add(place.share)).min(size);
            let worth = from < to && (to - from >= place.step() || to == size);
            !worth || place.fetch(from..to, published, sources)
        };
        if !begin() {
            sources.holders.shed(share);
            begin();
        }
    }
}

impl Place {
    /// Begins to fetch `window`. `false`: there was no room for all of it.
    fn fetch(
        &mut self,
        window: Range<u64>,
        published: &[(u64, Extent)],
        sources: Sources<'_>,
    ) -> bool {
        let (segments, reached) = chunks::segments(published, &window);
        for segment in segments {
            let object = pack_object(segment.pack);
            let here = sources.staging.contains(segment.pack)
                || sources.cache.expects(&object, &segment.range);
            if !here {
                let Some(flight) = sources.cache.read_ahead(&object, segment.range) else {
                    return false;
                };
                self.held.push_back((segment.until, flight));
            }
            self.planned = segment.until;
        }
        self.planned = self.planned.max(reached);
        true
    }
}

impl PerFile {
    /// See `File::window`.
    pub(super) fn window(&self, range: &Range<u64>) -> Range<u64> {
        self.0.lock().window(range)
    }
}

impl File {
    /// The range whose published extents the reader wants for a read of `range`: it, and what
    /// read-ahead will fetch.
    pub fn window(&self, range: Range<u64>) -> Range<u64> {
        self.reads.window(&range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: u64 = MIB / 8;

    /// Whether it continues others, and the window.
    fn read(places: &mut Places, at: u64) -> (bool, Range<u64>) {
        let range = at..at + REQUEST;
        let window = places.window(&range);
        let continues = places.0.iter().any(|place| place.expects(&range));
        places.note(&range, Instant::now());
        (continues, window)
    }

    #[test]
    fn the_window_grows_while_a_file_is_read_in_order() {
        let mut places = Places::default();
        assert_eq!(read(&mut places, 0), (false, 0..REQUEST));
        let (continues, window) = read(&mut places, REQUEST);
        assert_eq!((continues, window.end), (true, 2 * REQUEST + WINDOW_MIN));
        for n in 2..400 {
            read(&mut places, n * REQUEST);
        }
        assert_eq!(read(&mut places, 400 * REQUEST).1.end, 401 * REQUEST + WINDOW_MAX);
    }

    #[test]
    fn a_random_reader_asks_for_nothing_more() {
        let mut places = Places::default();
        for n in [900_u64, 3, 500, 70, 700, 200, 400, 100, 800] {
            let (continues, window) = read(&mut places, n * 10 * MIB);
            assert_eq!((continues, window.end - window.start), (false, REQUEST));
        }
        assert_eq!(places.0.len(), PLACES);
    }

    #[test]
    fn reads_that_overtake_each_other_are_in_order() {
        let mut places = Places::default();
        read(&mut places, 0);
        for n in [2, 1, 4, 3, 6, 5, 8, 7] {
            assert!(read(&mut places, n * REQUEST).0);
        }
        assert_eq!(places.0.len(), 1);
    }

    #[test]
    fn a_backward_reader_asks_for_nothing_more() {
        let mut places = Places::default();
        for n in (0..100).rev() {
            let (_, window) = read(&mut places, n * REQUEST);
            assert_eq!(window.end - window.start, REQUEST);
        }
    }

    #[test]
    fn two_readers_of_one_file_do_not_disturb_each_other() {
        let mut places = Places::default();
        read(&mut places, 0);
        read(&mut places, 500 * MIB);
        for n in 1..100 {
            assert!(read(&mut places, n * REQUEST).0);
            assert!(read(&mut places, 500 * MIB + n * REQUEST).0);
        }
        assert!(places.window(&(12 * MIB + MIB / 2..12 * MIB + MIB)).end > 40 * MIB);
    }
}
