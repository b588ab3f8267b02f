//! What a view or a form is asked: by whom, and about what; and how its answer is given.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};

use super::PageState;
use super::answer::{FormDone, wants_json};
use super::place::PagePlace;
use crate::gateway::errors::Result;
use crate::gateway::query::Query;
use crate::gateway::{HttpProblem, Session};

/// A request for a part of the page, but its body.
pub(super) struct PageRequest {
    pub(super) state: Arc<PageState>,
    pub(super) session: Session,
    pub(super) headers: HeaderMap,
    query: Option<String>,
}

impl FromRequestParts<Arc<PageState>> for PageRequest {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<PageState>) -> Result<Self> {
        // A request without a session never comes through the middleware.
        let session = parts.extensions.get::<Session>().cloned().ok_or_else(|| {
            HttpProblem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Log in first: /login.")
        })?;
        Ok(Self {
            state: state.clone(),
            session,
            headers: parts.headers.clone(),
            query: parts.uri.query().map(str::to_owned),
        })
    }
}

impl PageRequest {
    /// The parameters of a view. `known`: what may be given.
    pub(super) fn query(&self, known: &[&str]) -> Result<Query> {
        Query::parse(self.query.as_deref(), known)
    }

    /// What a form is about. `known`: what may be given beside the directory, and the form's word, which the middleware
    /// has looked at.
    pub(super) fn place(&self, known: &[&str]) -> Result<PagePlace> {
        PagePlace::of(&self.query(&[&["path", "csrf"], known].concat())?, "name")
    }

    /// Whether script asks.
    pub(super) fn wants_json(&self) -> bool {
        wants_json(&self.headers)
    }

    /// What a form came to: for script as JSON, for everybody else back to the view, so that a reload does not post
    /// again. What went wrong is given back if a view is to show it.
    pub(super) fn finished(&self, done: Result<FormDone>) -> Result<Response> {
        match done {
            Ok(done) if self.wants_json() => Ok(Json(done).into_response()),
            Ok(done) => Ok(Redirect::to(&done.location()).into_response()),
            Err(problem) if self.wants_json() => Ok(problem.into_response()),
            Err(problem) => Err(problem),
        }
    }
}
