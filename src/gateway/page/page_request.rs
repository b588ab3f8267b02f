//! A request to a view or form: who sends it and what it is about; and how it is answered.

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

/// A page request without its body.
pub(super) struct PageRequest {
    pub(super) state: Arc<PageState>,
    pub(super) session: Session,
    pub(super) headers: HeaderMap,
    query: Option<String>,
}

impl FromRequestParts<Arc<PageState>> for PageRequest {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<PageState>) -> Result<Self> {
        // The middleware admits no request without a session.
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
    /// The parameters of a view. `known`: the parameters that are allowed.
    pub(super) fn query(&self, known: &[&str]) -> Result<Query> {
        Query::parse(self.query.as_deref(), known)
    }

    /// The place that a form is about. `known`: the parameters allowed besides `path` and `csrf`, which the middleware
    /// has checked.
    pub(super) fn place(&self, known: &[&str]) -> Result<PagePlace> {
        PagePlace::of(&self.query(&[&["path", "csrf"], known].concat())?, "name")
    }

    /// Whether the request comes from script.
    pub(super) fn wants_json(&self) -> bool {
        wants_json(&self.headers)
    }

    /// Answers a form: JSON for script; everybody else is redirected to the view, so that a reload does not post again.
    /// Returns an error that a view is to show as `Err`.
    pub(super) fn finished(&self, done: Result<FormDone>) -> Result<Response> {
        match done {
            Ok(done) if self.wants_json() => Ok(Json(done).into_response()),
            Ok(done) => Ok(Redirect::to(&done.location()).into_response()),
            Err(problem) if self.wants_json() => Ok(problem.into_response()),
            Err(problem) => Err(problem),
        }
    }
}
