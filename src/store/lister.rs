//! A listing page by page: what comes of it at once does not grow with the number of objects.

use std::time::SystemTime;

use super::bucket::Bucket;
use super::error::{Error, Result};
use super::object::{Begin, Listed};

/// Pages in a row that bring nothing, at most: some stores pass over what was deleted in this way.
const EMPTY_PAGES: u32 = 1000;
/// Pages at most, mostly of 1,000 objects: a listing that goes on for longer never ends.
const PAGES_MAX: u32 = 100_000;

/// A listing under way, in whatever order the store has. What is put or deleted meanwhile may be in it or not.
#[derive(Debug)]
pub struct Lister {
    bucket: Bucket,
    /// With the bucket's own prefix.
    prefix: String,
    /// `None`: that was the last page.
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

    /// The next page, and the store's clock at it; `None` at the end.
    ///
    /// # Errors
    /// What the store says; [`Error::Corrupt`] when the listing does not go forward.
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
