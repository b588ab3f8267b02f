//! What the page's forms post, without script: the outcome is the page again.

use std::sync::Arc;

use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Redirect, Response};

use super::browse::{DirectoryView, show};
use super::visitor::{Who, session};
use crate::gateway::errors::Result;
use crate::gateway::query::Query;
use crate::gateway::s3_key::{S3Key, escape};
use crate::gateway::{Gateway, Session, listing, upload};

/// `POST /page/upload?path=DIRECTORY&csrf=WORD`, multipart.
pub(super) async fn upload(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    who: Who,
    request: Request,
) -> Result<Response> {
    let session = session(who)?;
    let query = Query::parse(query.as_deref(), &["path", "csrf"])?;
    let path = query.bytes("path").unwrap_or_default().to_vec();
    let done = async {
        let directory = S3Key::parse_directory(&path)?;
        upload::take(&gateway, &directory, request).await.map(|_| "uploaded")
    };
    outcome(&gateway, &session, path.clone(), done.await).await
}

/// `POST /page/delete?path=DIRECTORY&name=NAME&csrf=WORD`.
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    who: Who,
) -> Result<Response> {
    let session = session(who)?;
    let query = Query::parse(query.as_deref(), &["path", "name", "csrf"])?;
    let path = query.bytes("path").unwrap_or_default().to_vec();
    let done = async {
        let key = S3Key::parse_directory(&path)?.join(query.bytes("name").unwrap_or_default())?;
        listing::remove(&gateway, &key).await.map(|()| "deleted")
    };
    outcome(&gateway, &session, path.clone(), done.await).await
}

/// Back to the directory (so that a reload does not post again), or the directory with what went wrong.
async fn outcome(
    gateway: &Arc<Gateway>,
    session: &Session,
    path: Vec<u8>,
    done: Result<&'static str>,
) -> Result<Response> {
    match done {
        Ok(done) => {
            let to = format!("/?path={}&done={done}", escape(&path));
            Ok(Redirect::to(&to).into_response())
        }
        Err(problem) => show(gateway, session, &DirectoryView::of(path), Some(&problem)).await,
    }
}
