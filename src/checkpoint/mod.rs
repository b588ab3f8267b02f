//! Checkpoints: the map as of a commit, sorted, in sealed pages with a manifest.
//!
//! [`build()`] merges the pages of the previous checkpoint with the commits since (K1), counts what
//! packs are still needed for (K3) and writes the manifest last (K2). [`newest()`] finds the
//! manifest to start from (O1). [`Base`] answers look-ups from its pages, block by block (J9).

mod base;
mod base_batch;
mod base_scan;
mod build;
mod build_context;
mod changes;
mod error;
#[cfg(feature = "testing")]
mod fuzzing;
mod kept_rows;
mod manifest;
mod merge;
mod newest;
mod older;
mod pack_rows;

mod page;
mod page_io;

#[cfg(test)]
mod tests;

pub use base::{Base, Found, Miss, Pins};
pub use base_scan::Scan;
pub use build::{CommitSource, SinceCheckpoint, SourcedCommit, build};
pub use build_context::BuildContext;
pub use error::{Error, Result};
#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;
pub use kept_rows::pack_row;
pub use manifest::{
    MANIFEST_MAX, MANIFESTS, Manifest, PageRef, TableSummary, manifest_name, page_name,
};
pub use newest::{ListedManifest, Newest, manifests, newest, newest_of};
pub use older::{OlderPacks, OlderPacksOf, OlderPart, older_packs, older_parts};
pub use pack_rows::PackInfo;
pub use page::{PageRecords, Sizes};
pub use page_io::open_page;
