//! Read-ahead from file to file: whoever reads several small files that were made together will read more of them.
//!
//! Fetching a small file takes as long as a large piece of one, and its pack may hold few others: only those written at
//! the same moment. But files that were made together have neighbouring inode numbers. So numbers stand for the order
//! in which files are read, as offsets do within a file. A *cluster* is a range of numbers that is being read. What is
//! fetched for it grows with the number of files read there: a single read fetches nothing more.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::chunks::{self, SHARED_MAX};
use super::readahead::Upstream;
use super::seal;
use crate::types::{Extent, InodeNo, MIB};
use crate::upload::pack_object;

/// How many clusters there are at once: so many programs may read trees at the same time.
const CLUSTERS: usize = 8;
/// A file belongs to a cluster if it is this close to its numbers, as the order of names is not that of numbers.
const REACH: u64 = 1024;
/// Numbers this far behind the reader leave the cluster: if they are read again, they may have to be fetched again.
const BEHIND: u64 = 4 * REACH;
/// A cluster is dropped when nothing was read there for this long.
const IDLE: Duration = Duration::from_secs(30);
/// How many numbers are looked at from a file on. Each read of a file that was fetched ahead doubles this.
const FIRST: u64 = 64;
/// How many numbers are looked at in one go: a millisecond's work.
const LOOKED_AT: u64 = 256;
/// The most numbers ahead of the reader. Reading a small file takes a fifth of a millisecond: these last for ten round
/// trips.
const AHEAD_MAX: u64 = 2048;
/// How many bytes are fetched from a file on; doubled like the numbers.
const FIRST_BYTES: u64 = MIB;
/// The most bytes ahead: the link carries no more during a round trip, and the cache on disk may be small.
const BYTES_MAX: u64 = 32 * MIB;
/// How many runs of numbers a cluster remembers, and how many looks that are not used up.
const RUNS: usize = 32;

/// The clusters of one vault.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Mutex<VecDeque<Cluster>>);

/// Inode numbers whose files should be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookout {
    /// The numbers.
    pub range: Range<InodeNo>,
    /// The most bytes to fetch.
    bytes: u64,
}

/// A range of numbers, some of whose files were read.
#[derive(Debug)]
struct Cluster {
    /// Numbers whose files were fetched, or passed over as too large: sorted, not touching.
    runs: Vec<Range<u64>>,
    /// How often `FIRST` and `FIRST_BYTES` were doubled.
    doublings: u32,
    used: Instant,
    /// What the latest looks fetched beyond the file being read, in order: up to which number, and how many bytes.
    ahead: VecDeque<(u64, u64)>,
}

impl Cluster {
    fn new(number: u64, now: Instant) -> Self {
        let first = number..number.saturating_add(1);
        Self { runs: vec![first], doublings: 0, used: now, ahead: VecDeque::new() }
    }

    fn expects(&self, number: u64) -> bool {
        let (Some(first), Some(last)) = (self.runs.first(), self.runs.last()) else { return false };
        (first.start.saturating_sub(REACH)..last.end.saturating_add(REACH)).contains(&number)
    }

    /// The numbers to look at now that the file `number` is read, and how many bytes of them may be fetched.
    fn read(&mut self, number: u64, most: u64) -> Option<(Range<u64>, u64)> {
        let floor = number.saturating_sub(BEHIND);
        self.runs.iter_mut().for_each(|run| run.start = run.start.max(floor));
        self.runs.retain(|run| !run.is_empty());
        while self.ahead.front().is_some_and(|(end, _)| *end <= number) {
            self.ahead.pop_front();
        }
        let next = self.runs.partition_point(|run| run.start <= number);
        let limit = self.runs.get(next).map_or(u64::MAX, |run| run.start);
        // The end of the fetched run that has this file in it, or that ends just before it.
        let before = next.checked_sub(1).and_then(|at| self.runs.get(at)).map(|run| run.end);
        let fetched_to = before.filter(|end| number <= *end);
        // A reader in random order mostly misses at first: that does not reset what was learned.
        if fetched_to.is_some() {
            self.doublings = (self.doublings + 1).min(16);
        }
        let ahead = (FIRST << self.doublings).min(AHEAD_MAX);
        let bytes = (FIRST_BYTES << self.doublings).min(BYTES_MAX).min(most);
        let to = number.saturating_add(ahead).min(limit);
        let Some(from) = fetched_to else {
            // It came from elsewhere, and may go up or down from here.
            let half = ahead.min(LOOKED_AT) / 2;
            let from = number.saturating_sub(half).max(before.unwrap_or(0));
            return Some((from..number.saturating_add(half).min(limit), bytes));
        };
        let fetched: u64 = self.ahead.iter().map(|(_, bytes)| bytes).sum();
        // In halves, so that not every read of a file causes a look.
        let is_time = to >= from.saturating_add(ahead / 2) || to == limit;
        (is_time && fetched <= bytes / 2).then(|| (from..to, bytes - fetched))
    }

    /// Everything in `range` was looked at, and `bytes` of it are being fetched.
    fn fetched(&mut self, range: Range<u64>, bytes: u64) {
        self.ahead.push_back((range.end, bytes));
        if self.ahead.len() > RUNS {
            self.ahead.pop_front();
        }
        let (touched, apart): (Vec<_>, Vec<_>) = std::mem::take(&mut self.runs)
            .into_iter()
            .partition(|run| run.start <= range.end && range.start <= run.end);
        self.runs = apart;
        let begin = touched.iter().map(|run| run.start).fold(range.start, u64::min);
        let end = touched.iter().map(|run| run.end).fold(range.end, u64::max);
        self.runs.insert(self.runs.partition_point(|run| run.start < begin), begin..end);
        if self.runs.len() > RUNS {
            self.runs.remove(0);
        }
    }
}

impl Neighbours {
    /// Notes that the small file `ino` is read from its beginning, and returns what to look at; pass what is found
    /// there to `fetch`. `most`: how many bytes may be read ahead.
    pub(super) fn read(&self, ino: InodeNo, extent: &Extent, most: u64) -> Option<Lookout> {
        if most == 0 || !is_small(extent) {
            return None;
        }
        let now = Instant::now();
        let mut clusters = self.0.lock();
        clusters.retain(|cluster| cluster.used + IDLE > now);
        let Some(at) = clusters.iter().position(|cluster| cluster.expects(ino.0)) else {
            clusters.truncate(CLUSTERS - 1);
            clusters.push_front(Cluster::new(ino.0, now));
            return None;
        };
        // The cluster that was read last comes first.
        let mut cluster = clusters.remove(at)?;
        cluster.used = now;
        let look = cluster.read(ino.0, most);
        clusters.push_front(cluster);
        let (range, bytes) = look.filter(|(range, bytes)| !range.is_empty() && *bytes > 0)?;
        let end = range.end.min(range.start.saturating_add(LOOKED_AT));
        Some(Lookout { range: InodeNo(range.start)..InodeNo(end), bytes })
    }

    /// Begins to fetch what is not here of `files`: those found in `look` below `reached`. Never waits. Needs a tokio
    /// runtime.
    pub(super) fn fetch(
        &self,
        look: &Lookout,
        files: &[(InodeNo, Extent)],
        reached: InodeNo,
        upstream: Upstream<'_>,
    ) {
        let (count, bytes) = chosen(look, files);
        self.fetched(look, files.get(count).map_or(reached, |(ino, _)| *ino), bytes);
        let is_sound = |extent: &&Extent| is_small(extent) && seal::flaw(extent).is_none();
        let staged = |pack| upstream.staging.contains(pack);
        let small = files[..count].iter().map(|(_, extent)| extent).filter(is_sound);
        for (pack, range) in chunks::whole(small) {
            if !staged(pack) {
                upstream.cache.fetch_beside(&pack_object(pack), range);
            }
        }
    }

    /// Everything of `look` below `reached` was looked at, and `bytes` of it are being fetched.
    fn fetched(&self, look: &Lookout, reached: InodeNo, bytes: u64) {
        let mut clusters = self.0.lock();
        let (from, to) = (look.range.start.0, reached.0);
        // There is none if another took its place meanwhile.
        if let Some(cluster) = clusters.iter_mut().find(|cluster| cluster.expects(from))
            && from < to
        {
            cluster.fetched(from..to, bytes);
        }
    }
}

/// Whether a file with this only extent is small, so that it shares its pack.
fn is_small(extent: &Extent) -> bool {
    extent.reference.sealed_length <= SHARED_MAX
}

/// How many of these files, in order, the look may fetch, and their bytes. Large files are passed over.
fn chosen(look: &Lookout, files: &[(InodeNo, Extent)]) -> (usize, u64) {
    let mut bytes = 0;
    for (at, (_, extent)) in files.iter().enumerate() {
        if !is_small(extent) {
            continue;
        }
        if bytes >= look.bytes {
            return (at, bytes);
        }
        bytes += extent.reference.sealed_length;
    }
    (files.len(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{KIB, Reference};

    fn file(length: u64) -> Extent {
        Extent { skip: 0, length, reference: Reference::made_up(1, length) }
    }

    /// Reads a file, with a file of `length` bytes at every number. Returns what is fetched.
    fn read(neighbours: &Neighbours, number: u64, length: u64) -> Range<u64> {
        let Some(look) = neighbours.read(InodeNo(number), &file(length), u64::MAX) else {
            return 0..0;
        };
        let range = look.range.start.0..look.range.end.0;
        let files: Vec<_> = range.clone().map(|number| (InodeNo(number), file(length))).collect();
        let (count, bytes) = chosen(&look, &files);
        let reached = files.get(count).map_or(look.range.end, |(ino, _)| *ino);
        neighbours.fetched(&look, reached, bytes);
        range.start..reached.0
    }

    #[test]
    fn files_that_are_read_in_order_are_fetched_ahead_each_once_and_within_limits() {
        for length in [KIB, 4 * KIB, 100 * KIB, MIB] {
            let neighbours = Neighbours::default();
            assert_eq!(read(&neighbours, 1000, length), 0..0, "one file tells nothing");
            let mut end = 1001;
            for number in 1001..9000 {
                let fetched = read(&neighbours, number, length);
                if fetched.is_empty() {
                    continue;
                }
                assert_eq!(fetched.start, end, "without a gap, and none twice");
                end = fetched.end;
                let ahead = end - number;
                assert!(ahead <= AHEAD_MAX && ahead * length <= BYTES_MAX + MIB, "{ahead}");
                assert!(ahead <= FIRST << (number - 1000).min(16), "{number}: {ahead}");
            }
            assert!(end > 9000, "{length}: {end}");
        }
    }

    #[test]
    fn who_reads_here_and_there_fetches_nothing_more() {
        let neighbours = Neighbours::default();
        for n in [900_u64, 3, 500, 70, 700, 200, 400, 100, 800, 300, 905, 1] {
            assert_eq!(read(&neighbours, n * 10 * REACH, KIB), 0..0);
        }
        assert_eq!(neighbours.0.lock().len(), CLUSTERS);
    }

    #[test]
    fn who_reads_some_files_of_many_in_any_order_has_those_around_them() {
        let neighbours = Neighbours::default();
        let mut here = std::collections::HashSet::new();
        let mut misses = 0;
        for n in 0..1000_u64 {
            let number = 5000 + n * 619 % 1000;
            misses += u64::from(here.insert(number));
            here.extend(read(&neighbours, number, 4 * KIB));
        }
        assert!(misses < 40, "{misses}");
    }

    #[test]
    fn who_reads_few_of_many_fetches_little_for_each() {
        let neighbours = Neighbours::default();
        let fetched = |n: u64| {
            let range = read(&neighbours, 5000 + n * 7919 % 100_000, 100 * KIB);
            (range.end - range.start) * 100 * KIB
        };
        let all: u64 = (0..500).map(fetched).sum();
        assert!(all < 500 * 2 * FIRST_BYTES, "{}", all / MIB);
    }

    #[test]
    fn of_many_looks_the_latest_are_known() {
        let mut cluster = Cluster::new(0, Instant::now());
        for n in 0..100 {
            cluster.fetched(10 * n..10 * n + 5, n);
        }
        assert_eq!(cluster.ahead.len(), RUNS);
        assert_eq!(cluster.ahead.back(), Some(&(995, 99)), "what is ahead of the reader counts");
    }

    #[test]
    fn several_readers_go_on_side_by_side() {
        let neighbours = Neighbours::default();
        for n in 0..100 {
            for reader in 0..6_u64 {
                read(&neighbours, reader * 100_000 + n, KIB);
            }
        }
        let clusters = neighbours.0.lock();
        assert!(
            clusters.len() == 6
                && clusters
                    .iter()
                    .all(|cluster| cluster.runs[0].end - cluster.runs[0].start > 1000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_before_is_fetched_again_if_it_is_read_again() {
        let neighbours = Neighbours::default();
        let pass = |count: u64| -> u64 {
            (100..100 + count)
                .map(|number| read(&neighbours, number, KIB))
                .map(|fetched| fetched.end - fetched.start)
                .sum()
        };
        assert!(pass(10_000) >= 9_999 && pass(10_000) >= 9_999, "far behind");
        tokio::time::advance(IDLE).await;
        assert!(pass(1000) >= 999);
        assert_eq!(pass(500), 0, "just now");
        tokio::time::advance(IDLE).await;
        assert!(pass(1000) >= 999);
    }

    #[test]
    fn large_files_and_readers_that_may_not_read_ahead_are_left_alone() {
        let neighbours = Neighbours::default();
        for number in 1..10 {
            assert!(neighbours.read(InodeNo(number), &file(KIB), 0).is_none());
            assert!(neighbours.read(InodeNo(number), &file(16 * MIB), u64::MAX).is_none());
        }
        assert!(neighbours.0.lock().is_empty());
    }
}
