//! Reads pages from the bucket and writes them to it.

use bytes::Bytes;
use tokio::task::JoinSet;

use super::build_context::BuildContext;
use super::manifest::{PageRef, page_name};
use super::page::{PageRecords, PlainPage};
use super::{Error, Result};
use crate::crypto::{self, FIRST_EPOCH, Keys, Place};
use crate::log::open_object;
use crate::os::{self, PipelineStep};
use crate::types::{CommitNo, PageId};

/// Concurrent uploads: enough to fill a link besides the other work, at 6 MiB of memory.
const UPLOADS: usize = 4;

/// Opens a whole page, as it is in the bucket.
///
/// # Errors
/// If it is not, byte for byte, the page that its manifest names, or is malformed.
pub fn open_page(keys: &Keys, page: &PageRef, sealed: &[u8]) -> Result<PageRecords> {
    if crypto::sha256(sealed) != page.hash {
        return Err(Error::malformed(page.name(), "it is not the page that its manifest names"));
    }
    let plain = keys.open(page.place(), sealed).map_err(Error::seal(page.name()))?;
    PageRecords::of(&plain.into_bytes(), page.index_offset)
}

/// Page I/O of a merge: reads pages of the previous checkpoint, and writes the new ones, a few at a time.
pub(super) struct PageIo<'a> {
    context: &'a BuildContext<'a>,
    number: CommitNo,
    uploads: JoinSet<Result<()>>,
}

impl<'a> PageIo<'a> {
    /// For new pages of the checkpoint `number`.
    pub(super) fn new(context: &'a BuildContext<'a>, number: CommitNo) -> Self {
        Self { context, number, uploads: JoinSet::new() }
    }

    /// The verified records of a page.
    pub(super) async fn load(&self, page: &PageRef) -> Result<PageRecords> {
        // Pages on this machine are not awaited, and a merge takes seconds: this lets others use the thread in
        // between.
        tokio::task::yield_now().await;
        let (keys, name) = (self.context.keys, page.name());
        if let Some(local) = self.context.cache.whole_local(&name) {
            match open_page(keys, page, &local) {
                Ok(records) => return Ok(records),
                Err(_) => self.context.cache.forget(&name),
            }
        }
        open_object(self.context.bucket, &name, None, |sealed| open_page(keys, page, sealed)).await
    }

    /// Whether a page without changes can be shared: its key epoch is not too old.
    pub(super) fn may_share(&self, page: &PageRef) -> bool {
        let BuildContext { keys, oldest, .. } = self.context;
        let epoch = || keys.epoch_of(page.place(), &page.salt, &page.commitment);
        *oldest <= FIRST_EPOCH || epoch().is_some_and(|epoch| epoch >= *oldest)
    }

    /// Seals a page and starts its upload.
    pub(super) async fn store(&mut self, page: PlainPage) -> Result<PageRef> {
        tokio::task::yield_now().await;
        let id = PageId(crypto::random());
        let mut sealed = Vec::new();
        let place = Place::Page(self.number, id);
        let (salt, commitment) = self.context.keys.seal_into(place, &page.plain, &mut sealed);
        let sealed = Bytes::from(sealed);
        let reference = PageRef {
            first_key: page.first_key,
            number: self.number,
            id,
            sealed_length: sealed.len() as u64,
            plain_length: page.plain.len() as u64,
            index_offset: page.index_offset,
            salt,
            commitment,
            hash: crypto::sha256(&sealed),
            records: page.records,
            index: usize::try_from(page.index_offset).ok().map(|at| page.plain[at..].to_vec()),
        };
        while self.uploads.len() >= UPLOADS {
            self.uploaded().await?;
        }
        let (bucket, cache) = (self.context.bucket.clone(), self.context.cache.clone());
        let name = page_name(self.number, id);
        self.uploads.spawn(async move {
            bucket.put_new(&name, sealed.clone()).await?;
            os::reached(PipelineStep::PagePut);
            // When the index drops its records at the rebase, look-ups come to this page next.
            cache.insert_whole(&name, sealed);
            Ok(())
        });
        Ok(reference)
    }

    /// Waits until every page is in the bucket.
    pub(super) async fn finish(mut self) -> Result<()> {
        while !self.uploads.is_empty() {
            self.uploaded().await?;
        }
        Ok(())
    }

    async fn uploaded(&mut self) -> Result<()> {
        match self.uploads.join_next().await {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(Error::malformed("the upload of a page", error)),
        }
    }
}
