//! Several entries of a directory at once: asks about them, then deletes or moves them one after the other. If some
//! fail, the page asks about those again, with the reasons; the others are done.

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answer::FormDone;
use super::changes;
use super::chosen_entries::{ChosenEntry, chosen};
use super::outcome::outcome;
use super::page_request::PageRequest;
use super::place::{PagePlace, shown};
use super::question::{ChosenAction, question};
use super::show::count;
use crate::gateway::errors::Result;
use crate::gateway::query::Query;
use crate::gateway::s3_key::S3Key;
use crate::gateway::{Gateway, HttpProblem};

/// What is done with each entry.
enum ChosenDeed {
    Delete,
    /// Into this folder.
    MoveTo(S3Key),
}

/// The answer for script if some entries failed.
#[derive(Serialize)]
struct NotAllDone<'a> {
    error: &'static str,
    message: &'a str,
    failed: Vec<FailedEntry<'a>>,
}

/// An entry that failed; `name` is spelled as in the form.
#[derive(Serialize)]
struct FailedEntry<'a> {
    name: String,
    error: &'static str,
    message: &'a str,
}

/// `POST /page/chosen?path=DIRECTORY&csrf=WORD`; a percent-encoded `name` for each entry, and `action`. Only asks;
/// changes nothing.
pub(super) async fn ask(asked: PageRequest, body: Body) -> Result<Response> {
    let place = asked.place(&[])?;
    let read = async {
        let (entries, form) = chosen(&asked, &place, body, &["action"]).await?;
        Ok((entries, ChosenAction::of(&form)?))
    };
    match read.await {
        Ok((entries, action)) => question(&asked, &place, action, &entries, None).await,
        Err(problem) => outcome(&asked, &place, Err(problem)).await,
    }
}

/// `POST /page/chosen/delete?path=DIRECTORY&csrf=WORD`; `name` for each entry. Directories are deleted with their
/// content.
pub(super) async fn delete(asked: PageRequest, body: Body) -> Result<Response> {
    let place = asked.place(&[])?;
    match chosen(&asked, &place, body, &[]).await {
        Ok((entries, _)) => carry_out(&asked, &place, entries, &ChosenDeed::Delete).await,
        Err(problem) => outcome(&asked, &place, Err(problem)).await,
    }
}

/// `POST /page/chosen/move?path=DIRECTORY&csrf=WORD`; `name` for each entry, `folder`: where to. An existing target is
/// not replaced.
pub(super) async fn relocate(asked: PageRequest, body: Body) -> Result<Response> {
    let place = asked.place(&[])?;
    let (entries, form) = match chosen(&asked, &place, body, &["folder"]).await {
        Ok(read) => read,
        Err(problem) => return outcome(&asked, &place, Err(problem)).await,
    };
    match goal(&asked, &place, &form).await {
        Ok(folder) => carry_out(&asked, &place, entries, &ChosenDeed::MoveTo(folder)).await,
        Err(problem) => left(&asked, &place, ChosenAction::Move, &entries, problem).await,
    }
}

/// The target folder, which must exist.
async fn goal(asked: &PageRequest, place: &PagePlace, form: &Query) -> Result<S3Key> {
    let folder = changes::folder(form, place)?;
    asked.session.check(&folder)?;
    let found = asked.state.gateway.vfs.directory_at(folder.names()).await;
    found.map_err(|error| match HttpProblem::from(error) {
        problem if problem.status() == StatusCode::NOT_FOUND => changes::no_folder(),
        problem => problem,
    })?;
    Ok(folder)
}

impl ChosenDeed {
    async fn be_done(&self, gateway: &Gateway, key: &S3Key) -> Result<()> {
        match self {
            Self::Delete => changes::remove_tree(gateway, key).await,
            Self::MoveTo(folder) => changes::move_to(gateway, key, &folder.join(key.name())?).await,
        }
    }

    fn action(&self) -> ChosenAction {
        match self {
            Self::Delete => ChosenAction::Delete,
            Self::MoveTo(_) => ChosenAction::Move,
        }
    }

    /// The words of the answer: `deleted`, `Deleted`.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Delete => ("deleted", "Deleted"),
            Self::MoveTo(_) => ("moved", "Moved"),
        }
    }

    /// The words that name the target; empty for a deletion.
    fn way(&self) -> String {
        match self {
            Self::Delete => String::new(),
            Self::MoveTo(folder) if folder.names().is_empty() => " to the top of the vault".into(),
            Self::MoveTo(folder) => format!(" to {}", shown(folder)),
        }
    }
}

/// Handles the entries one after the other. An error that would hit all of them ends the work.
async fn carry_out(
    asked: &PageRequest,
    place: &PagePlace,
    entries: Vec<ChosenEntry>,
    deed: &ChosenDeed,
) -> Result<Response> {
    let number = entries.len();
    let all = count(number as u64, "entry", "entries");
    let (word, begin) = deed.words();
    let mut failed = Vec::new();
    let mut barrier: Option<HttpProblem> = None;
    for mut entry in entries {
        let done = match &barrier {
            Some(problem) => Err(problem.clone()),
            None => deed.be_done(&asked.state.gateway, &entry.key).await,
        };
        if let Err(problem) = done {
            barrier = barrier.or_else(|| Some(problem.clone()).filter(HttpProblem::is_of_all));
            entry.why = Some(problem);
            failed.push(entry);
        }
    }
    if failed.is_empty() {
        let message = format!("{begin} {all}{}.", deed.way());
        let done = FormDone { done: word, message, href: place.link(), key: String::new() };
        return asked.finished(Ok(done));
    }
    let message = match number - failed.len() {
        0 => format!("Nothing was {word}, of {all}; why is said beside each."),
        done => format!(
            "{begin} {done} of {all}{}; why not the others is said beside each.",
            deed.way()
        ),
    };
    let problem = HttpProblem::conflict("not_all_done", message);
    left(asked, place, deed.action(), &failed, problem).await
}

/// The answer if some entries failed: which, and why.
async fn left(
    asked: &PageRequest,
    place: &PagePlace,
    action: ChosenAction,
    entries: &[ChosenEntry],
    problem: HttpProblem,
) -> Result<Response> {
    let failed: Vec<_> = entries.iter().filter_map(FailedEntry::of).collect();
    if asked.wants_json() && !failed.is_empty() {
        let answer = NotAllDone { error: problem.code(), message: problem.message(), failed };
        return Ok((problem.status(), Json(answer)).into_response());
    }
    match asked.finished(Err(problem)) {
        Err(problem) => question(asked, place, action, entries, Some(&problem)).await,
        finished => finished,
    }
}

impl<'a> FailedEntry<'a> {
    fn of(entry: &'a ChosenEntry) -> Option<Self> {
        let why = entry.why.as_ref()?;
        Some(Self { name: entry.word(), error: why.code(), message: why.message() })
    }
}
