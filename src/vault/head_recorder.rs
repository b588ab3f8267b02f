//! Remembers on this machine the head of the log that it saw (O2), and what it learned about the store on the way.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::store_facts::StoreMemory;
use crate::crypto::Keys;
use crate::log::{Receipt, Seen};
use crate::os::{self, PipelineStep};
use crate::types::{CommitNo, CurrentGeneration, Hash};

const TASK: &str = "remembering the head";

/// Remembers, after each commit, what this machine saw of the vault.
pub(super) struct HeadRecorder {
    dir: PathBuf,
    keys: Keys,
    generation: CurrentGeneration,
    /// What is still to be written.
    wanted: Mutex<Option<Seen>>,
    /// The last commit written. Held during a write, so that an older one never replaces a newer.
    written: Mutex<CommitNo>,
    store: StoreMemory,
}

impl HeadRecorder {
    pub(super) fn new(
        dir: PathBuf,
        keys: Keys,
        generation: CurrentGeneration,
        store: StoreMemory,
    ) -> Arc<Self> {
        let (wanted, written) = (Mutex::new(None), Mutex::new(CommitNo(0)));
        Arc::new(Self { dir, keys, generation, wanted, written, store })
    }

    /// Remembers now. A failure is logged, and retried with the next commit: until then a rollback of one commit
    /// might go unnoticed.
    pub(super) fn remember(&self, number: CommitNo, hash: Hash) {
        self.want(number, hash);
        self.write();
    }

    /// Remembers soon, in another task: the task that commits must not wait for this disk.
    pub(super) fn confirmed(self: &Arc<Self>, receipt: &Receipt) {
        if !self.want(receipt.number(), receipt.hash()) {
            return; // the write under way takes the newest
        }
        let recorder = self.clone();
        match tokio::runtime::Handle::try_current() {
            // After a panic the next commit's note takes the place of this one.
            Ok(_) => drop(os::blocking(move || {
                if os::watched_here(TASK, || recorder.write()).is_err() {
                    recorder.wanted.lock().take(); // else a write would count as under way forever
                }
            })),
            Err(_) => recorder.write(),
        }
    }

    /// Sets what is to be written. Returns whether nothing else was waiting to be.
    fn want(&self, number: CommitNo, hash: Hash) -> bool {
        let seen = Seen { number, hash, generation: self.generation.get() };
        self.wanted.lock().replace(seen).is_none()
    }

    fn write(&self) {
        let mut written = self.written.lock();
        let Some(seen) = self.wanted.lock().take() else { return };
        if seen.number < *written {
            return;
        }
        match seen.store(&self.dir, &self.keys) {
            Ok(()) => {
                os::reached(PipelineStep::HeadRemembered);
                *written = seen.number;
            }
            Err(error) => {
                tracing::warn!(%error, "the head of the log is not remembered on this machine");
            }
        }
        self.store.remember();
    }
}
