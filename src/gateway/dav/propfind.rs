//! `PROPFIND`: the properties of a file or directory, and of a directory's entries. A long listing is sent as it is
//! read.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::stream;

use super::answers::{CLOSES, OPENS, xml_response};
use super::error::{DavError, DavResult};
use super::props::{Resource, Wanted};
use super::service::{DavRequest, DavService, Depth, document};
use super::xml::{XmlElement, XmlName};
use crate::gateway::HttpProblem;
use crate::gateway::metadata::ATTRIBUTE;
use crate::types::InodeNo;
use crate::vfs::{DirEntry, Error};

/// Entries read at a time.
const PAGE: usize = 256;
/// The most properties that one request may ask for.
const NAMES_MAX: usize = 100;
/// Bytes of an answer made at a time.
const PIECE: usize = 64 << 10;

impl DavService {
    pub(super) async fn list(self: &Arc<Self>, request: &DavRequest, body: Body) -> DavResult {
        let depth = request.depth()?;
        let wanted = match document(body).await? {
            None => Wanted::All(Vec::new()),
            Some(document) => wanted(&document)?,
        };
        let found = self.gateway.resource(&request.path).await?;
        if depth == Depth::Infinity && found.is_collection() {
            return Err(DavError::InfiniteDepth);
        }
        let first = found.response(&self.gateway, &self.locks, &wanted).await?;
        let directory = (depth == Depth::One && found.is_collection()).then(|| found.ino());
        let mut listing = DavListing {
            service: self.clone(),
            wanted,
            above: found.names,
            directory,
            cookie: 0,
            page: VecDeque::new(),
            begun: format!("{OPENS}{first}\n"),
        };
        // The first piece is made before the answer begins, so that a store that does not answer yields an error
        // status. A later failure breaks the connection, which no client takes for the end of the listing.
        let first = listing.next().await?;
        if listing.directory.is_none() {
            return Ok(xml_response(StatusCode::MULTI_STATUS, first));
        }
        let rest = stream::unfold(Some(listing), |listing| async {
            let mut listing = listing.filter(|listing| listing.directory.is_some())?;
            match listing.next().await {
                Ok(piece) => Some((Ok(piece), Some(listing))),
                Err(problem) => {
                    tracing::warn!(error = problem.message(), "a listing ends early");
                    Some((Err(std::io::Error::other("the listing ends early")), None))
                }
            }
        });
        let whole = futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest);
        Ok(xml_response(StatusCode::MULTI_STATUS, Body::from_stream(whole)))
    }
}

pub(super) fn wanted(document: &XmlElement) -> Result<Wanted, DavError> {
    let asked = document.is("propfind").then(|| {
        let names = |list: &XmlElement| -> Vec<XmlName> {
            list.children().map(|child| child.name.clone()).collect()
        };
        if document.child("propname").is_some() {
            return Some(Wanted::Names);
        }
        if document.child("allprop").is_some() {
            return Some(Wanted::All(document.child("include").map(names).unwrap_or_default()));
        }
        document.child("prop").map(names).map(Wanted::These)
    });
    let Some(Some(asked)) = asked else {
        return Err(DavError::bad_request("The body is no DAV:propfind."));
    };
    match &asked {
        Wanted::These(names) | Wanted::All(names) if names.len() > NAMES_MAX => {
            Err(DavError::bad_request("The body asks for more than 100 properties."))
        }
        _ => Ok(asked),
    }
}

/// A listing under way.
struct DavListing {
    service: Arc<DavService>,
    wanted: Wanted,
    above: Vec<Vec<u8>>,
    /// The directory that is listed; `None` once the end is written.
    directory: Option<InodeNo>,
    cookie: u64,
    page: VecDeque<DirEntry>,
    begun: String,
}

impl DavListing {
    async fn next(&mut self) -> Result<Bytes, HttpProblem> {
        let mut piece = std::mem::take(&mut self.begun);
        while let Some(directory) = self.directory {
            if piece.len() >= PIECE {
                return Ok(piece.into());
            }
            let Some(entry) = self.page.pop_front() else {
                let vfs = &self.service.gateway.vfs;
                let page = match vfs.read_dir(directory, self.cookie, PAGE).await {
                    // The directory was removed meanwhile.
                    Err(Error::NotFound | Error::Stale) => Vec::new(),
                    page => page?,
                };
                match page.last() {
                    Some(last) => {
                        let inodes: Vec<_> = page.iter().map(|entry| entry.ino).collect();
                        vfs.bring(&inodes).await;
                        self.cookie = last.cookie;
                        self.page = page.into();
                    }
                    None => self.directory = None,
                }
                continue;
            };
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            if let Some(response) = self.entry(directory, entry).await? {
                piece.push_str(&response);
                piece.push('\n');
            }
        }
        Ok((piece + CLOSES).into())
    }

    /// One entry's XML; `None` if it is neither file nor directory, or is gone.
    async fn entry(
        &self,
        directory: InodeNo,
        entry: DirEntry,
    ) -> Result<Option<String>, HttpProblem> {
        if !matches!(entry.kind, libc::S_IFREG | libc::S_IFDIR) {
            return Ok(None);
        }
        let gateway = &self.service.gateway;
        let inspected = match gateway.vfs.inspect(directory, &entry.name, ATTRIBUTE).await {
            Ok(inspected) => inspected,
            Err(Error::NotFound | Error::Stale) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let names = [&self.above[..], &[entry.name]].concat();
        let found = Resource { names, inspected };
        match found.response(gateway, &self.service.locks, &self.wanted).await {
            Ok(response) => Ok(Some(response)),
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => Ok(None),
            Err(problem) => Err(problem),
        }
    }
}
