//! What this machine has learned of a vault's store: in what it must be asked otherwise than Amazon's. Losing it costs a
//! request that is refused.

use std::path::PathBuf;

use super::Options;
use crate::os::{read_small, replace};

/// Bytes of the file at most.
const MOST: u64 = 4096;

fn path(options: &Options) -> PathBuf {
    options.machine.data_dir.join(format!("{}.store", options.unlocked.vault))
}

/// Tells the bucket what was learned in earlier processes, before anything is put there.
pub(super) fn recall(options: &Options) {
    match read_small(&path(options), MOST) {
        Ok(known) => options.bucket.recall(&String::from_utf8_lossy(&known.unwrap_or_default())),
        Err(error) => {
            tracing::warn!(%error, "what is known of the store cannot be read; it is learned again");
        }
    }
}

/// Remembers what is known now, once something was put.
pub(super) fn remember(options: &Options) {
    let (path, learned) = (path(options), options.bucket.learned());
    let known = read_small(&path, MOST).ok().flatten().unwrap_or_default();
    if known != learned.as_bytes()
        && let Err(error) = replace(&path, learned.as_bytes())
    {
        tracing::warn!(%error, "what was learned of the store is not remembered; it is learned again");
    }
}
