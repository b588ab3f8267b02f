//! The map as in the bucket: the newest checkpoint's pages, and the commits after it.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::super::Result;
use super::findings::{Finding, about_the_object, about_the_page};
use crate::checkpoint::{self, Manifest, PageRecords, PageRef, manifest_name, newest, open_page};
use crate::crypto::Keys;
use crate::log::{self, Chain, Seen, open_object};
use crate::records::{Key, Transaction, extent_of};
use crate::store::Bucket;
use crate::types::{CommitNo, Extent, Generation, Hash, InodeNo};

/// How many pages are fetched at once: 8 MiB of memory.
const PAGES: usize = 8;

/// The map, to be walked as often as needed.
pub(super) struct Map<'a> {
    bucket: &'a Bucket,
    keys: &'a Keys,
    /// The checkpoint that it starts from.
    pub(super) manifest: Option<Manifest>,
    /// What the later commits changed; `None` = deleted. K1 keeps it small.
    changed: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// The number of these commits.
    pub(super) commits: u64,
    /// The highest superblock generation that they or the manifest name (O1).
    pub(super) generation: Generation,
    /// Whether the log could be read to its end.
    pub(super) whole: bool,
    /// Hash of the commit with the number that this machine saw, if it comes after the checkpoint.
    pub(super) hash_of_seen: Option<Hash>,
}

/// A record in a walk: its value in the checkpoint, and its current value.
pub(super) struct MergedRecord<'a> {
    pub(super) key: &'a [u8],
    pub(super) base: Option<&'a Bytes>,
    pub(super) now: Option<&'a Bytes>,
}

impl MergedRecord<'_> {
    /// The extent that it refers to now, and the inode it belongs to.
    pub(super) fn extent(&self) -> Result<Option<(InodeNo, Extent)>> {
        let Some(now) = self.now else { return Ok(None) };
        let (Key::Inode(ino) | Key::Extent(ino, _)) = Key::decode(self.key)? else {
            return Ok(None);
        };
        Ok(extent_of(self.key, now)?.map(|extent| (ino, extent)))
    }
}

impl<'a> Map<'a> {
    /// Finds the newest checkpoint that verifies, and follows the log from there to its end.
    pub(super) async fn open(
        bucket: &'a Bucket,
        keys: &'a Keys,
        seen: Option<Seen>,
        findings: &mut Vec<Finding>,
    ) -> Result<Self> {
        let found = newest(bucket, keys).await?;
        for (number, error) in found.refused {
            let what = format!("{error}; an older checkpoint and the log make up for it");
            findings.push(Finding::of(manifest_name(number), what));
        }
        let mut map = Self {
            bucket,
            keys,
            generation: found.manifest.as_ref().map_or(Generation(0), |m| m.generation),
            manifest: found.manifest,
            changed: BTreeMap::new(),
            commits: 0,
            whole: true,
            hash_of_seen: None,
        };
        let (anchor, hash_of_seen) = (map.anchor(), &mut map.hash_of_seen);
        let (changed, commits, generation) =
            (&mut map.changed, &mut map.commits, &mut map.generation);
        let followed = Chain::new(bucket.clone(), keys.clone())
            .follow(anchor, |link| {
                *commits += 1;
                if seen.is_some_and(|seen| seen.number == link.number) {
                    *hash_of_seen = Some(link.hash);
                }
                *generation = link.content.header.generation.max(*generation);
                for record in link.content.header.records {
                    changed.insert(record.key, record.value);
                }
                for bytes in &link.content.transactions {
                    Transaction::visit(bytes, |key, value| {
                        changed.insert(key.to_vec(), value.map(Bytes::copy_from_slice));
                        Ok::<_, log::Error>(())
                    })?;
                }
                Ok::<_, log::Error>(())
            })
            .await;
        match followed {
            Ok(_) => {}
            Err(error) if about_the_object(&error) => {
                map.whole = false;
                let what = format!(
                    "{error}; what was changed in commit {} and later cannot be read, and the \
                     vault does not mount",
                    anchor.0.0 + map.commits + 1
                );
                findings.push(Finding::of("log/", what));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(map)
    }

    /// The commit of the checkpoint, and its hash.
    pub(super) fn anchor(&self) -> (CommitNo, Hash) {
        let manifest = self.manifest.as_ref();
        manifest.map_or((CommitNo(0), Hash::ZERO), |m| (m.commit, m.commit_hash))
    }

    pub(super) fn pages(&self) -> &[PageRef] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.pages)
    }

    /// Walks all records in order. Pages that cannot be read are skipped, and returned.
    pub(super) async fn walk(
        &self,
        mut each: impl FnMut(MergedRecord<'_>) -> Result<()>,
    ) -> Result<Vec<(&PageRef, checkpoint::Error)>> {
        let mut changed = self.changed.iter().peekable();
        let mut bad = Vec::new();
        let mut pages = stream::iter(self.pages())
            .map(|page| async move { (page, self.page(page).await) })
            .buffered(PAGES);
        while let Some((page, records)) = pages.next().await {
            let mut records = match records {
                Ok(records) => records,
                Err(error) if about_the_page(&error) => {
                    bad.push((page, error));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            while let Some((key, value)) = records.next()? {
                while let Some((key, now)) = changed.next_if(|(changed, _)| changed[..] < key[..]) {
                    each(MergedRecord { key, base: None, now: now.as_ref() })?;
                }
                let now = changed.next_if(|(changed, _)| changed[..] == key[..]);
                let now = now.map_or(Some(&value), |(_, now)| now.as_ref());
                each(MergedRecord { key: &key, base: Some(&value), now })?;
            }
        }
        for (key, now) in changed {
            each(MergedRecord { key, base: None, now: now.as_ref() })?;
        }
        Ok(bad)
    }

    async fn page(&self, page: &PageRef) -> checkpoint::Result<PageRecords> {
        let open = |sealed: &Bytes| open_page(self.keys, page, sealed);
        open_object(self.bucket, &page.name(), None, open).await
    }
}
