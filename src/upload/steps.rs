//! The steps of the pipeline, so that a test can watch each one, or stop there.

use std::fmt;
use std::sync::Arc;

use crate::os::{self, PipelineStep};

/// Tells a test of each step of one uploader or barrier (`os::PipelineStep` names them); does nothing otherwise.
#[derive(Clone, Default)]
pub struct StepObserver(Option<Arc<dyn Fn(PipelineStep) + Send + Sync>>);

impl StepObserver {
    /// Calls `observer` after each step.
    #[cfg(test)]
    pub fn watched(observer: impl Fn(PipelineStep) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observer)))
    }

    pub(super) fn done(&self, step: PipelineStep) {
        if let Some(observer) = &self.0 {
            observer(step);
        }
        os::reached(step);
    }
}

impl fmt::Debug for StepObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "StepObserver(watched)" } else { "StepObserver" })
    }
}
