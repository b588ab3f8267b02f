//! What a form holds, and what it came to.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, header};
use serde::Serialize;

use super::FORM_MAX;
use crate::gateway::HttpProblem;
use crate::gateway::errors::Result;
use crate::gateway::query::Query;

/// What was done, in words for people, and where it is seen.
#[derive(Serialize)]
pub(super) struct FormDone {
    /// A word that the view knows.
    pub(super) done: &'static str,
    pub(super) message: String,
    pub(super) href: String,
    /// What it was done with, as rows of a list are called; empty: nothing that is there.
    pub(super) key: String,
}

impl FormDone {
    /// Where it is seen, and said.
    pub(super) fn location(&self) -> String {
        let between = if self.href.ends_with('?') { "" } else { "&" };
        format!("{}{between}done={}", self.href, self.done)
    }
}

/// Whether script asks.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepts.is_some_and(|types| types.contains("application/json"))
}

/// What a form without files holds.
pub(super) async fn fields(body: Body, known: &[&str]) -> Result<Query> {
    Query::parse(Some(&form_text(body, FORM_MAX).await?), known)
}

/// A form without files, of so many bytes at most.
pub(super) async fn form_text(body: Body, most: usize) -> Result<String> {
    let long = |_| HttpProblem::bad_request("The form did not come whole, or is too long.");
    let bytes = to_bytes(body, most).await.map_err(long)?;
    let text = String::from_utf8(bytes.into());
    text.map_err(|_| HttpProblem::bad_request("The form is not UTF-8."))
}

/// A field as text, without what people leave around it.
pub(super) fn text(form: &Query, name: &str) -> Vec<u8> {
    form.bytes(name).unwrap_or_default().trim_ascii().to_vec()
}
