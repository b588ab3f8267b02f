//! The parsers of WebDAV, for hostile bytes (`tests/fuzz`).

use super::conditions::IfHeader;
use super::path::DavPath;
use super::{lock_methods, propfind, proppatch, xml};

/// Whether `bytes` are taken for a `kind`; `None`: nothing here is of this kind.
pub(in crate::gateway) fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    Some(match kind {
        "dav-body" => body(bytes),
        "dav-if" => std::str::from_utf8(bytes).is_ok_and(|text| {
            let header = IfHeader::parse(text, Some("127.0.0.1:8080"));
            header.is_ok_and(|header| header.tokens().len() + header.resources().count() < 1000)
        }),
        "dav-path" => std::str::from_utf8(bytes)
            .is_ok_and(|text| DavPath::of_url(text, Some("127.0.0.1:8080")).is_ok()),
        _ => return None,
    })
}

/// A request's document, for whichever method it is: what is read is written again, and means the same.
fn body(bytes: &[u8]) -> bool {
    let Ok(document) = xml::parse(bytes) else { return false };
    let (asked, lock) =
        (propfind::wanted(&document).is_ok(), lock_methods::lock_info(&document).is_ok());
    let changes = proppatch::is_taken(&document);
    let written = document.write();
    if written.len() <= xml::DOCUMENT_MAX {
        // (A name may be longer with the prefix that it needs here.)
        let again = xml::parse(written.as_bytes());
        assert!(again.is_ok_and(|again| again.write() == written), "written otherwise: {written}");
    }
    asked | lock | changes
}
