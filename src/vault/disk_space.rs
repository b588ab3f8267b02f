//! Whether this machine's disk has room for a mount that can write.

use std::path::{Path, PathBuf};

use super::{Error, Result, VaultOptions};
use crate::log::Journal;
use crate::os::{self, Space};
use crate::types::MIB;
use crate::upload::cost;

/// What a mount for writing needs of a disk, beside what stays free: the smallest staging area with its reserve, and as
/// much again for journal, index and cache.
const NEEDED: u64 = 64 * MIB;
/// The largest write that the kernel sends at once.
const WRITE_MAX: u64 = MIB;

/// Refuses a mount for writing on a disk that is too small for one even when empty. It never refuses while something is
/// unsent, which must get to the bucket. Creates nothing on the disk.
pub(super) fn check(options: &VaultOptions) -> Result<()> {
    let Some(space) = space_at(&options.state_dir) else { return Ok(()) };
    if space.total.saturating_sub(os::keep_free(space.total)) >= NEEDED {
        return Ok(());
    }
    let journal = Journal::inspect(&options.state_dir.join("journal"), &options.unlocked.keys);
    // A damaged journal gets its own message.
    if journal.map_or(true, |found| found.is_some_and(|found| !found.unsent.is_empty())) {
        return Ok(());
    }
    // A tenth of the disk stays free, so it must be at least this large.
    let needed = (NEEDED * 10).div_ceil(9);
    Err(Error::SmallDisk { dir: options.state_dir.clone(), total: space.total, needed })
}

/// A warning, if at this moment nothing can be written because of the disk.
pub(super) fn warning(dir: &Path) -> Option<String> {
    let space = space_at(dir)?;
    let kept = os::keep_free(space.total);
    let missing =
        kept.saturating_add(cost(WRITE_MAX)).checked_sub(space.free).filter(|m| *m > 0)?;
    Some(format!(
        "the disk of {} has {} MiB free, and {} MiB of it stay free: what is written gets ENOSPC until there are {} \
         MiB more; delete something there, or mount with a --state-dir on another disk (when nothing is unsent)",
        dir.display(),
        space.free / MIB,
        kept / MIB,
        missing.div_ceil(MIB)
    ))
}

/// The disk of a directory that may not exist yet.
fn space_at(dir: &Path) -> Option<Space> {
    let there: PathBuf = dir.ancestors().find(|path| path.exists())?.into();
    os::space(&there).ok()
}
