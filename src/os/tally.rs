//! Counters of what this process did, which only grow: for monitoring. Counting is one addition, wherever it
//! happens; a process has one vault.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The upper bounds of the classes in which times are counted, in microseconds; one more class holds longer ones.
pub const TIMES: [u64; 8] = [100, 1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];
const CLASSES: usize = TIMES.len() + 1;

/// The kinds of requests that the kernel makes; the last one stands for all others.
const KINDS: [&str; 32] = [
    "lookup",
    "getattr",
    "setattr",
    "readlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "open",
    "read",
    "write",
    "flush",
    "release",
    "fsync",
    "opendir",
    "readdir",
    "readdirplus",
    "fsyncdir",
    "statfs",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "create",
    "lseek",
    "fallocate",
    "copy_file_range",
    "forget",
    "other",
];

/// The counters of one kind of request.
struct KindTally {
    classes: [AtomicU64; CLASSES],
    micros: AtomicU64,
    failed: AtomicU64,
}

static OPERATIONS: [KindTally; KINDS.len()] = [const {
    KindTally {
        classes: [const { AtomicU64::new(0) }; CLASSES],
        micros: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    }
}; KINDS.len()];

/// The single counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessTally {
    /// Bytes of files read, by programs and over HTTP.
    ReadBytes,
    /// Bytes of files written.
    WrittenBytes,
    /// Ranges that the cache found on this disk.
    DiskHits,
    /// Repeated requests to the store.
    StoreRepeats,
    /// Packs confirmed by the bucket.
    PacksSent,
    /// Commits confirmed by the bucket.
    CommitsSent,
    /// Checkpoints made.
    Checkpoints,
    /// Checkpoints that failed.
    FailedCheckpoints,
}

static TALLIES: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

impl ProcessTally {
    /// Adds `more`.
    pub fn add(self, more: u64) {
        TALLIES[self as usize].fetch_add(more, Relaxed);
    }

    /// The count so far.
    pub fn read(self) -> u64 {
        TALLIES[self as usize].load(Relaxed)
    }
}

/// How often one kind of request was made, and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationFigures {
    /// The kernel's name for the kind.
    pub kind: &'static str,
    /// How many took at most the time in the same place of [`TIMES`]; the last entry counts all.
    pub within: Vec<u64>,
    /// The total time of all.
    pub seconds: f64,
    /// How many were answered with an errno.
    pub failed: u64,
}

/// Counts a request of the kernel that was answered.
pub fn operation_done(kind: &str, took: Duration, has_failed: bool) {
    let at = KINDS.iter().position(|own| *own == kind).unwrap_or(KINDS.len() - 1);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let class = TIMES.iter().position(|end| micros <= *end).unwrap_or(TIMES.len());
    let tally = &OPERATIONS[at];
    tally.classes[class].fetch_add(1, Relaxed);
    tally.micros.fetch_add(micros, Relaxed);
    tally.failed.fetch_add(u64::from(has_failed), Relaxed);
}

/// The figures of each kind that occurred.
pub fn operations() -> Vec<OperationFigures> {
    let figures = |(kind, tally): (&&'static str, &KindTally)| {
        let mut sum = 0;
        let within: Vec<_> = tally
            .classes
            .iter()
            .map(|class| {
                sum += class.load(Relaxed);
                sum
            })
            .collect();
        let (seconds, failed) =
            (tally.micros.load(Relaxed) as f64 / 1e6, tally.failed.load(Relaxed));
        (sum > 0).then_some(OperationFigures { kind, within, seconds, failed })
    };
    KINDS.iter().zip(&OPERATIONS).filter_map(figures).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_in_their_classes_and_kinds_by_their_names() {
        // No other test makes such a request in this process.
        let kind = "copy_file_range";
        for (micros, failed) in [(100, false), (101, true), (99_000_000, false)] {
            operation_done(kind, Duration::from_micros(micros), failed);
        }
        let of = |kind: &str| operations().into_iter().find(|figures| figures.kind == kind);
        let own = of(kind).unwrap();
        assert_eq!(own.within, [1, 2, 2, 2, 2, 2, 2, 2, 3]);
        assert!(own.failed == 1 && (own.seconds - 99.000_201).abs() < 1e-9);
        operation_done("none", Duration::ZERO, false);
        assert!(of("other").is_some() && of("none").is_none());
        let before = ProcessTally::ReadBytes.read();
        ProcessTally::ReadBytes.add(3);
        assert!(ProcessTally::ReadBytes.read() >= before + 3);
    }

    /// A new kind of request must be added here.
    #[test]
    fn every_kind_that_the_kernel_makes_has_a_name_here() {
        let mut dir = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/fuse")).unwrap();
        let mut found = 0;
        while let Some(Ok(file)) = dir.next() {
            let Ok(text) = std::fs::read_to_string(file.path()) else { continue };
            for (at, call) in text.match_indices("Operation::of(\"") {
                let kind = text[at + call.len()..].split('"').next().unwrap();
                assert!(KINDS.contains(&kind), "{kind}");
                found += 1;
            }
        }
        assert!(found >= KINDS.len() - 2, "{found}");
    }
}
