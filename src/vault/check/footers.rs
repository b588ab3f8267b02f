//! Checks that each pack ends in a footer that opens.

use futures_util::{StreamExt, stream};

use super::findings::is_finding;
use super::{Checker, Flaw, Flaws, PackTally, Result};
use crate::store;
use crate::types::PackId;
use crate::upload::pack_object;
use crate::vault::pack_footer::read_footer;

/// How many footers are fetched at once.
const PARALLEL: usize = 16;

impl Checker<'_> {
    /// Opens the footer of every pack that is there. With `read_data` that is done later, when
    /// whole packs are read.
    pub(super) async fn footers(
        &self,
        survey: &PackTally,
        flaws: &mut Flaws,
        read_data: bool,
    ) -> Result<()> {
        let all = survey.ends.len() as u64;
        let mut done = 0;
        let there: Vec<_> = survey.ends.keys().filter(|id| !flaws.contains_key(id)).collect();
        let there = if read_data { Vec::new() } else { there };
        let mut checked = stream::iter(there)
            .map(|&id| async move { (id, self.footer(id).await) })
            .buffer_unordered(PARALLEL);
        while let Some((id, result)) = checked.next().await {
            if let Some(what) = result? {
                flaws.insert(id, Flaw { what, inodes: Some(Vec::new()) });
            }
            done += 1;
            (self.progress)(done, all);
        }
        Ok(())
    }

    /// What is wrong with a pack's footer, if anything.
    async fn footer(&self, id: PackId) -> Result<Option<String>> {
        let found = match self.footer_of(&pack_object(id), id).await {
            // Read again before it is believed: it may have changed on the way.
            Ok(Some(_)) => self.footer_of(&pack_object(id), id).await,
            other => other,
        };
        match found {
            Ok(wrong) => Ok(wrong),
            Err(error) if is_finding(&error) => Ok(Some(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    async fn footer_of(&self, name: &str, id: PackId) -> store::Result<Option<String>> {
        let length = self.bucket.head(name).await?.length;
        let found = read_footer(self.bucket, self.keys, id, length).await?;
        let only = "it holds what is needed, but not what it takes to salvage it alone";
        Ok(found.err().map(|why| format!("its footer is bad ({why}); {only}")))
    }
}
