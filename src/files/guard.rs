//! An open file that cannot be left open.

use crate::os;
use crate::vfs::{HandleId, Vfs};

/// An open file, which is closed when this is dropped.
pub struct HandleGuard {
    vfs: Vfs,
    handle: HandleId,
}

impl HandleGuard {
    /// Takes a handle over.
    pub fn new(vfs: &Vfs, handle: HandleId) -> Self {
        Self { vfs: vfs.clone(), handle }
    }

    /// Where it is open.
    pub fn vfs(&self) -> &Vfs {
        &self.vfs
    }

    /// The handle, good as long as this lives.
    pub fn handle(&self) -> HandleId {
        self.handle
    }
}

impl Drop for HandleGuard {
    fn drop(&mut self) {
        let (vfs, handle) = (self.vfs.clone(), self.handle);
        // A client that goes away drops us in the middle of anything, and a close may have to wait.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(os::watched("closing a file", async move {
            if let Err(error) = vfs.release(handle).await {
                tracing::warn!(%error, "closing a file");
            }
        }));
    }
}
