//! The versions of a path, and files as they were.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use futures_util::StreamExt;
use maud::{Markup, html};

use super::PageState;
use super::document::page;
use super::page_request::PageRequest;
use super::place::PagePlace;
use super::show::{count, size, when};
use super::trail::trail;
use super::visitor::may_write;
use crate::gateway::errors::Result;
use crate::gateway::past::{PathVersion, PathVersions};
use crate::gateway::{HttpProblem, Session, download};
use crate::types::StateAt;

/// `GET /page/history?path=DIRECTORY&name=NAME`; JSON if the client accepts it.
pub(super) async fn history(asked: PageRequest) -> Result<Response> {
    let place = PagePlace::of(&asked.query(&["path", "name"])?, "name")?;
    let (state, session) = (&asked.state, &asked.session);
    let found = versions(state, session, &place).await;
    if asked.wants_json() {
        return Ok(Json(found?).into_response());
    }
    let code = found.as_ref().err().map_or(StatusCode::OK, HttpProblem::status);
    let main = html! {
        div id="view" data-view="history" {
            div.bar { (trail(session, &place)) }
            section.card.item id="item" aria-labelledby="title" {
                h1 id="title" tabindex="-1" { "Earlier versions of " (place.title()) }
                @match &found {
                    Ok(found) => (list(session, &place, found)?),
                    Err(problem) => p.notice.bad role="alert" { (problem.message()) },
                }
            }
        }
    };
    let title = format!("Earlier versions of {} · s3vault", place.title());
    Ok(page(code, &title, Some(session), main))
}

async fn versions(state: &PageState, session: &Session, place: &PagePlace) -> Result<PathVersions> {
    let key = place.named()?;
    let mut found = state.pasts.versions(key.names()).await?;
    if session.limit().is_some() {
        // Hosts and snapshot names are not within the scope of the token.
        for version in &mut found.versions {
            (version.host, version.snapshot) = (None, None);
        }
    }
    Ok(found)
}

fn list(session: &Session, place: &PagePlace, found: &PathVersions) -> Result<Markup> {
    // The newest version is the current one, if nothing is still on its way to the bucket.
    let newest = found.versions.len().checked_sub(1).filter(|_| found.is_complete);
    let newest = newest.filter(|last| found.versions[*last].is_there);
    let mut rows = Vec::new();
    for (at, version) in found.versions.iter().enumerate().rev() {
        rows.push(row(session, place, version, newest == Some(at))?);
    }
    Ok(html! {
        @if !found.is_complete {
            p.notice { "What was written just now is on its way to the bucket, and no version yet." }
        }
        @if found.versions.is_empty() { p.empty { "Nothing of this name was there in any state that is kept." } }
        @else {
            table.versions {
                thead {
                    tr {
                        th scope="col" { "Since" }
                        th scope="col" { "What happened" }
                        th.size scope="col" { "Size" }
                        th.act scope="col" { span.hidden { "Actions" } }
                    }
                }
                tbody { @for row in &rows { (row) } }
            }
            @if found.left_out > 0 {
                p.hint { (count(found.left_out, "older version is", "older versions are")) " not shown." }
            }
        }
    })
}

fn row(
    session: &Session,
    place: &PagePlace,
    version: &PathVersion,
    is_now: bool,
) -> Result<Markup> {
    let then = place.as_of(Some(version.commit));
    let is_file = version.is_there && !version.is_directory;
    let view = if version.is_directory { then.inside()?.link() } else { then.link() };
    Ok(html! {
        tr data-key=(version.commit) {
            th.name scope="row" {
                @if version.is_there { a data-main data-open[is_file] href=(view) { (when(version.time)) } }
                @else { (when(version.time)) }
            }
            td.what {
                (version.what)
                @if let Some(name) = &version.snapshot { " " b { (name) } }
                @if let Some(host) = &version.host { " by " (host) }
                @if is_now { " · " b { "as it is now" } }
            }
            td.size { @if is_file { (size(version.size)) } @else if version.is_there { "folder" } }
            td.act {
                @if is_file {
                    a.get href=(then.download()?) download=(place.title()) title="Download" {
                        span.hidden { "Download this version" }
                    }
                }
                @if may_write(session) && is_file && !is_now {
                    details.menu.right {
                        summary { "Restore" span.hidden { " the version of " (when(version.time)) } }
                        form.panel method="post" action={ "/page/restore?" (then.form(session)) } data-form="restore" {
                            p { "Restore this version? What is there now is replaced, and stays among the earlier versions." }
                            button.main type="submit" { "Restore it" }
                        }
                    }
                }
            }
        }
    })
}

/// `GET /page/past?path=DIRECTORY&name=NAME&at=COMMIT`: a file as it was.
pub(super) async fn download(asked: PageRequest, method: Method) -> Result<Response> {
    let place = PagePlace::of(&asked.query(&["path", "name", "at"])?, "name")?;
    let commit = place
        .at
        .ok_or_else(|| HttpProblem::bad_request("The parameter at says as of which commit."))?;
    let past = asked.state.pasts.at(commit).await?;
    let response = download::send(&past.gateway, &place.named()?, &method, &asked.headers).await?;
    // The past state stays open while it is read.
    Ok(response.map(|body| {
        let body = body.into_data_stream();
        Body::from_stream(body.inspect(move |_| _ = &past))
    }))
}

/// `GET /page/look?path=DIRECTORY&time=TIME`: redirects to the directory as it was then.
pub(super) async fn look(asked: PageRequest) -> Result<Response> {
    let query = asked.query(&["path", "time"])?;
    let place = PagePlace::of(&query, "name")?;
    let time = query.bytes("time").and_then(moment).ok_or_else(|| {
        HttpProblem::bad_request(
            "The parameter time is a time, as in 2026-11-28T14:00 (UTC) or 2026-11-28T14:00:00Z.",
        )
    })?;
    let past = asked.state.pasts.find(&StateAt::Time(time)).await?;
    let then = place.as_of(Some(past.as_of.commit.0));
    Ok(Redirect::to(&then.link()).into_response())
}

/// Parses RFC 3339, or the value of a browser's `datetime-local` input, which is taken as UTC.
fn moment(text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.into());
    }
    let time: jiff::civil::DateTime = text.parse().ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    // An input without seconds means the end of that minute.
    let rest = if text.len() <= "2026-11-28T14:00".len() { 59 } else { 0 };
    SystemTime::from(time.timestamp()).checked_add(Duration::from_secs(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_as_browsers_and_programs_say_it() {
        let at = |text: &str| {
            let since = moment(text.as_bytes())?.duration_since(SystemTime::UNIX_EPOCH);
            since.ok().map(|since| since.as_secs())
        };
        assert_eq!(at("2026-11-28T14:00:00Z"), Some(1_795_874_400));
        assert_eq!(at("2026-11-28T15:00:00+01:00"), Some(1_795_874_400));
        assert_eq!(at("2026-11-28T14:00"), Some(1_795_874_459));
        assert_eq!(at("2026-11-28T14:00:05"), Some(1_795_874_405));
        for bad in ["", "yesterday", "2026-13-01T00:00", "17"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
