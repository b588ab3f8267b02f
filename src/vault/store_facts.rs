//! What this machine knows about a vault's store from earlier mounts: how requests must differ from those to
//! Amazon's, and whether its conditional puts hold (W6). If this is lost, it is found out again.

use std::path::PathBuf;

use parking_lot::Mutex;

use super::{Error, Result, VaultOptions};
use crate::os::{read_small, replace};
use crate::store::{Bucket, Conditional};

/// Maximum length of the file, in bytes.
const MOST: u64 = 4096;

fn path(options: &VaultOptions) -> PathBuf {
    options.machine.data_dir.join(format!("{}.store", options.unlocked.vault))
}

/// What the bucket learned about its store, kept for the next process.
pub(super) struct StoreMemory {
    path: PathBuf,
    bucket: Bucket,
    /// The content of the file.
    known: Mutex<String>,
}

impl StoreMemory {
    /// Tells the bucket what earlier processes learned, before anything is put.
    pub(super) fn recalled(options: &VaultOptions) -> Self {
        let (path, bucket) = (path(options), options.bucket.clone());
        let known = read_small(&path, MOST).unwrap_or_else(|error| {
            tracing::warn!(%error, "what is known of the store cannot be read; it is learned again");
            None
        });
        let known = String::from_utf8_lossy(&known.unwrap_or_default()).into_owned();
        bucket.recall(&known);
        Self { path, bucket, known: Mutex::new(known) }
    }

    /// Saves what is known now, after something was put. Writes nothing if nothing is new.
    pub(super) fn remember(&self) {
        let (mut known, learned) = (self.known.lock(), self.bucket.learned());
        if *known == learned {
            return;
        }
        match replace(&self.path, learned.as_bytes()) {
            Ok(()) => *known = learned,
            Err(error) => {
                tracing::warn!(%error, "what was learned of the store is not remembered; it is learned again");
            }
        }
    }
}

/// W6, once on each machine: tests whether parallel conditional puts have one winner. Returns a warning if they do
/// not.
pub(super) async fn check_conditional_puts(options: &VaultOptions) -> Result<Option<String>> {
    const SINGLE: &str = "the store does not honour conditional puts: only one machine may ever write \
                          this vault (--single-machine)";
    let single = options.single_machine;
    let marker = options.machine.data_dir.join(format!("{}.probed", options.unlocked.vault));
    let known = read_small(&marker, 64).unwrap_or_else(|error| {
        tracing::warn!(%error, "what is known of the store's conditional puts cannot be read");
        None
    });
    let found = match known.as_deref() {
        Some(b"ignored") => Conditional::Ignored,
        Some(b"refused") => Conditional::Refused,
        // With `--single-machine` it is tested again: the reason for that option may be newer than this result.
        Some(b"not disproved") if !single => Conditional::NotDisproved,
        // Missing or damaged: find it out again.
        _ => {
            let found = options.bucket.probe_conditional().await?;
            let word = match found {
                Conditional::NotDisproved => "not disproved",
                Conditional::Ignored => "ignored",
                Conditional::Refused => "refused",
            };
            if let Err(error) = replace(&marker, word.as_bytes()) {
                tracing::warn!(%error, "the result of a probe is not remembered; the next mount probes again");
            }
            found
        }
    };
    match found {
        Conditional::NotDisproved => return Ok(None),
        _ if !single => return Err(Error::NoConditionalPuts),
        Conditional::Ignored => {}
        Conditional::Refused => options.bucket.do_without_conditions(),
    }
    Ok(Some(SINGLE.into()))
}
