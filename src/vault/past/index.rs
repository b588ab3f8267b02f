//! The map of a past state: a checkpoint and the commits after it up to that state, in an index of
//! its own.

use std::path::Path;

use super::PastState;
use crate::cache::Cache;
use crate::checkpoint::Base;
use crate::crypto::Keys;
use crate::index::{Index, IndexMemory, IndexOptions};
use crate::log::{Chain, Head};
use crate::types::{CommitNo, Hash};
use crate::vault::{Error, Result};

/// Makes the index of a state in `dir`, which is created or emptied. It does not change any more.
///
/// # Errors
/// [`Error::Rollback`] if its commit is not the one that later states know (O2); what the chain
/// says.
pub(in crate::vault) async fn index_of(
    state: &PastState,
    chain: &Chain,
    keys: &Keys,
    cache: &Cache,
    dir: &Path,
) -> Result<(Index, Head)> {
    let anchor =
        state.base.as_ref().map_or((CommitNo(0), Hash::ZERO), |m| (m.commit, m.commit_hash));
    let base = match state.base.clone() {
        Some(manifest) => Base::new(manifest, keys.clone(), cache.clone()),
        None => Base::empty(),
    };
    Index::wipe(dir).map_err(Error::io("an index of the past cannot be deleted"))?;
    let memory = IndexMemory::of(0); // read once, or by few: the least
    let index =
        Index::open(IndexOptions { dir: dir.to_owned(), keys: keys.clone(), base, memory })?;
    index.begin_at_base();
    let number = state.as_of.commit;
    let (_, hash) =
        chain.walk(anchor, number, |link| Ok::<_, Error>(index.apply_commit(&link)?)).await?;
    if !state.is(&hash) {
        return Err(Error::Rollback { number });
    }
    Ok((index, Head { number, hash, seen: state.as_of.time.into() }))
}
