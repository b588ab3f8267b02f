//! Somebody looks at the files of a large directory one after the other, on a machine that has none of it: fetches the
//! pages that they need next together, not block by block.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Vfs;
use super::read_dir::BROUGHT;
use crate::types::InodeNo;

/// This many look-ups in one directory, each within [`SOON`] of the one before, mean that more will follow.
const OFTEN: u32 = 3;
const SOON: Duration = Duration::from_secs(5);

/// The last look-ups that the local part of the map could not answer: directory, count, time of the last. Innermost in
/// the lock order.
#[derive(Default)]
pub(super) struct Missed(Mutex<Option<(InodeNo, u32, Instant)>>);

impl Missed {
    /// Counts one more of this directory. Returns whether there are many.
    fn one_of(&self, directory: InodeNo) -> bool {
        let (mut last, now) = (self.0.lock(), Instant::now());
        let count = match *last {
            Some((same, count, at)) if same == directory && at + SOON > now => count + 1,
            _ => 1,
        };
        *last = Some((directory, count, now));
        count >= OFTEN
    }
}

impl Vfs {
    /// A look-up of this name has to wait. If others in the same directory did so just before, fetches what comes after
    /// the name in the directory's order, and from the beginning if that is little. May be dropped: what was asked for
    /// is fetched all the same.
    pub(super) async fn missed(&self, directory: InodeNo, name: &[u8]) {
        if !self.inner.missed.one_of(directory) {
            return;
        }
        let Ok(hash) = self.read(|view| Ok(view.name_hash(directory, name))).await else { return };
        let Ok(mut next) = self.read_dir(directory, hash.cookie(), BROUGHT).await else { return };
        if next.len() < BROUGHT
            && let Ok(first) = self.read_dir(directory, 0, BROUGHT - next.len()).await
        {
            next.extend(first);
        }
        let inodes: Vec<_> = next.iter().map(|entry| entry.ino).collect();
        self.bring(&inodes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn some_of_one_directory_in_a_moment_are_many() {
        let missed = Missed::default();
        let (one, other) = (InodeNo(7), InodeNo(8));
        assert_eq!([one, one, one, one].map(|dir| missed.one_of(dir)), [false, false, true, true]);
        assert_eq!([other, one, one].map(|dir| missed.one_of(dir)), [false; 3]);
        tokio::time::advance(SOON).await;
        assert!(!missed.one_of(one));
    }
}
