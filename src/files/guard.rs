//! An open file that is always closed.

use crate::os;
use crate::vfs::{HandleId, Vfs};

/// An open file that is closed when this is dropped.
pub struct HandleGuard {
    vfs: Vfs,
    handle: HandleId,
}

impl HandleGuard {
    /// Takes a handle over.
    pub fn new(vfs: &Vfs, handle: HandleId) -> Self {
        Self { vfs: vfs.clone(), handle }
    }

    /// The file system in which it is open.
    pub fn vfs(&self) -> &Vfs {
        &self.vfs
    }

    /// The handle, valid as long as this lives.
    pub fn handle(&self) -> HandleId {
        self.handle
    }
}

impl Drop for HandleGuard {
    fn drop(&mut self) {
        let (vfs, handle) = (self.vfs.clone(), self.handle);
        // A client that goes away drops this at any point, and a close may have to wait, so it runs
        // in a task.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(os::watched("closing a file", async move {
            if let Err(error) = vfs.release(handle).await {
                tracing::warn!(%error, "closing a file");
            }
        }));
    }
}
