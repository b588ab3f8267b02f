//! Inodes without names that the kernel has forgotten, until they are removed. `rm -rf` makes thousands of them: one
//! transaction removes many, so that `rm` need not wait for a removal with every name.

use std::time::Duration;

use parking_lot::Mutex;

use crate::types::InodeNo;

use super::Vfs;

/// How many are removed by one transaction. For small files it takes a millisecond, in which nothing else can change.
pub(super) const AT_ONCE: usize = 64;
/// How long the first one waits for others. A commit waits longer for what goes into it, so unlink and removal are in
/// the same commit.
const WAIT: Duration = Duration::from_millis(50);

/// The inodes to be removed. In the map they are orphans: if this list is lost, the next mount removes them (rule V3).
#[derive(Default)]
pub(super) struct Departing(Mutex<DepartingInodes>);

#[derive(Default)]
struct DepartingInodes {
    inodes: Vec<InodeNo>,
    /// Somebody will take them in a moment.
    is_timed: bool,
}

/// What the caller of [`Vfs::forget`] has left to do: see [`Vfs::depart`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Departure(Takes);

#[derive(Debug, PartialEq, Eq)]
enum Takes {
    /// Remove what has gathered here, in a moment.
    Soon,
    /// Remove these now.
    Now(Vec<InodeNo>),
}

impl Departing {
    fn add(&self, ino: InodeNo) -> Option<Takes> {
        let mut waiting = self.0.lock();
        waiting.inodes.push(ino);
        if waiting.inodes.len() >= AT_ONCE {
            return Some(Takes::Now(std::mem::take(&mut waiting.inodes)));
        }
        (!std::mem::replace(&mut waiting.is_timed, true)).then_some(Takes::Soon)
    }

    /// Takes all. The next one to come is the first again.
    pub(super) fn take(&self) -> Vec<InodeNo> {
        std::mem::take(&mut *self.0.lock()).inodes
    }
}

impl Vfs {
    /// An inode without names, which the kernel was the last to hold, is to be removed.
    pub(super) fn departs(&self, ino: InodeNo) -> Option<Departure> {
        self.inner.departing.add(ino).map(Departure)
    }

    /// Removes what the kernel has forgotten.
    pub async fn depart(&self, departure: Departure) {
        match departure.0 {
            Takes::Soon => {
                // If this is never polled to its end, housekeeping removes them.
                let begun = self.inner.left_over.begin();
                tokio::time::sleep(WAIT).await;
                self.depart_now().await;
                begun.done();
            }
            Takes::Now(inodes) => self.finish_orphans(&inodes).await,
        }
    }

    /// Removes all that wait.
    pub(super) async fn depart_now(&self) {
        let inodes = self.inner.departing.take();
        self.finish_orphans(&inodes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takes_what_comes_in_a_moment_and_nobody_waits_once_they_are_many() {
        let departing = Departing::default();
        assert_eq!(departing.add(InodeNo(1)), Some(Takes::Soon));
        assert_eq!(departing.add(InodeNo(2)), None);
        assert_eq!(departing.take(), [InodeNo(1), InodeNo(2)]);
        assert_eq!(departing.add(InodeNo(3)), Some(Takes::Soon));
        for n in 1..AT_ONCE as u64 - 1 {
            assert_eq!(departing.add(InodeNo(3 + n)), None);
        }
        let all: Vec<_> = (3..3 + AT_ONCE as u64).map(InodeNo).collect();
        assert_eq!(departing.add(*all.last().unwrap()), Some(Takes::Now(all)));
        assert_eq!(departing.add(InodeNo(9)), None, "the first one still comes");
        assert_eq!(departing.take(), [InodeNo(9)]);
        assert_eq!(departing.take(), []);
    }
}
