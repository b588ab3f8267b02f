//! The steps of the pipeline by name, in one list. At each, a test can watch, kill the process, or make something fail.
//!
//! With the feature `testing`, `S3VAULT_FAILPOINT` arms one of them: `NAME,TIMES,WHAT`. When the step comes for the
//! TIMES-th time, the process does WHAT: `kill` sends SIGKILL to itself; `EIO` and `ENOSPC` make a step whose name begins
//! with "before" fail with that error. Without the feature none of this is in the program
//! (`scripts/evidence/failpoints.py` uses it).

use std::io;

/// Defines each step once.
macro_rules! steps {
    ($($step:ident = $name:literal,)*) => {
        /// A step that was just done. Those that begin with "before" are about to be done, and may fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum PipelineStep {
            $(#[doc = $name] $step,)*
        }

        #[cfg(feature = "testing")]
        impl PipelineStep {
            /// All steps.
            const ALL: &[Self] = &[$(Self::$step,)*];

            /// The step's name in `S3VAULT_FAILPOINT`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

// `failpoints.py` reads this list, and triggers every step.
steps! {
    // A write, a close: packs in staging, then the journal (J1).
    PackMake = "before making a pack",
    PackMade = "a pack was made",
    PackWrite = "before writing to a pack",
    PackWritten = "a pack was written to",
    PackClose = "before closing a pack",
    PackClosed = "a pack was closed",
    JournalWrite = "before writing to the journal",
    JournalWritten = "the journal was written to",
    TransactionJournaled = "a transaction was journaled",
    SegmentMake = "before making a segment",
    SegmentMade = "a segment was made",
    SegmentNamed = "a segment has its name",
    // A barrier (J2), and what leaves staging after it (C4, J3).
    DropsNoted = "drops were noted",
    PackSync = "before syncing a pack",
    PackSynced = "a pack was synced",
    DirectorySynced = "the directory of packs was synced",
    JournalSync = "before syncing the journal",
    JournalSynced = "the journal was synced",
    BarrierWritten = "a barrier was written",
    PackDropped = "a pack was dropped",
    PackLeft = "a pack left staging",
    // The index (J4, J9), and segments that go (J5).
    IndexWrite = "before writing to the index",
    IndexWritten = "the index was written to",
    IndexFlushed = "the index was flushed",
    SegmentRemoved = "a segment was removed",
    // The way to the bucket (C1, C2, C5).
    PackRead = "a pack was read to be sent",
    PackPut = "a pack was put",
    PackConfirmed = "a pack was confirmed",
    CommitPrepared = "a commit was prepared",
    CommitPut = "a commit was put",
    CommitConfirmed = "a commit was confirmed",
    Noted = "a receipt was noted",
    HeadRemembered = "the head was remembered",
    // A checkpoint, and the index on it (K1, K2, J9).
    PagePut = "a page was put",
    ManifestPut = "a manifest was put",
    CheckpointMade = "a checkpoint was made",
    BaseSwitched = "the base was switched",
    CoveredDropped = "what the base covers was dropped",
    // Deletion in the bucket (K5).
    Frozen = "packs were frozen",
    DeletionProven = "a deletion has its receipt",
    Deleted = "objects were deleted",
    // A change of the keys (K6).
    SuperblockPut = "a superblock was put",
    OldSuperblocksGone = "old superblocks were deleted",
    KeyEpochBegun = "a key epoch was begun",
    // What older epochs sealed (K8).
    Renewed = "a part of a file was sealed anew",
    RenewalNoted = "the end of the sealing anew was noted",
    EpochsRetired = "older epochs were retired",
    // A mount (W1, J7).
    PackRecovered = "a pack was recovered",
    PackForgotten = "a pack that nothing refers to was removed",
    JournalBegun = "a journal was begun",
    JournalResumed = "a journal was resumed",
    JournalReplayed = "a journal was replayed",
    Claimed = "the vault was claimed",
    // What does not fit the log any more (W1).
    AsideLinked = "files to set aside were linked",
    AsideRecorded = "records to set aside were written",
    AsideSynced = "what is set aside was synced",
    AsideNamed = "what is set aside has its name",
    OldJournalRemoved = "a file of an old journal was removed",
    // An end (W1).
    Released = "the vault was released",
    ReleaseNoted = "the release was noted",
    CleanNoted = "the clean end was noted",
}

/// Notes that a step was done.
#[inline]
pub fn reached(step: PipelineStep) {
    #[cfg(feature = "testing")]
    drop(armed::meet(step));
    #[cfg(not(feature = "testing"))]
    let _ = step;
}

/// Does a step that may fail.
#[inline]
pub fn before<T>(step: PipelineStep, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(feature = "testing")]
    armed::meet(step)?;
    #[cfg(not(feature = "testing"))]
    let _ = step;
    call()
}

#[cfg(feature = "testing")]
pub use armed::{Observing, observe};

#[cfg(feature = "testing")]
mod armed {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, LazyLock};

    use parking_lot::RwLock;
    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    use super::PipelineStep;

    const VARIABLE: &str = "S3VAULT_FAILPOINT";

    struct Armed {
        step: PipelineStep,
        times: u64,
        met: AtomicU64,
        what: What,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum What {
        Kill,
        Fail(Errno),
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let armed = parse(&text);
        if armed.is_none() {
            tracing::error!(text, "{VARIABLE} names no step, count and effect");
        }
        armed
    });

    type Observer = Arc<dyn Fn(PipelineStep) + Send + Sync>;
    static OBSERVERS: RwLock<Vec<Observer>> = RwLock::new(Vec::new());

    /// As long as this lives, an observer is called for every step of this process.
    #[must_use]
    pub struct Observing(Observer);

    /// Calls `observer` for every step of this process, on the thread that does the step.
    pub fn observe(observer: impl Fn(PipelineStep) + Send + Sync + 'static) -> Observing {
        let observer: Observer = Arc::new(observer);
        OBSERVERS.write().push(observer.clone());
        Observing(observer)
    }

    impl Drop for Observing {
        fn drop(&mut self) {
            OBSERVERS.write().retain(|other| !Arc::ptr_eq(other, &self.0));
        }
    }

    fn parse(text: &str) -> Option<Armed> {
        let mut words = text.split(',');
        let (name, times, what) = (words.next()?, words.next()?, words.next()?);
        let step = *PipelineStep::ALL.iter().find(|step| step.name() == name)?;
        let what = match what {
            "kill" => What::Kill,
            "EIO" => What::Fail(Errno::IO),
            "ENOSPC" => What::Fail(Errno::NOSPC),
            _ => return None,
        };
        Some(Armed { step, times: times.parse().ok()?, met: AtomicU64::new(0), what })
    }

    pub(super) fn meet(step: PipelineStep) -> io::Result<()> {
        let observers = OBSERVERS.read().clone();
        observers.iter().for_each(|observer| observer(step));
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.step == step) else { return Ok(()) };
        if armed.met.fetch_add(1, Ordering::Relaxed) + 1 != armed.times {
            return Ok(());
        }
        match armed.what {
            What::Kill => {
                tracing::warn!(step = step.name(), "a failpoint ends this process");
                // Nothing runs after this, not even what other threads were about to do.
                _ = kill_process(getpid(), Signal::KILL);
                loop {
                    std::thread::park();
                }
            }
            What::Fail(error) => {
                tracing::warn!(step = step.name(), %error, "a failpoint lets this fail");
                Err(error.into())
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_failpoint_is_named_as_its_step_and_an_observer_hears_of_it() {
            let armed = parse("a pack was made,3,kill").unwrap();
            assert_eq!(
                (armed.step, armed.times, armed.what),
                (PipelineStep::PackMade, 3, What::Kill)
            );
            assert_eq!(parse("before making a pack,1,EIO").unwrap().what, What::Fail(Errno::IO));
            assert!(parse("a pack was made").is_none() && parse("a pack,1,kill").is_none());
            let mut names: Vec<_> = PipelineStep::ALL.iter().map(|step| step.name()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), PipelineStep::ALL.len(), "two steps have one name");

            let seen = Arc::new(AtomicU64::new(0));
            let observing = observe({
                let seen = seen.clone();
                move |step| {
                    seen.fetch_add(u64::from(step == PipelineStep::Claimed), Ordering::Relaxed);
                }
            });
            super::super::reached(PipelineStep::Claimed);
            drop(observing);
            super::super::reached(PipelineStep::Claimed);
            assert!(seen.load(Ordering::Relaxed) >= 1);
        }
    }
}
