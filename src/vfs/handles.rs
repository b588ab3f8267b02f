//! Open files: handles.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::content::File;

use super::{Error, Result};

/// Identifies an open file until its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are independent, as the flags of open(2) are"
)]
pub struct OpenFlags {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Truncate the file (`O_TRUNC`).
    pub truncate: bool,
    /// With `create`: fail if the name exists (`O_EXCL`).
    pub exclusive: bool,
    /// Reads do not move the atime (`O_NOATIME`; the kernel has checked who may ask for it).
    pub no_atime: bool,
}

impl OpenFlags {
    /// From the flags of open(2).
    pub fn from_bits(flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        Self {
            read: mode != libc::O_WRONLY,
            write: mode == libc::O_WRONLY || mode == libc::O_RDWR,
            truncate: flags & libc::O_TRUNC != 0,
            exclusive: flags & libc::O_EXCL != 0,
            no_atime: flags & libc::O_NOATIME != 0,
        }
    }
}

/// One open file.
pub(super) struct OpenFile {
    pub(super) file: Arc<File>,
    pub(super) flags: OpenFlags,
}

/// The open files of this mount.
#[derive(Default)]
pub(super) struct Handles {
    next: AtomicU64,
    open: Mutex<HashMap<HandleId, Arc<OpenFile>>>,
}

impl Handles {
    /// A new handle for a file that is already held.
    pub(super) fn insert(&self, file: Arc<File>, flags: OpenFlags) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        self.open.lock().insert(id, Arc::new(OpenFile { file, flags }));
        id
    }

    pub(super) fn get(&self, id: HandleId) -> Result<Arc<OpenFile>> {
        self.open.lock().get(&id).cloned().ok_or(Error::BadHandle)
    }

    pub(super) fn remove(&self, id: HandleId) -> Result<Arc<OpenFile>> {
        self.open.lock().remove(&id).ok_or(Error::BadHandle)
    }
}
