//! What a form came to: for script as JSON, for everybody else as the page again.

use axum::response::Response;

use super::answer::FormDone;
use super::browse::show;
use super::directory_view::DirectoryView;
use super::page_request::PageRequest;
use super::place::PagePlace;
use crate::gateway::errors::Result;

/// Back to the directory, or the directory with what went wrong.
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
