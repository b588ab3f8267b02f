//! The pipeline's steps by name, so that a test can watch, or stop, at each.

use std::fmt;
use std::sync::Arc;

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UploadStep {
    /// A pack was read from staging, to be sent.
    PackRead,
    /// The bucket has a pack, verified.
    PackConfirmed,
    /// The next commit was read from the journal and sealed.
    CommitPrepared,
    /// The bucket has a commit: there is a receipt.
    CommitConfirmed,
    /// The receipt is noted in the journal.
    Noted,
    /// One pack was fsynced for a barrier.
    PackSynced,
    /// The staging directory was fsynced for a barrier.
    DirectorySynced,
    /// The journal was fsynced, and the barrier written.
    BarrierWritten,
    /// A pack left staging.
    PackLeft,
    /// The journal was told which packs need not be sent any more.
    DropsNoted,
    /// A pack that nothing refers to was removed unsent.
    PackDropped,
}

/// Tells a test of each step; does nothing otherwise.
#[derive(Clone, Default)]
pub struct StepObserver(Option<Arc<dyn Fn(UploadStep) + Send + Sync>>);

impl StepObserver {
    /// Calls `observer` after each step.
    #[cfg(test)]
    pub fn watched(observer: impl Fn(UploadStep) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observer)))
    }

    pub(super) fn done(&self, step: UploadStep) {
        if let Some(observer) = &self.0 {
            observer(step);
        }
    }
}

impl fmt::Debug for StepObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "StepObserver(watched)" } else { "StepObserver" })
    }
}
