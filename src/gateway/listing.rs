//! `GET /files/`: lists the vault page by page, and `DELETE /files/PATH`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use serde::Serialize;
use tokio::time::timeout;

use super::errors::Result;
use super::metadata::{ATTRIBUTE, FileInfo};
use super::order::{Best, Order, Sort};
use super::query::Query;
use super::s3_key::{KEY_MAX, S3Key};
use super::{Gateway, HttpProblem};
use crate::vfs::{Error, TreeWalk};

/// Entries per page, if the client does not say.
const LIMIT: usize = 100;
/// The most entries per page.
const LIMIT_MAX: usize = 1000;
/// How long the search for a page may take: a vault can have millions of files, and an order by size or time has to
/// look at all of them.
const DEADLINE: Duration = Duration::from_secs(25);

/// One page.
#[derive(Serialize)]
pub(super) struct ListingPage {
    pub(super) files: Vec<FileInfo>,
    /// The `cursor` of the next page; `None`: this is the last.
    pub(super) next: Option<String>,
}

/// A request for a page.
pub(super) struct ListingQuery {
    /// Only paths that begin with this.
    pub(super) prefix: Vec<u8>,
    /// Only names that contain this; its ASCII letters are lower case.
    pub(super) name: Vec<u8>,
    pub(super) order: Order,
    pub(super) is_recursive: bool,
    /// As returned with the page before.
    pub(super) cursor: Option<Vec<u8>>,
    pub(super) limit: usize,
}

/// `GET /files/`.
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListingPage>> {
    let known = ["prefix", "name", "sort", "order", "recursive", "limit", "cursor"];
    let query = Query::parse(query.as_deref(), &known)?;
    let wanted = ListingQuery {
        prefix: query.bytes("prefix").unwrap_or_default().to_vec(),
        name: query.bytes("name").unwrap_or_default().to_ascii_lowercase(),
        order: Order {
            sort: sort(&query)?,
            is_descending: is_descending(&query)?,
            directories_first: false,
        },
        is_recursive: query.flag("recursive", true)?,
        cursor: query.bytes("cursor").map(<[u8]>::to_vec),
        limit: query.number("limit", 1..=LIMIT_MAX, LIMIT)?,
    };
    Ok(Json(page(&gateway, &wanted).await?))
}

/// `sort`.
pub(super) fn sort(query: &Query) -> Result<Sort> {
    let words = [("name", Sort::Name), ("size", Sort::Size), ("time", Sort::Time)];
    query.word("sort", &words, Sort::Name)
}

/// `order`.
pub(super) fn is_descending(query: &Query) -> Result<bool> {
    query.word("order", &[("asc", false), ("desc", true)], false)
}

/// Finds one page.
pub(super) async fn page(gateway: &Gateway, wanted: &ListingQuery) -> Result<ListingPage> {
    timeout(DEADLINE, find(gateway, wanted)).await.map_err(|_| {
        HttpProblem::unavailable(
            "There are too many files to look at in time. Ask for fewer by a longer prefix, or sort by name.",
            60,
        )
    })?
}

async fn find(gateway: &Gateway, wanted: &ListingQuery) -> Result<ListingPage> {
    let after = wanted.cursor.as_deref().map(|cursor| wanted.order.parse(cursor)).transpose()?;
    if wanted.prefix.contains(&0) || wanted.name.contains(&0) {
        return Err(HttpProblem::bad_request(
            "The prefix or the name holds a NUL, which no path has.",
        ));
    }
    if wanted.prefix.len() > KEY_MAX {
        return Err(HttpProblem::bad_request(format!(
            "The prefix is longer than {KEY_MAX} bytes."
        )));
    }
    let slash = wanted.prefix.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let start = wanted.prefix[..slash].to_vec();
    let names = S3Key::parse_directory(&start)?;
    let directory = match gateway.vfs.directory_at(names.names()).await {
        Ok(directory) => directory,
        Err(Error::NotFound | Error::NotDirectory) => {
            return Ok(ListingPage { files: Vec::new(), next: None });
        }
        Err(error) => return Err(error.into()),
    };
    let mut best = Best::new(wanted.order, after, wanted.limit);
    let mut walk = TreeWalk::new(&gateway.vfs, directory, start, wanted.order.sort != Sort::Name);
    while let Some(found) = walk.next().await? {
        // No request can name it.
        if found.path.len() > KEY_MAX {
            continue;
        }
        let is_below = found.path.starts_with(&wanted.prefix);
        if wanted.is_recursive && found.is_directory() {
            // The rest of the prefix may be the beginning of a name in this directory.
            if is_below && best.may_hold(&found.path) {
                walk.enter(&found);
            }
        } else if is_below && holds(found.name(), &wanted.name) {
            best.show(found);
        }
    }
    let (found, next) = best.finish();
    let inodes: Vec<_> = found.iter().map(|found| found.ino).collect();
    gateway.vfs.bring(&inodes).await;
    let mut files = Vec::with_capacity(found.len());
    for found in found {
        match gateway.vfs.inspect(found.parent, found.name(), ATTRIBUTE).await {
            Ok(inspected) => files.push(FileInfo::new(&S3Key::parse(&found.path)?, &inspected)),
            // It was removed or renamed a moment ago.
            Err(Error::NotFound | Error::Stale) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ListingPage { files, next: next.map(|next| next.cursor()) })
}

/// Whether a name contains a word, which is in lower case; ASCII case is ignored.
fn holds(name: &[u8], word: &[u8]) -> bool {
    word.is_empty()
        || name.len() >= word.len()
            && name.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// `DELETE /files/PATH`.
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<StatusCode> {
    Query::parse(query.as_deref(), &[])?;
    let conditions = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE];
    if conditions.iter().any(|name| headers.contains_key(name)) {
        return Err(HttpProblem::bad_request(
            "This service supports no conditions on DELETE (WebDAV, under /dav/, does). Nothing was changed.",
        ));
    }
    remove(&gateway, &S3Key::of_request(&uri)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a file, an empty directory, or a symlink (never its target).
pub(super) async fn remove(gateway: &Gateway, key: &S3Key) -> Result<()> {
    let (parent, name) = gateway.place(key).await?;
    match gateway.vfs.unlink(parent, name).await {
        Err(Error::IsDirectory) => Ok(gateway.vfs.rmdir(parent, name).await?),
        other => Ok(other?),
    }
}
