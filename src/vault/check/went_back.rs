//! Whether the bucket is as new as what this machine saw of it (O2), as a mount would find.

use super::findings::about_the_object;
use super::map::{Map, MergedRecord};
use super::{Checker, Result};
use crate::log::{self, Chain};
use crate::records::{hash_in_history, history_place};
use crate::types::{CommitNo, Hash};

impl Checker<'_> {
    /// The key of the record with the hash of what this machine saw, if that is older than the checkpoint.
    pub(super) fn history_of_seen(&self, map: &Map<'_>) -> Option<Vec<u8>> {
        let seen = self.seen.filter(|seen| seen.number < map.anchor().0 && seen.number.0 > 0)?;
        Some(history_place(seen.number).0.encode())
    }

    /// The commit that this machine saw, if it is gone from the bucket or differs. For a log that cannot be read to its
    /// end nothing is reported here: that is in the report already.
    pub(super) async fn went_back(
        &self,
        map: &Map<'_>,
        history: Option<Vec<u8>>,
    ) -> Result<Option<CommitNo>> {
        let Some(seen) = self.seen.filter(|seen| seen.number.0 > 0) else { return Ok(None) };
        let anchor = map.anchor();
        let same = if seen.number > anchor.0 {
            !map.whole || map.hash_of_seen == Some(seen.hash)
        } else if seen.number == anchor.0 {
            seen.hash == anchor.1
        } else if let Some(run) = history {
            hash_in_history(&run, history_place(seen.number).1)?
                .is_some_and(|found| seen.hash.0[..16] == found)
        } else {
            self.leads_to(seen.number, seen.hash, anchor).await?
        };
        Ok(if same { None } else { Some(seen.number) })
    }

    async fn leads_to(
        &self,
        number: CommitNo,
        hash: Hash,
        anchor: (CommitNo, Hash),
    ) -> Result<bool> {
        let chain = Chain::new(self.bucket.clone(), self.keys.clone());
        let walked = chain.walk((number, hash), anchor.0, |_| Ok::<_, log::Error>(())).await;
        match walked {
            Ok((_, hash)) => Ok(hash == anchor.1),
            Err(error) if about_the_object(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Keeps the value of the record with this key when the walk passes it.
pub(super) fn catch(record: &MergedRecord<'_>, key: Option<&Vec<u8>>, into: &mut Option<Vec<u8>>) {
    if let (Some(key), Some(now)) = (key, record.now)
        && record.key == key.as_slice()
    {
        *into = Some(now.to_vec());
    }
}
