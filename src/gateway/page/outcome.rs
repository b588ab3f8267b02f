//! Answers a form: JSON for script, the page again for everybody else.

use axum::response::Response;

use super::answer::FormDone;
use super::browse::show;
use super::directory_view::DirectoryView;
use super::page_request::PageRequest;
use super::place::PagePlace;
use crate::gateway::errors::Result;

/// Redirects to the directory, or shows the directory with the error.
pub(super) async fn outcome(
    asked: &PageRequest,
    place: &PagePlace,
    done: Result<FormDone>,
) -> Result<Response> {
    match asked.finished(done) {
        Err(problem) => {
            let view = DirectoryView::of(place.beside().as_of(None));
            show(&asked.state, &asked.session, &view, Some(&problem)).await
        }
        finished => finished,
    }
}
