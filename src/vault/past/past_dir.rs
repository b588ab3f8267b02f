//! Directories of temporary indexes: of past states, and of a vault that was opened again (W5).

use std::fs;
use std::path::{Path, PathBuf};

use crate::crypto;
use crate::vault::Result;
use crate::vault::this_machine::make_private;

/// A directory for the index of one state, removed when this is dropped.
pub(in crate::vault) struct PastDir(PathBuf);

impl PastDir {
    pub(in crate::vault) fn new(state_dir: &Path) -> Result<Self> {
        let name = format!("{:016x}", u64::from_be_bytes(crypto::random()));
        let dir = state_dir.join(PAST).join(name);
        make_private(&dir)?;
        Ok(Self(dir))
    }

    pub(in crate::vault) fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.0.join("staging")
    }
}

impl Drop for PastDir {
    fn drop(&mut self) {
        // If it cannot be removed, the next mount removes it.
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "an index of the past is not removed");
        }
    }
}

/// In a vault's state directory.
const PAST: &str = "past";

/// Removes what a killed process left. The caller has locked the state directory.
pub(in crate::vault) fn clear(state_dir: &Path) {
    match fs::remove_dir_all(state_dir.join(PAST)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "indexes of the past are not removed");
        }
        _ => {}
    }
}
