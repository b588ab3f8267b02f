//! The entries of a directory that a form names.

use axum::body::Body;
use percent_encoding::percent_decode;

use super::answer::form_text;
use super::page_request::PageRequest;
use super::place::PagePlace;
use crate::gateway::HttpProblem;
use crate::gateway::errors::Result;
use crate::gateway::query::Query;
use crate::gateway::s3_key::{S3Key, escape};

/// The most entries in one request.
pub(super) const CHOSEN_MAX: usize = 100;
/// The most bytes of a form with that many names: each byte of a name can take five.
const CHOSEN_FORM_MAX: usize = 256 << 10;

/// A chosen entry.
pub(super) struct ChosenEntry {
    /// Relative to the directory.
    path: S3Key,
    pub(super) key: S3Key,
    /// Why it was not handled.
    pub(super) why: Option<HttpProblem>,
}

impl ChosenEntry {
    /// As the form spells it: names are bytes, but form fields are text.
    pub(super) fn word(&self) -> String {
        escape(&self.path.bytes())
    }

    /// As people read it.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path.bytes()).into_owned()
    }
}

/// The entries that a form names, without repetitions, and its other fields. Nothing is looked up.
pub(super) async fn chosen(
    asked: &PageRequest,
    place: &PagePlace,
    body: Body,
    known: &[&str],
) -> Result<(Vec<ChosenEntry>, Query)> {
    let text = form_text(body, CHOSEN_FORM_MAX).await?;
    let form = Query::parse_with_list(Some(&text), known, Some("name"))?;
    let mut entries: Vec<ChosenEntry> = Vec::new();
    for word in form.all("name") {
        let path: Vec<u8> = percent_decode(word).collect();
        let path = S3Key::parse(&path)?;
        if entries.iter().any(|other| other.path == path) {
            continue;
        }
        if entries.len() == CHOSEN_MAX {
            return Err(HttpProblem::bad_request(format!(
                "More than {CHOSEN_MAX} entries are chosen. Nothing was changed; choose fewer at a time."
            )));
        }
        let key = place.below(&path)?;
        asked.session.check(&key)?;
        entries.push(ChosenEntry { path, key, why: None });
    }
    if entries.is_empty() {
        return Err(HttpProblem::bad_request(
            "Nothing is chosen. Nothing was changed; tick the boxes of what is meant.",
        ));
    }
    Ok((entries, form))
}
