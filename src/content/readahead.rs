//! How far ahead of a sequential reader to fetch, and what has been fetched for it.
//!
//! The kernel asks for 128 KiB at a time, so reading ahead is up to us. A file has a few cursors, as it may have
//! several readers at once. A cursor's window grows while the file is read sequentially there, and is lost otherwise: a
//! random reader causes no fetches but those that it needs.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::chunks;
use crate::cache::{Cache, FETCH_MAX, Flight};
use crate::types::{Extent, MIB};
use crate::upload::{Staging, pack_object};

/// The most cursors of one file.
const CURSORS: usize = 4;
/// How far from a cursor a read may begin and still count as sequential: four times its length, since the kernel's
/// requests overtake each other, within these limits.
const SLACK: u64 = MIB;
const SLACK_MIN: u64 = MIB / 16;
/// The first window, and the least that is worth a fetch, if there is memory for that much.
const WINDOW_MIN: u64 = MIB;
/// The largest window. A larger one helps no reader: at a latency of 30 ms this gives 2 GiB/s.
const WINDOW_MAX: u64 = 64 * MIB;
/// If the owner limits the download rate, the window is at most what comes in this many seconds, so that nobody waits
/// longer than that for its first bytes.
const LIMITED: u64 = 4;
/// The window is this many times what was read sequentially.
const GROWTH: u64 = 4;
/// One fetch takes this part of a reader's share of the memory: one is being read while others are under way. The same
/// part is for what lies behind the reader, which requests that were overtaken may still want.
const PART: u64 = 4;
/// But no fetch is smaller than this, or than half of it if the share is below twice this: a request costs more than a
/// smaller one would bring.
const FETCH_MIN: u64 = MIB;
/// How long a reader may pause before others get its memory.
const IDLE: Duration = Duration::from_secs(2);

/// A point that moves through a file as it is read sequentially.
#[derive(Debug)]
struct ReadCursor {
    /// Where the furthest read ended: the next one is expected here.
    front: u64,
    /// Bytes read sequentially.
    run: u64,
    /// Fetches were begun up to here.
    planned: u64,
    /// What was fetched and is not used up yet: each flight, with the file offset at which it is used up.
    held: VecDeque<(u64, Arc<Flight>)>,
    /// Whether it wants a share of the memory, even if it has none.
    eager: bool,
    /// Its share of the memory when it last asked, in bytes.
    share: u64,
    /// How far ahead it may fetch, in bytes: its share less what is being read and what lies behind, or less than that.
    reach: u64,
    used: Instant,
}

impl ReadCursor {
    /// Whether a read of `range` continues the reads at this cursor.
    fn expects(&self, range: &Range<u64>) -> bool {
        let slack = ((range.end - range.start).saturating_mul(4)).clamp(SLACK_MIN, SLACK);
        range.start <= self.front.saturating_add(slack)
            && range.start.saturating_add(slack) >= self.front
    }

    /// How far fetches should reach after a read of `range`.
    fn target(&self, range: &Range<u64>) -> u64 {
        let run = self.run.saturating_add(range.end - range.start);
        let window = run.saturating_mul(GROWTH).clamp(WINDOW_MIN.min(self.reach), self.reach);
        self.front.max(range.end).saturating_add(window)
    }

    /// Drops flights, the furthest ahead first, until it holds at most `share` bytes. Those that have landed are on
    /// disk by then; others are fetched again when the reader comes near.
    fn shed(&mut self, share: u64, gone: &mut Vec<Arc<Flight>>) {
        let mut held = self.held_bytes();
        while held > share
            && let Some((_, flight)) = self.held.pop_back()
        {
            held -= length_of(&flight);
            gone.push(flight);
            self.planned = self.held.back().map_or(self.front, |(until, _)| *until);
        }
    }

    fn held_bytes(&self) -> u64 {
        self.held.iter().map(|(_, flight)| length_of(flight)).sum()
    }

    /// Sets its share of the memory; at most `most` bytes of it may lie ahead.
    fn take(&mut self, share: u64, most: u64) {
        self.share = share.max(WINDOW_MIN);
        let piece = piece(self.share);
        let left = self.share.saturating_sub(piece + behind(self.share));
        // At least one and a half fetches, so that one begins while half of another lies ahead. For many readers
        // together that is more than their shares, but they never all hold all of it at once.
        self.reach = most.min(left.max(piece + piece / 2));
    }

    /// The least that is worth a fetch of its own.
    fn step(&self) -> u64 {
        self.run.clamp(WINDOW_MIN, FETCH_MAX).min(self.piece())
    }

    /// Bytes of one fetch.
    fn piece(&self) -> u64 {
        let whole = piece(self.share);
        let is_short = self.reach < whole + whole / 2;
        if is_short { 1 << (self.reach / 2).max(1).ilog2() } else { whole }
    }
}

fn length_of(flight: &Flight) -> u64 {
    flight.range().end - flight.range().start
}

/// Bytes of one fetch for a reader that has such a share of the memory: a power of two, so that those of one share lie within
/// those of another.
fn piece(share: u64) -> u64 {
    let least = if share < 2 * FETCH_MIN { FETCH_MIN / 2 } else { FETCH_MIN };
    1 << (share / PART).clamp(least, FETCH_MAX).ilog2()
}

/// How long what was read stays, in bytes behind the reader.
fn behind(share: u64) -> u64 {
    (share / PART).min(SLACK)
}

/// The cursors of one file.
#[derive(Debug, Default)]
struct ReadCursors(Vec<ReadCursor>);

impl ReadCursors {
    /// The range whose extents a read of `range` needs: more than it, if it is time to fetch.
    fn window(&self, range: &Range<u64>) -> Range<u64> {
        let cursor = self.0.iter().find(|cursor| cursor.expects(range));
        let Some(cursor) = cursor else { return range.clone() };
        let target = cursor.target(range);
        let backward = range.end <= cursor.front;
        if backward || cursor.planned.max(range.end) + cursor.step() > target {
            return range.clone();
        }
        range.start..target
    }

    /// Notes a read. If it is in order, the cursor moves on, and the flights that it leaves behind are returned.
    fn note(&mut self, range: &Range<u64>, now: Instant) -> Vec<Arc<Flight>> {
        let length = range.end - range.start;
        if let Some(cursor) = self.0.iter_mut().find(|cursor| cursor.expects(range)) {
            cursor.run =
                cursor.run.saturating_add(length.min(range.end.saturating_sub(cursor.front)));
            cursor.front = cursor.front.max(range.end);
            (cursor.used, cursor.eager) = (now, true);
            let used_up = cursor.front.saturating_sub(behind(cursor.share));
            let until = cursor.held.partition_point(|(end, _)| *end <= used_up);
            return cursor.held.drain(..until).map(|(_, flight)| flight).collect();
        }
        let new = ReadCursor {
            front: range.end,
            run: length,
            planned: range.end,
            held: VecDeque::new(),
            eager: false,
            share: WINDOW_MAX,
            reach: WINDOW_MAX,
            used: now,
        };
        if self.0.len() < CURSORS {
            self.0.push(new);
            return Vec::new();
        }
        let oldest = self.0.iter_mut().min_by_key(|cursor| cursor.used);
        let old = oldest.map(|cursor| std::mem::replace(cursor, new));
        let held = old.into_iter().flat_map(|cursor| cursor.held);
        held.map(|(_, flight)| flight).collect()
    }

    /// How many cursors want memory.
    fn eager(&self) -> u64 {
        self.0.iter().map(|cursor| u64::from(cursor.eager)).sum()
    }

    /// From now on at most `most` bytes may lie ahead.
    fn allow(&mut self, most: u64) {
        for cursor in &mut self.0 {
            cursor.reach = match cursor.reach {
                0 => most,
                reach => reach.min(most),
            };
        }
    }

    /// Stops the cursors that were not used since `before`, and returns their flights.
    fn drop_idle(&mut self, before: Instant) -> Vec<Arc<Flight>> {
        let idle = self.0.iter_mut().filter(|cursor| cursor.used < before);
        let mut gone = Vec::new();
        for cursor in idle {
            gone.extend(cursor.held.drain(..).map(|(_, flight)| flight));
            // They are fetched again when the reader continues.
            cursor.planned = cursor.front;
            cursor.run = 0;
            cursor.eager = false;
        }
        gone
    }
}

/// The read-ahead of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Readahead(Arc<Mutex<ReadCursors>>);

/// The files that are read ahead, or would be if there was memory: they share the cache's memory for it.
#[derive(Debug)]
pub(super) struct ReadaheadPool {
    files: Mutex<Vec<Weak<Mutex<ReadCursors>>>>,
    /// The largest window.
    most: AtomicU64,
}

impl Default for ReadaheadPool {
    fn default() -> Self {
        Self { files: Mutex::default(), most: WINDOW_MAX.into() }
    }
}

impl ReadaheadPool {
    /// Limits the window from now on; `None`: as large as it helps.
    pub(super) fn limit(&self, most: Option<u64>) {
        self.most.store(most.unwrap_or(WINDOW_MAX).min(WINDOW_MAX), Relaxed);
    }

    /// The largest window, if at most `rate` bytes come in a second.
    fn most(&self, rate: Option<u64>) -> u64 {
        let by_rate = rate.map_or(WINDOW_MAX, |rate| rate.saturating_mul(LIMITED));
        self.most.load(Relaxed).min(by_rate)
    }

    /// How many readers there are, after idle ones have been made to let go of what they hold.
    fn active(&self, now: Instant) -> u64 {
        let before = now.checked_sub(IDLE);
        let mut gone = Vec::new();
        let mut readers = 0;
        let mut files = self.files.lock();
        files.retain(|file| {
            let Some(cursors) = file.upgrade() else { return false };
            // A file whose lock is taken is being read, so it counts.
            let Some(mut cursors) = cursors.try_lock() else {
                readers += 1;
                return true;
            };
            gone.extend(before.map(|before| cursors.drop_idle(before)).into_iter().flatten());
            readers += cursors.eager();
            cursors.eager() > 0
        });
        drop(files);
        drop(gone); // frees memory: not under the locks
        readers
    }

    /// Makes readers that took more than `share` bytes while they were alone give the rest back. Each keeps two
    /// fetches, however many readers there are: otherwise they would push each other out, and nobody would get
    /// anything.
    fn shed(&self, share: u64) {
        let share = share.max(WINDOW_MIN + WINDOW_MIN / 8);
        let mut gone = Vec::new();
        let files = self.files.lock();
        for file in files.iter().filter_map(Weak::upgrade) {
            let Some(mut cursors) = file.try_lock() else { continue };
            cursors.0.iter_mut().for_each(|cursor| cursor.shed(share, &mut gone));
        }
        drop(files);
        drop(gone); // frees memory: not under the locks
    }

    fn add(&self, file: &Readahead) {
        let mut files = self.files.lock();
        let new = Arc::downgrade(&file.0);
        if !files.iter().any(|file| file.ptr_eq(&new)) {
            files.push(new);
        }
    }
}

/// Where read-ahead fetches from, what is here already, and how much is enough.
#[derive(Clone, Copy)]
pub(super) struct Upstream<'a> {
    pub cache: &'a Cache,
    pub staging: &'a Staging,
    pub pool: &'a ReadaheadPool,
}

impl Upstream<'_> {
    /// How many bytes one reader may have ahead of it.
    pub(super) fn most(&self) -> u64 {
        self.pool.most(self.cache.rate())
    }
}

impl Readahead {
    /// The range of which the reader wants the extents for a read of `range`: that, and what will be fetched ahead.
    pub(super) fn window(&self, range: &Range<u64>) -> Range<u64> {
        self.0.lock().window(range)
    }

    /// Whether a read of `range` continues others.
    pub(super) fn continues(&self, range: &Range<u64>) -> bool {
        self.0.lock().0.iter().any(|cursor| cursor.expects(range))
    }

    /// Notes a read of `range`, and begins to fetch what probably comes next, as far as its extents are known. Never
    /// waits. Needs a tokio runtime.
    pub(super) fn advance(
        &self,
        range: &Range<u64>,
        published: &[(u64, Extent)],
        size: u64,
        upstream: Upstream<'_>,
    ) {
        let (now, most) = (Instant::now(), upstream.most());
        let window = {
            let mut cursors = self.0.lock();
            cursors.allow(most);
            let window = cursors.window(range);
            let gone = cursors.note(range, now);
            drop(cursors);
            drop(gone);
            if window == *range || range.end >= size || most == 0 {
                return;
            }
            window
        };
        // Added before it holds anything: a newcomer must count, or readers that have all the memory would keep it.
        upstream.pool.add(self);
        let others = upstream.pool.active(now);
        let share = upstream.cache.ahead_capacity() / others.max(1);
        let begin = || {
            let mut cursors = self.0.lock();
            let Some(cursor) = cursors
                .0
                .iter_mut()
                .find(|cursor| cursor.front >= range.end && cursor.expects(range))
            else {
                return true;
            };
            cursor.take(share, most);
            let from = cursor.planned.max(range.end);
            let to = window.end.min(cursor.front.saturating_add(cursor.reach)).min(size);
            let worth = from < to && (to - from >= cursor.step() || to == size);
            // A reader that holds half of its share waits for memory that others free: theirs is about to be used up.
            !worth
                || cursor.fetch(from..to, published, upstream)
                || cursor.held_bytes() >= cursor.share / 2
        };
        if !begin() {
            upstream.pool.shed(share);
            begin();
        }
    }
}

impl ReadCursor {
    /// Begins to fetch `window`. Returns `false` if there was no memory for all of it.
    fn fetch(
        &mut self,
        window: Range<u64>,
        published: &[(u64, Extent)],
        upstream: Upstream<'_>,
    ) -> bool {
        let (prefetches, reached) = chunks::prefetches(published, &window, self.piece());
        for prefetch in prefetches {
            let object = pack_object(prefetch.pack);
            let here = upstream.staging.contains(prefetch.pack)
                || upstream.cache.expects(&object, &prefetch.range);
            if !here {
                let Some(flight) = upstream.cache.read_ahead(&object, prefetch.range) else {
                    return false;
                };
                self.held.push_back((prefetch.until, flight));
            }
            self.planned = prefetch.until;
        }
        self.planned = self.planned.max(reached);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: u64 = MIB / 8;

    /// Reads, and returns whether that continues other reads, and the window.
    fn read(cursors: &mut ReadCursors, at: u64) -> (bool, Range<u64>) {
        let range = at..at + REQUEST;
        let window = cursors.window(&range);
        let continues = cursors.0.iter().any(|cursor| cursor.expects(&range));
        cursors.note(&range, Instant::now());
        (continues, window)
    }

    #[test]
    fn the_window_grows_while_a_file_is_read_in_order() {
        let mut cursors = ReadCursors::default();
        assert_eq!(read(&mut cursors, 0), (false, 0..REQUEST));
        let (continues, window) = read(&mut cursors, REQUEST);
        assert_eq!((continues, window.end), (true, 2 * REQUEST + WINDOW_MIN));
        for n in 2..400 {
            read(&mut cursors, n * REQUEST);
        }
        assert_eq!(read(&mut cursors, 400 * REQUEST).1.end, 401 * REQUEST + WINDOW_MAX);
    }

    #[test]
    fn the_window_is_as_large_as_it_may_be() {
        let pool = ReadaheadPool::default();
        assert_eq!((pool.most(None), pool.most(Some(MIB))), (WINDOW_MAX, LIMITED * MIB));
        pool.limit(Some(3 * MIB));
        assert_eq!((pool.most(None), pool.most(Some(100))), (3 * MIB, LIMITED * 100));
        pool.limit(Some(0));
        assert_eq!(pool.most(None), 0);
        let mut cursor = ReadCursors::default();
        read(&mut cursor, 0);
        cursor.0[0].reach = 1000;
        assert_eq!(
            read(&mut cursor, REQUEST).1.end,
            2 * REQUEST + 1000,
            "less than the first window"
        );
    }

    /// What lies behind, what is being read and what is ahead stay within the share, however small it is.
    #[test]
    fn who_has_less_memory_fetches_smaller_pieces() {
        let mut cursors = ReadCursors::default();
        read(&mut cursors, 0);
        let cursor = &mut cursors.0[0];
        for (share, of_one) in
            [(40 * MIB, 4 * MIB), (8 * MIB, 2 * MIB), (3 * MIB, MIB), (0, MIB / 2)]
        {
            cursor.take(share, WINDOW_MAX);
            assert_eq!(cursor.piece(), of_one);
            let all = behind(cursor.share) + of_one + cursor.reach;
            assert!(all <= share.max(WINDOW_MIN) / 2 * 3, "{share}: {all}");
        }
    }

    /// When a fetch begins, part of the one before still lies ahead, so a reader that goes on does not wait.
    #[test]
    fn a_fetch_begins_before_the_last_one_is_used_up() {
        let mut cursors = ReadCursors::default();
        read(&mut cursors, 0);
        let cursor = &mut cursors.0[0];
        cursor.run = WINDOW_MAX;
        for most in (14..=26).map(|bits| 1 << bits) {
            for share in (0..80).map(|n| n * MIB / 2) {
                cursor.take(share, most);
                let ahead = cursor.reach - cursor.step();
                assert!(cursor.reach <= most && ahead >= cursor.step() / 2, "{share} {most}");
            }
        }
        cursor.take(40 * MIB, 8 * MIB);
        assert_eq!(
            (cursor.reach, cursor.piece()),
            (8 * MIB, 4 * MIB),
            "a limit is of what is ahead"
        );
        // First none, and then some again.
        cursors.allow(0);
        assert_eq!(read(&mut cursors, REQUEST).1, REQUEST..2 * REQUEST);
        cursors.allow(8 * MIB);
        assert!(read(&mut cursors, 2 * REQUEST).1.end > 4 * REQUEST);
    }

    #[test]
    fn a_random_reader_asks_for_nothing_more() {
        let mut cursors = ReadCursors::default();
        for n in [900_u64, 3, 500, 70, 700, 200, 400, 100, 800] {
            let (continues, window) = read(&mut cursors, n * 10 * MIB);
            assert_eq!((continues, window.end - window.start), (false, REQUEST));
        }
        assert_eq!(cursors.0.len(), CURSORS);
    }

    #[test]
    fn reads_that_overtake_each_other_are_in_order() {
        let mut cursors = ReadCursors::default();
        read(&mut cursors, 0);
        for n in [2, 1, 4, 3, 6, 5, 8, 7] {
            assert!(read(&mut cursors, n * REQUEST).0);
        }
        assert_eq!(cursors.0.len(), 1);
    }

    #[test]
    fn a_backward_reader_asks_for_nothing_more() {
        let mut cursors = ReadCursors::default();
        for n in (0..100).rev() {
            let (_, window) = read(&mut cursors, n * REQUEST);
            assert_eq!(window.end - window.start, REQUEST);
        }
    }

    #[test]
    fn two_readers_of_one_file_do_not_disturb_each_other() {
        let mut cursors = ReadCursors::default();
        read(&mut cursors, 0);
        read(&mut cursors, 500 * MIB);
        for n in 1..100 {
            assert!(read(&mut cursors, n * REQUEST).0);
            assert!(read(&mut cursors, 500 * MIB + n * REQUEST).0);
        }
        assert!(cursors.window(&(12 * MIB + MIB / 2..12 * MIB + MIB)).end > 40 * MIB);
    }
}
