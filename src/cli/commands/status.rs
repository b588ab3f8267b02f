//! `s3vault status`

use std::path::Path;

use serde_json::json;

use super::ask::{not_mounted, report_of};
use super::path_status::path_status;
use super::watch::watch;
use crate::cli::args::StatusArgs;
use crate::cli::config::Config;
use crate::cli::daemon_report::DaemonReport;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::last;
use crate::cli::output;
use crate::cli::paths::{UserPaths, absolute};
use crate::cli::registry::RunningDaemon;

/// Shows every mount and service of this user, or one; or how safe a path in a mount is.
pub(crate) async fn status(paths: &UserPaths, args: &StatusArgs) -> CliResult {
    let path = args.path.as_deref().map(absolute).transpose()?;
    if let Some(path) = &path
        && at(paths, path).is_empty()
        && let Some(around) = RunningDaemon::around(&paths.running(), path)
    {
        if args.watch {
            let text = format!(
                "{} is in a mount: --watch shows mounts; leave it out, or name {}",
                path.display(),
                around.name()
            );
            return Err(Failure::new(Exit::Usage, text));
        }
        return path_status(&around, path, args.json);
    }
    let chosen = || chosen(paths, path.as_deref());
    if args.watch {
        return watch(paths, chosen).await;
    }
    let reports: Vec<_> = chosen()?.iter().map(report_of).collect();
    let unfinished = match path {
        Some(_) => Vec::new(),
        None => last::unfinished(&paths.state),
    };
    if args.json {
        let unfinished: Vec<_> = unfinished.iter().map(|(_, wrote)| wrote).collect();
        let all = json!({ "mounts": reports, "unfinished": unfinished });
        return output::show(&all.to_string());
    }
    let mut text: Vec<_> = reports.iter().map(DaemonReport::describe).collect();
    if reports.is_empty() {
        text.push("No mount or service of this user runs.".to_owned());
        for known in Config::read(&paths.config)?.vaults {
            text.push(format!("known: {}  (vault {})", known.shown(), known.id));
        }
    }
    text.extend(unfinished.iter().map(|(dir, wrote)| not_ended_well(dir, wrote)));
    output::show(&text.join("\n"))
}

/// What is to be said of a daemon that was killed, or gave up.
fn not_ended_well(dir: &Path, wrote: &RunningDaemon) -> String {
    let at = wrote.mountpoint.as_ref().map(|path| format!(", mounted at {}", path.display()));
    format!(
        "NOT ENDED WELL: {}{}: what was not in the bucket yet is in {} alone; mount it again, and it is sent (or set \
         aside for `s3vault recover`, if another machine took the vault over)",
        wrote.bucket,
        at.unwrap_or_default(),
        dir.display()
    )
}

/// What is mounted at a path.
fn at(paths: &UserPaths, path: &Path) -> Vec<RunningDaemon> {
    let all = RunningDaemon::all(&paths.running()).into_iter();
    all.filter(|running| running.mountpoint.as_deref() == Some(path)).collect()
}

/// The daemons that are meant.
fn chosen(paths: &UserPaths, path: Option<&Path>) -> CliResult<Vec<RunningDaemon>> {
    let Some(path) = path else { return Ok(RunningDaemon::all(&paths.running())) };
    let here = at(paths, path);
    if here.is_empty() {
        let all = RunningDaemon::all(&paths.running());
        return Err(not_mounted(&path.display().to_string(), &all));
    }
    Ok(here)
}
