//! Writing the delta to sled, and moving it to a newer base (J9).

use super::{Index, Result, Totals};
use crate::checkpoint::Base;
use crate::os::{self, PipelineStep};
use crate::types::Seq;

impl Index {
    /// Writes the memtable to sled, in one batch with its point (J4).
    pub fn drain(&self) -> Result<()> {
        self.0.drain()
    }

    /// As [`Index::drain`], but stores the point even when no record changed, because the journal has changed under
    /// the records.
    pub fn persist_point(&self) -> Result<()> {
        match self.0.store(true) {
            // Then the records are not stored either: at worst the index is made anew (J4).
            Err(error) if error.is_full() => Ok(()),
            other => other,
        }
    }

    /// Makes everything durable in sled. Returns the transaction up to which the journal can be removed (J5). Blocks.
    pub fn flush(&self) -> Result<Seq> {
        let seq = self.point().seq;
        self.drain()?;
        self.0.watched(self.0.sled().db().flush())?;
        Ok(seq)
    }

    /// Moves to a newer base, then drops the records that it covers (J9). The point that names the new base is durable
    /// before the first record goes: over another base, the remaining ones mean nothing. Blocks for as long as it
    /// takes to read the records in sled; look-ups go on meanwhile. Also used for an index that was opened over a
    /// newer base than its point names.
    pub fn rebase(&self, base: Base) -> Result<()> {
        let said = base.manifest().map(|m| (m.commit, m.commit_hash, Totals::of(m)));
        let Some((commit, hash, totals)) = said else { return Ok(()) };
        let switched = self.0.store_with(true, |layers| {
            if commit > layers.point.commit || commit <= layers.point.base {
                return None;
            }
            layers.base = base;
            layers.point.base = commit;
            layers.point.base_hash = hash;
            layers.correct(commit, totals);
            let covered = layers.counts.get(&commit).copied();
            layers.counts = layers.counts.split_off(&commit);
            Some(covered)
        });
        let covered = match switched {
            // The next checkpoint, or mount, tries again: the old base is just as correct.
            Err(error) if error.is_full() => {
                tracing::info!(commit = commit.0, "the disk is full: the base stays what it was");
                return Ok(());
            }
            other => other?,
        };
        os::reached(PipelineStep::BaseSwitched);
        // What a commit covers is unknown if the index did not see it. Then all records stay, which is correct too.
        let Some(Some(count)) = covered else { return Ok(()) };
        let sled = self.0.sled();
        let dropped = match self.0.watched(sled.db().flush()) {
            Err(error) if error.is_full() => 0,
            other => other.and_then(|()| self.0.watched(sled.drop_covered(count, commit)))?,
        };
        os::reached(PipelineStep::CoveredDropped);
        tracing::debug!(commit = commit.0, dropped, "the base moved");
        Ok(())
    }
}
