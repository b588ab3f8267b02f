//! Listings, page by page (in memory that does not grow with the number of objects) or collected.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::bucket::Bucket;
use super::error::{Error, Result};
use super::object::{Begin, Listed};

/// The most empty pages in a row: some stores skip over deleted objects this way.
const EMPTY_PAGES: u32 = 1000;
/// The most pages, usually of 1,000 objects: a longer listing is taken to be endless.
const PAGES_MAX: u32 = 100_000;
/// The most objects in a collected listing: some 100 MB of memory. What is listed this way is few, except for commits since a
/// checkpoint, of which there are a few thousand at most. What grows with a vault is listed with `Lister`.
const LISTED_MAX: usize = 1 << 20;

/// A listing in progress, in the store's own order. What is put or deleted meanwhile may be in it or not.
#[derive(Debug)]
pub struct Lister {
    bucket: Bucket,
    /// Includes the bucket's own prefix.
    prefix: String,
    /// `None`: the last page was read.
    next: Option<Begin>,
    empty: u32,
    pages: u32,
}

impl Lister {
    /// The objects whose names begin with `prefix`.
    pub fn of(bucket: &Bucket, prefix: &str) -> Self {
        let (bucket, prefix) = (bucket.clone(), bucket.full(prefix));
        Self { bucket, prefix, next: Some(Begin::First), empty: 0, pages: 0 }
    }

    /// The next page, and the store's time at it; `None` at the end.
    ///
    /// # Errors
    /// An error of the store; [`Error::Corrupt`] if the listing does not go forward.
    pub async fn next(&mut self) -> Result<Option<(Vec<Listed>, SystemTime)>> {
        while let Some(begin) = &self.next {
            let mut page = self.bucket.list_page(&self.prefix, begin).await?;
            self.next = page.more;
            self.pages += 1;
            self.empty = if page.objects.is_empty() { self.empty + 1 } else { 0 };
            if self.empty > EMPTY_PAGES || self.pages > PAGES_MAX {
                let reason = "its listing does not go forward".to_owned();
                return Err(Error::Corrupt { object: self.prefix.clone(), reason });
            }
            if page.objects.is_empty() {
                continue;
            }
            let cut = self.bucket.prefix_length();
            page.objects.iter_mut().for_each(|object| drop(object.name.drain(..cut)));
            return Ok(Some((page.objects, page.time)));
        }
        Ok(None)
    }
}

impl Bucket {
    /// All objects whose names begin with `prefix`, in the byte order of their names, and the store's time at the first page.
    pub async fn list_all(&self, prefix: &str) -> Result<(Vec<Listed>, SystemTime)> {
        self.list(prefix, None).await
    }

    /// As [`Bucket::list_all`], but only the objects after `after`.
    pub async fn list_after(&self, prefix: &str, after: &str) -> Result<(Vec<Listed>, SystemTime)> {
        self.list(prefix, Some(after)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<(Vec<Listed>, SystemTime)> {
        let prefix = self.full(prefix);
        let first = after.map(|after| self.full(after));
        let cut = self.prefix_length();
        let mut begin = first.clone().map_or(Begin::First, Begin::After);
        // Some stores list in the order of a directory tree, or in none; some begin at `after` itself, or ignore it.
        let mut by_name = BTreeMap::new();
        let (mut time, mut empty) = (None, 0);
        loop {
            let page = self.list_page(&prefix, &begin).await?;
            time.get_or_insert(page.time);
            let (was, repeats) = (by_name.len(), !page.objects.is_empty());
            by_name.extend(page.objects.into_iter().map(|object| (object.name.clone(), object)));
            let Some(more) = page.more else { break };
            begin = more;
            empty = if by_name.len() > was { 0 } else { empty + 1 };
            if empty > 0 && (repeats || empty > EMPTY_PAGES) {
                let reason = "its listing does not go forward".to_owned();
                return Err(Error::Corrupt { object: prefix, reason });
            }
            if by_name.len() > LISTED_MAX {
                let reason =
                    format!("more than {LISTED_MAX} objects are listed there: not by s3vault");
                return Err(Error::Corrupt { object: prefix, reason });
            }
        }
        let after = first.unwrap_or_default();
        let mut found: Vec<_> =
            by_name.into_values().filter(|object| object.name > after).collect();
        for object in &mut found {
            object.name.drain(..cut);
        }
        Ok((found, time.unwrap_or(SystemTime::UNIX_EPOCH)))
    }
}
