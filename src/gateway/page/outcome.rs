//! What a form came to: for script as JSON, for everybody else as the page again.

use axum::Json;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};

use super::PageState;
use super::answer::{FormDone, wants_json};
use super::browse::show;
use super::directory_view::DirectoryView;
use super::place::PagePlace;
use crate::gateway::Session;
use crate::gateway::errors::Result;

/// Back to the directory (so that a reload does not post again), or the directory with what went wrong.
pub(super) async fn outcome(
    state: &PageState,
    session: &Session,
    headers: &HeaderMap,
    place: &PagePlace,
    done: Result<FormDone>,
) -> Result<Response> {
    match done {
        Ok(done) if wants_json(headers) => Ok(Json(done).into_response()),
        Ok(done) => {
            let to = format!("{}&done={}", done.href, done.done);
            Ok(Redirect::to(&to).into_response())
        }
        Err(problem) if wants_json(headers) => Err(problem),
        Err(problem) => {
            let view = DirectoryView::of(place.beside().as_of(None));
            show(state, session, &view, Some(&problem)).await
        }
    }
}
