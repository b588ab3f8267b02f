//! Past states that an open vault shows beside the current one.

use std::sync::Arc;

use super::kept::CachedCommits;
use super::past_dir::PastDir;
use super::{PastState, States, index_of};
use crate::index::Index;
use crate::log::{Chain, Head};
use crate::types::{AsOf, CommitNo, Seq, StateAt, Timestamp};
use crate::upload::{Staging, StagingLimits};
use crate::vault::budgets::open_content;
use crate::vault::durability::ReaderDurability;
use crate::vault::open_vault::Vault;
use crate::vault::this_machine::make_private;
use crate::vault::{Error, Fsync, Result};
use crate::vfs::{Vfs, VfsOptions};

/// A past state of the vault; read-only.
pub struct Past {
    /// The state as a file system, usable while this lives.
    pub vfs: Vfs,
    /// Which state it is.
    pub as_of: AsOf,
    /// Declared last, so dropped after what uses it.
    _dir: PastDir,
}

impl Vault {
    /// What is known of the states in the bucket.
    pub(in crate::vault) async fn states(&self) -> Result<States<'_>> {
        let options = self.options();
        let head = self.head.lock().number;
        States::read(&options.bucket, &options.unlocked.keys, &self.index, head).await
    }

    /// The log; commits that were read are not fetched again.
    pub(in crate::vault) fn kept_chain(&self) -> Chain {
        let options = self.options();
        let chain = Chain::new(options.bucket.clone(), options.unlocked.keys.clone());
        chain.keeping(Arc::new(CachedCommits(self.cache().clone())))
    }

    /// The map of a state, in an index that lasts as long as the returned `PastDir`.
    pub(in crate::vault) async fn index_of_past(
        &self,
        state: &PastState,
    ) -> Result<(Index, Head, PastDir)> {
        let options = self.options();
        let keys = &options.unlocked.keys;
        let chain = self.kept_chain();
        let dir = PastDir::new(&options.state_dir)?;
        let (index, head) = index_of(state, &chain, keys, self.cache(), &dir.index()).await?;
        Ok((index, head, dir))
    }

    /// The names of all snapshots that count by this machine's clock, with their commits. Asks no store.
    ///
    /// # Errors
    /// What the index says.
    pub async fn snapshot_names(&self) -> Result<Vec<(Vec<u8>, CommitNo)>> {
        let pins = self.index.read(|view| view.pins()).await.map_err(Error::from)?;
        let kept = pins.into_iter().filter(|(_, pin)| pin.is_kept(Timestamp::now()));
        Ok(kept.map(|(name, pin)| (name, pin.commit)).collect())
    }

    /// A past state as a file system.
    ///
    /// # Errors
    /// [`Error::NoState`]; what the store and the log say.
    pub async fn past(&self, at: &StateAt) -> Result<Past> {
        let state = self.states().await?.find(at).await?;
        let (index, _, dir) = self.index_of_past(&state).await?;
        index.make_read_only("it shows the past");
        let staging = dir.staging();
        make_private(&staging)?;
        let staging = Staging::open(&staging, StagingLimits::default())?;
        let content = open_content(self.options(), self.cache(), &staging, 0);
        let how = VfsOptions { read_only: true, fsync: Fsync::Local };
        let nothing = ReaderDurability(self.options().bucket.clone());
        let vfs = Vfs::new(index, content, Arc::new(nothing), how, Seq(0));
        Ok(Past { vfs, as_of: state.as_of, _dir: dir })
    }
}
