//! Reads forms, and describes what they did.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, header};
use serde::Serialize;

use super::FORM_MAX;
use crate::gateway::HttpProblem;
use crate::gateway::errors::Result;
use crate::gateway::query::Query;

/// What was done, in words for people, and where to see it.
#[derive(Serialize)]
pub(super) struct FormDone {
    /// A word that the directory view knows.
    pub(super) done: &'static str,
    pub(super) message: String,
    pub(super) href: String,
    /// The row key of the entry that the form was about; empty if it no longer exists.
    pub(super) key: String,
}

impl FormDone {
    /// The URL of the view that shows the result and says it.
    pub(super) fn location(&self) -> String {
        let between = if self.href.ends_with('?') { "" } else { "&" };
        format!("{}{between}done={}", self.href, self.done)
    }
}

/// Whether the request comes from script.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|types| types.contains("application/json"))
}

/// The fields of a form without files.
pub(super) async fn fields(body: Body, known: &[&str]) -> Result<Query> {
    Query::parse(Some(&form_text(body, FORM_MAX).await?), known)
}

/// The text of a form without files, of at most `most` bytes.
pub(super) async fn form_text(body: Body, most: usize) -> Result<String> {
    let long = |_| HttpProblem::bad_request("The form did not come whole, or is too long.");
    let bytes = to_bytes(body, most).await.map_err(long)?;
    let text = String::from_utf8(bytes.into());
    text.map_err(|_| HttpProblem::bad_request("The form is not UTF-8."))
}

/// A field's value without surrounding white space.
pub(super) fn text(form: &Query, name: &str) -> Vec<u8> {
    form.bytes(name).unwrap_or_default().trim_ascii().to_vec()
}
