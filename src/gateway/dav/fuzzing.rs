//! The WebDAV parsers, for hostile bytes (`tests/fuzz`).

use super::conditions::IfHeader;
use super::path::DavPath;
use super::{lock_methods, propfind, proppatch, xml};

/// Whether `bytes` are accepted as a `kind`; `None`: no parser of this kind is here.
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

/// A request's document, for every method. What is parsed, written and parsed again must mean the same.
fn body(bytes: &[u8]) -> bool {
    let Ok(document) = xml::parse(bytes) else { return false };
    let (asked, lock) =
        (propfind::wanted(&document).is_ok(), lock_methods::lock_info(&document).is_ok());
    let changes = proppatch::is_taken(&document);
    let written = document.write();
    if written.len() <= xml::DOCUMENT_MAX {
        // (Written here, a name may be longer, since it may need a prefix.)
        let again = xml::parse(written.as_bytes());
        assert!(again.is_ok_and(|again| again.write() == written), "written otherwise: {written}");
    }
    asked | lock | changes
}
